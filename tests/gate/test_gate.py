"""The gate before a real HTTP server: what goes through, what readiness means, and how a replica ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from io import BytesIO

import pytest
from aiohttp import ClientError, ClientSession

from tests.gate.model_server import ModelServer
from tidegate.gate.readiness import Question
from tidegate.gate.server import Settings, gate

QUESTION = Question(interval_seconds=0.05, timeout_seconds=0.5, hurry_seconds=0.02)
TOKEN = {"Tidegate-Drain": "secret"}


@dataclass
class Scene:
    """A gate before a model server, and a client."""

    model: ModelServer
    client: ClientSession
    public: str
    control: str

    async def ready(self) -> tuple[int, str]:
        async with self.client.get(f"{self.control}/readyz") as answer:
            return answer.status, (await answer.text()).strip()

    async def is_ready(self) -> bool:
        return (await self.ready())[0] == 200

    async def metric(self, name: str) -> float:
        async with self.client.get(f"{self.control}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    async def post(self, path: str = "/v1/completions", body: str | BytesIO = "{}") -> int:
        async with self.client.post(self.public + path, data=body) as answer:
            await answer.read()
            return answer.status

    async def drain(self) -> str:
        async with self.client.get(f"{self.control}/drain", headers=TOKEN) as answer:
            return (await answer.text()).strip()


@asynccontextmanager
async def scene(
    question: Question = QUESTION, drain_seconds: float = 5, settle: float = 0.0, connection_seconds: float = 60
) -> AsyncIterator[Scene]:
    model = ModelServer()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(ClientSession())
        await stack.enter_async_context(model.serve())
        settings = Settings(
            model.url,
            "secret",
            drain_seconds,
            port=0,
            control_port=0,
            question=question,
            settle_seconds=settle,
            quiet_seconds=0.1,
            connection_seconds=connection_seconds,
            host="127.0.0.1",
        )
        public, control = await stack.enter_async_context(gate(settings))
        yield Scene(model, client, f"http://127.0.0.1:{public}", f"http://127.0.0.1:{control}")
        model.go_on.set()


def alone(url: str) -> Settings:
    """A gate before a server that is not there, or not there yet."""
    return Settings(url, "secret", 1, 0, 0, QUESTION, host="127.0.0.1")


async def until(look: Callable[[], object], seconds: float = 5) -> None:
    """Until the answer is true; a coroutine is awaited."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if await found if asyncio.iscoroutine(found) else found:
            return
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.01)


# --- what goes through


async def test_a_request_and_its_answer_go_through_as_they_are() -> None:
    async with scene() as s:
        headers = {"Authorization": "Bearer key", "Connection": "x-private", "X-Private": "1"}
        url = f"{s.public}/v1/a%2Fb?x=1&y=%20"
        async with s.client.post(url, data=b"body", headers=headers) as answer:
            assert (answer.status, answer.headers["X-Model"]) == (200, "tiny")
        at = s.model.asked.index(("POST", "/v1/a%2Fb?x=1&y=%20", b"body"))
        seen = s.model.headers[at]
        assert seen["Authorization"] == "Bearer key"
        assert "X-Private" not in seen


async def test_a_large_body_is_not_refused() -> None:
    async with scene() as s:
        assert await s.post(body=BytesIO(bytes(5_000_000))) == 200
        assert max(len(body) for _, _, body in s.model.asked) == 5_000_000


@pytest.mark.parametrize("status", [400, 404, 429, 500])
async def test_what_the_model_refuses_is_passed_on(status: int) -> None:
    async with scene() as s:
        s.model.status = status
        assert await s.post() == status


async def test_parts_of_a_stream_come_as_they_are_made() -> None:
    async with scene() as s:
        s.model.go_on.clear()
        async with s.client.post(f"{s.public}/stream/completions") as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            assert await answer.content.readany() == b"data: one\n\n"
            assert await s.metric("tidegate_gate_in_flight_requests") == 1
            s.model.go_on.set()
            assert await answer.content.read() == b"data: two\n\n"
        await until(lambda: s.metric('tidegate_gate_requests_total{code="200"}'))
        assert await s.metric("tidegate_gate_in_flight_requests") == 0


async def test_a_client_that_keeps_its_connection_is_told_to_take_another_after_a_while() -> None:
    async with scene() as s, s.client.post(f"{s.public}/v1/completions", data="{}") as answer:
        assert answer.headers.get("Connection") is None
    async with scene(connection_seconds=0) as s, s.client.post(f"{s.public}/v1/completions", data="{}") as answer:
        assert answer.status == 200
        assert answer.headers.get("Connection") == "close"


async def test_a_client_that_goes_away_ends_its_request_at_the_model() -> None:
    async with scene(replace(QUESTION, interval_seconds=60)) as s:
        await until(s.is_ready)
        s.model.go_on.clear()
        waiting = asyncio.create_task(s.post())
        await until(lambda: any(body == b"{}" for _, _, body in s.model.asked))
        waiting.cancel()
        await until(lambda: s.model.given_up == 1)
        await until(lambda: s.metric('tidegate_gate_requests_total{code="aborted"}'))


async def test_an_answer_that_breaks_off_does_not_look_whole() -> None:
    async with scene() as s:
        with pytest.raises(ClientError):
            await s.post("/break/completions")
        await until(lambda: s.metric('tidegate_gate_requests_total{code="aborted"}'))


async def test_without_a_model_server_the_answer_is_502_and_one_sentence() -> None:
    async with ClientSession() as client, gate(alone("http://127.0.0.1:1")) as (public, _):
        async with client.post(f"http://127.0.0.1:{public}/v1/completions", json={}) as answer:
            words = (await answer.json())["error"]["message"]
        assert answer.status == 502
        assert words.startswith("The model server of this replica does not answer (")


# --- when a replica is ready


async def test_a_replica_is_ready_when_it_answered_with_a_token() -> None:
    async with scene() as s:
        await until(s.is_ready)
        assert ("GET", "/v1/models", b"") in s.model.asked
        assert any(path == "/v1/completions" and b'"max_tokens": 1' in body for _, path, body in s.model.asked)
        assert any(b'"model": "tiny"' in body for _, _, body in s.model.asked)


async def test_a_chat_model_is_asked_as_such_by_its_name() -> None:
    async with scene(replace(QUESTION, path="/v1/chat/completions", model="big")) as s:
        await until(s.is_ready)
        assert {path for _, path, _ in s.model.asked} == {"/v1/chat/completions"}
        assert all(b'"messages"' in body and b'"model": "big"' in body for _, _, body in s.model.asked)


@pytest.mark.parametrize(
    ("status", "models", "choices", "why"),
    [
        (500, ["tiny"], [], "/v1/completions was answered with 500"),
        (200, [], [], "/v1/models lists no model"),
        (200, ["tiny"], [], "/v1/completions was answered without a token"),
    ],
)
async def test_a_server_that_listens_but_makes_no_token_is_not_ready(
    status: int, models: list[str], choices: list[dict[str, str]], why: str
) -> None:
    async with scene() as s:
        s.model.status, s.model.models, s.model.choices = status, models, choices

        async def says_why() -> bool:
            code, words = await s.ready()
            return code == 503 and words.startswith(why)

        await until(says_why)


async def test_a_replica_that_falls_silent_is_not_ready_until_it_answers_again() -> None:
    async with scene() as s:
        await until(s.is_ready)
        s.model.go_on.clear()

        async def silent() -> bool:
            return await s.ready() == (503, "/v1/completions was not answered within 0.5 s")

        await until(silent)
        s.model.go_on.set()
        await until(s.is_ready)


async def test_tokens_of_others_prove_that_a_busy_replica_lives() -> None:
    async with scene(replace(QUESTION, interval_seconds=60)) as s:
        await until(s.is_ready)
        asked = len(s.model.asked)
        for _ in range(3):
            await s.post()
        assert len(s.model.asked) == asked + 3


async def test_a_server_that_is_dead_at_first_becomes_ready() -> None:
    model = ModelServer()
    async with model.serve():
        url = model.url
    async with ClientSession() as client, gate(alone(url)) as (public, control):
        s = Scene(model, client, f"http://127.0.0.1:{public}", f"http://127.0.0.1:{control}")
        assert not await s.is_ready()
        async with model.serve(int(url.rpartition(":")[2])):
            await until(s.is_ready)


# --- how a replica ends


async def test_a_drain_waits_for_what_is_in_flight_and_readiness_is_gone_at_once() -> None:
    async with scene(replace(QUESTION, interval_seconds=60)) as s:
        await until(s.is_ready)
        s.model.go_on.clear()
        waiting = asyncio.create_task(s.post())
        await until(lambda: s.metric("tidegate_gate_in_flight_requests"))
        draining = asyncio.create_task(s.drain())

        async def ends() -> bool:
            return await s.ready() == (503, "the replica ends")

        await until(ends)
        assert not draining.done()
        s.model.go_on.set()
        assert await waiting == 200
        assert await draining == "drained"


async def test_what_still_comes_during_a_drain_is_answered_and_told_to_go_elsewhere() -> None:
    async with scene(settle=0.5) as s:
        draining = asyncio.create_task(s.drain())

        async def told() -> bool:
            async with s.client.post(f"{s.public}/v1/completions", data="{}") as answer:
                assert answer.status == 200
                return answer.headers.get("Connection") == "close"

        await until(told)
        assert await draining == "drained"


async def test_a_drain_has_an_end_even_when_a_request_has_none() -> None:
    async with scene(drain_seconds=0.2) as s:
        await until(s.is_ready)
        s.model.go_on.clear()
        waiting = asyncio.create_task(s.post())
        await until(lambda: s.metric("tidegate_gate_in_flight_requests"))
        assert await s.drain() == "the time for it was over"
        s.model.go_on.set()
        await waiting


async def test_only_who_knows_the_token_may_end_a_replica() -> None:
    async with scene() as s:
        await until(s.is_ready)
        for headers in ({}, {"Tidegate-Drain": "guess"}):
            async with s.client.get(f"{s.control}/drain", headers=headers) as answer:
                assert answer.status == 403
        assert await s.is_ready()

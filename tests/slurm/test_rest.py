"""Every way in which a request to slurmrestd can fail, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from typing import Any

import jwt
import pytest
import trustme
from aiohttp import web

from tests.slurm.restd import KEY, Clock, body, client, failure, restd
from tidegate.slurm.errors import (
    NoCommonVersion,
    PermissionRefused,
    Rejected,
    SlurmError,
    TokenRefused,
    Unreachable,
)


def _told(trouble: object) -> str:
    return str(getattr(trouble, "__name__", trouble))


async def _hangs_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def test_errors_in_http_200_are_an_error_with_slurms_words() -> None:
    async with restd() as server, client(server.url) as slurm:
        server.on("/nodes/", failure(2009, "Duplicate job id", "Failure to query nodes"))
        with pytest.raises(Rejected, match="Slurm cluster site: Failure to query nodes: Duplicate job id"):
            await slurm.observe()


async def test_each_request_is_heard_of_with_the_reason_of_its_failure() -> None:
    heard: list[tuple[str, str]] = []
    async with restd() as server, client(server.url, heard=heard) as slurm:
        server.on("/nodes/", failure(2009, "Duplicate job id", "Failure to query nodes"))
        with pytest.raises(Rejected):
            await slurm.observe()
    assert ("GET ping", "") in heard
    assert ("GET nodes", "Rejected") in heard
    assert {call.split()[0] for call, _ in heard} == {"GET"}


async def test_a_failure_without_errors_is_one_too() -> None:
    async with restd() as server, client(server.url) as slurm:
        server.on("/partitions/", (500, body()))
        with pytest.raises(Rejected, match="HTTP 500"):
            await slurm.observe()


@pytest.mark.parametrize(
    "answer",
    [
        (401, "Authentication failure"),
        (511, failure(1007, "Protocol authentication error")),
        (511, body()),
        failure(1007, "Protocol authentication error"),
    ],
)
async def test_a_refused_key_is_told_from_all_forms_of_refusal(answer: Any) -> None:
    async with restd() as server, client(server.url) as slurm:
        server.on("/jobs/state/", answer)
        with pytest.raises(TokenRefused, match="not the key that slurmctld has") as error:
            await slurm.observe()
        assert error.value.reason == "KeyRefused"
        assert server.count("/jobs/state/") == 1


async def test_an_expired_ready_token_is_told_from_a_wrong_one() -> None:
    old = jwt.encode({"sun": "slurm", "exp": 1}, KEY, algorithm="HS256").encode()
    good = jwt.encode({"sun": "slurm", "exp": 4102444800}, KEY, algorithm="HS256").encode()
    async with restd() as server:
        server.on("/jobs/state/", (401, "Authentication failure"))
        for token, reason in ((old, "TokenExpired"), (good, "TokenRefused")):
            async with client(server.url, secret={"token": token}) as slurm:
                with pytest.raises(TokenRefused) as error:
                    await slurm.observe()
                assert error.value.reason == reason
            assert server.tokens[-1] == token.decode()


@pytest.mark.parametrize("number", [2002, 2010])
async def test_missing_rights_are_not_taken_for_a_wrong_token(number: int) -> None:
    async with restd() as server, client(server.url) as slurm:
        server.on(
            "/node/n1", body(nodes=[{"name": "n1", "state": ["IDLE"]}]), (500, failure(number, "Invalid user id"))
        )
        with pytest.raises(PermissionRefused, match=r"Invalid user id.*Administrator"):
            await slurm.drain("n1", "tidegate: test")


@pytest.mark.parametrize(
    "trouble", [(502, "<html>bad gateway</html>"), (503, ""), (500, "proxy error"), _hangs_up], ids=_told
)
async def test_a_read_is_repeated_when_something_before_slurm_fails(trouble: Any) -> None:
    async with restd() as server, client(server.url) as slurm:
        partitions = [{"name": "lent", "node_sets": "lent,more"}, {"name": "all", "node_sets": ""}]
        server.on("/partitions/", trouble, trouble, body(partitions=partitions))
        seen = await slurm.observe()
        assert seen.partitions == {"lent", "all"}
        assert seen.node_sets == {"lent": frozenset({"lent", "more"})}
        assert server.count("/partitions/") == 3


async def test_a_read_is_repeated_twice_at_most() -> None:
    async with restd() as server, client(server.url) as slurm:
        server.on("/partitions/", (503, "no"))
        with pytest.raises(Unreachable, match="HTTP 503"):
            await slurm.observe()
        assert server.count("/partitions/") == 3


async def test_slurms_own_no_is_not_repeated() -> None:
    async with restd() as server, client(server.url) as slurm:
        server.on("/partitions/", (500, failure(2100, "Some error")))
        with pytest.raises(Rejected, match="Some error"):
            await slurm.observe()
        assert server.count("/partitions/") == 1


@pytest.mark.parametrize(
    ("status", "number", "words"),
    [
        (502, 1800, "Unable to contact slurm controller (connect failure)"),
        (504, 5004, "Socket timed out on send/recv operation"),
        (500, -1, "Unspecified error"),
        (403, 1, "Operation not permitted"),
    ],
)
async def test_a_dead_slurmctld_behind_a_living_slurmrestd(status: int, number: int, words: str) -> None:
    async with restd() as server, client(server.url) as slurm:
        server.on("/jobs/state/", (status, failure(number, words)))
        with pytest.raises(Unreachable, match=f"slurmctld does not answer slurmrestd.*{re.escape(words)}"):
            await slurm.observe()
        assert server.count("/jobs/state/") == 1


@pytest.mark.parametrize("trouble", [(503, "no"), _hangs_up], ids=_told)
async def test_an_act_is_sent_once(trouble: Any) -> None:
    async with restd(versions=("v0.0.45", "v0.0.44"), release="26.05.5") as server, client(server.url) as slurm:
        server.on("/job/7/requeue", trouble)
        with pytest.raises(Unreachable):
            await slurm.requeue_job(7)
        assert server.count("/job/7/requeue") == 1


async def test_a_slow_answer_is_none() -> None:
    async def never(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    async with restd() as server, client(server.url, total_seconds=0.2) as slurm:
        server.on("/partitions/", never)
        with pytest.raises(Unreachable, match=r"no answer .* within 0.2 s"):
            await slurm.observe()
        assert server.count("/partitions/") == 1


async def test_nobody_listens() -> None:
    async with restd() as server:
        url = server.url
    async with client(url) as slurm:
        with pytest.raises(Unreachable, match=rf"Slurm cluster site: {url} does not answer .* check the address"):
            await slurm.observe()


async def test_the_circuit_keeps_a_dead_slurmrestd_from_being_asked_and_closes_again() -> None:
    clock = Clock()
    async with restd() as server, client(server.url, clock) as slurm:
        await slurm.observe()
        server.on("/jobs/state/", (503, "no"), (503, "no"), (503, "no"), body(jobs=[]))
        for _ in range(5):
            with pytest.raises(Unreachable, match="HTTP 503"):
                await slurm.observe()
        assert server.count("/jobs/state/") == 1 + 3
        clock.go_on(1.5)
        assert (await slurm.observe()).observed == clock.now


async def test_something_else_than_slurmrestd_answers() -> None:
    async with restd() as server, client(server.url) as slurm:
        server.on("/ping/", "<html>welcome</html>")
        with pytest.raises(Unreachable, match="is no answer of slurmrestd"):
            await slurm.observe()


async def test_no_common_version_names_those_that_we_know() -> None:
    async with restd(versions=("v0.0.40", "v0.0.46")) as server, client(server.url) as slurm:
        with pytest.raises(NoCommonVersion, match=r"v0.0.42 to v0.0.45"):
            await slurm.observe()


@pytest.mark.parametrize(
    ("offered", "newest", "jobs", "capabilities"),
    [
        (("v0.0.40", "v0.0.41", "v0.0.42"), "v0.0.42", "v0.0.42", set()),
        (("v0.0.41", "v0.0.42", "v0.0.43", "v0.0.44"), "v0.0.44", "v0.0.44", {"reservation"}),
        (("v0.0.42", "v0.0.43", "v0.0.44", "v0.0.45"), "v0.0.45", "v0.0.44", {"requeue", "reservation"}),
        (("v0.0.43", "v0.0.44", "v0.0.45", "v0.0.46"), "v0.0.45", "v0.0.44", {"requeue", "reservation"}),
        (("v0.0.45", "v0.0.46"), "v0.0.45", "v0.0.45", {"requeue", "reservation"}),
    ],
)
async def test_speaks_the_newest_common_version(
    offered: tuple[str, ...], newest: str, jobs: str, capabilities: set[str]
) -> None:
    async with restd(versions=offered) as server, client(server.url) as slurm:
        state = await slurm.observe()
        assert state.data_parser == newest
        assert set(state.capabilities) == capabilities
        assert f"GET /slurm/{jobs}/jobs/state/" in server.asked
        assert f"GET /slurm/{newest}/nodes/" in server.asked


async def test_agrees_anew_when_slurmrestd_no_longer_knows_the_version() -> None:
    async with restd(versions=("v0.0.42",)) as server, client(server.url) as slurm:
        await slurm.observe()
        server.versions = ("v0.0.44", "v0.0.45")
        with pytest.raises(SlurmError, match=r"does not know /slurm/v0.0.42"):
            await slurm.observe()
        assert (await slurm.observe()).data_parser == "v0.0.45"


async def test_agrees_anew_when_another_release_answers() -> None:
    async with restd(versions=("v0.0.42",)) as server, client(server.url) as slurm:
        await slurm.observe()
        server.versions = ("v0.0.42", "v0.0.45")
        server.on("/nodes/", body("26.05.5", nodes=[]))
        assert (await slurm.observe()).data_parser == "v0.0.42"
        assert (await slurm.observe()).data_parser == "v0.0.45"


def _authority() -> tuple[trustme.CA, ssl.SSLContext]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return authority, context


async def test_tls_with_the_sites_own_authority() -> None:
    authority, context = _authority()
    async with restd(context) as server, client(server.url, ca_pem=authority.cert_pem.bytes()) as slurm:
        assert (await slurm.observe()).data_parser == "v0.0.42"


@pytest.mark.parametrize("ca_pem", [None, trustme.CA().cert_pem.bytes()], ids=["the system's", "another"])
async def test_a_certificate_of_an_unknown_authority_is_refused(ca_pem: bytes | None) -> None:
    _, context = _authority()
    async with restd(context) as server, client(server.url, ca_pem=ca_pem) as slurm:
        with pytest.raises(Unreachable, match=r"certificate of https://localhost:\d+ is not trusted.*`ca.crt`"):
            await slurm.observe()
        assert server.asked == []


async def test_an_authority_that_is_none_is_named() -> None:
    with pytest.raises(SlurmError, match=r"`ca.crt` of the credentials Secret holds no certificate") as error:
        async with client("https://localhost:1", ca_pem=b"not a certificate"):
            pass
    assert error.value.reason == "InvalidCertificate"


def _raw(status: str, content: bytes, close: bool) -> bytes:
    head = [f"HTTP/1.1 {status}", *(["Connection: Close"] if close else []), f"Content-Length: {len(content)}", "", ""]
    return "\r\n".join(head).encode() + content


@pytest.mark.parametrize("pieces", [1, 7, 100000], ids=["byte by byte", "in pieces", "at once"])
async def test_the_second_answer_to_an_error_is_left_alone(pieces: int) -> None:
    """As slurmrestd 26.05.5 does it."""
    refused = json.dumps(failure(2018, "Invalid node name specified")).encode()
    answers = {
        b"/ping/": _raw("200 OK", json.dumps(body()).encode(), close=False),
        b"/node/": _raw("422 UNPROCESSABLE CONTENT", refused, close=True)
        + _raw("422 UNPROCESSABLE CONTENT", b"Invalid node name specified", close=True),
    }
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head)
        answer = next((a for path, a in answers.items() if path in head), _raw("404 NOT FOUND", b"no", close=True))
        for start in range(0, len(answer), pieces):
            writer.write(answer[start : start + pieces])
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener, client(f"http://127.0.0.1:{port}") as slurm:
        with pytest.raises(Rejected, match="Invalid node name specified"):
            await slurm._update_node("n1", {})
    assert not any(b"connection: close" in head.lower() for head in asked)


async def test_any_bytes_in_a_comment_do_not_blind_us() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        raw = json.dumps(body(nodes=[{"name": "n1", "state": ["IDLE"], "comment": "XX"}])).encode()
        return web.Response(body=raw.replace(b"XX", b"\xff\xfe"))

    async with restd() as server, client(server.url) as slurm:
        server.on("/nodes/", answer)
        assert (await slurm.observe()).nodes["n1"].comment == "\ufffd\ufffd"

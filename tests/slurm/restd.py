"""An HTTP server with the words of slurmrestd, for tests of the client; what it answers is up to the test."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from tidegate.slurm.client import SlurmRestClient
from tidegate.slurm.token import TokenSource

KEY = b"k" * 32
SECRET = "tidegate-system/slurm"
START = datetime(2026, 1, 1, tzinfo=UTC)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def go_on(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


def body(release: str = "24.11.5", **content: Any) -> dict[str, Any]:
    """An answer of slurmrestd with this content."""
    return {"errors": [], "warnings": [], "meta": {"slurm": {"release": release}}, **content}


def failure(number: int, words: str, description: str = "Failure") -> dict[str, Any]:
    """An answer with one error."""
    return body(errors=[{"description": description, "error_number": number, "error": words, "source": "test"}])


@dataclass
class Restd:
    """Answers by path, newest rule first. `asked` holds `METHOD path` of each request, `tokens` what came with it."""

    url: str = ""
    versions: tuple[str, ...] = ("v0.0.42",)
    release: str = "24.11.5"
    asked: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    rules: list[tuple[str, Handler]] = field(default_factory=list)

    def on(self, path: str, *answers: Any, status: int = 200) -> None:
        """Requests for a path that ends so get these answers one after the other, and the last one again and again.

        An answer is JSON, a pair of status and JSON or text, or a handler.
        """
        left = list(answers)

        async def handler(request: web.Request) -> web.StreamResponse:
            answer = left.pop(0) if len(left) > 1 else left[0]
            if callable(answer):
                return await answer(request)  # type: ignore[no-any-return]
            code, content = answer if isinstance(answer, tuple) else (status, answer)
            text = content if isinstance(content, str) else json.dumps(content)
            return web.Response(status=code, text=text)

        self.rules.insert(0, (path, handler))

    def count(self, path: str) -> int:
        """How many requests were for a path that ends so."""
        return sum(1 for asked in self.asked if asked.endswith(path))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        self.asked.append(f"{request.method} {request.path}")
        self.tokens.append(request.headers.get("X-SLURM-USER-TOKEN", ""))
        self.queries.append(dict(request.query))
        self.bodies.append(await request.json() if request.can_read_body else None)
        if request.path.split("/")[2] in self.versions:
            for path, handler in self.rules:
                if request.path.endswith(path):
                    return await handler(request)
        return web.Response(status=404, text="Unable find requested URL. Please view /openapi/v3 for API reference.")


@asynccontextmanager
async def restd(tls: ssl.SSLContext | None = None, **settings: Any) -> AsyncIterator[Restd]:
    """A running server that knows an empty Slurm; `tls` makes it https."""
    server = Restd(**settings)
    server.on("/ping/", body(server.release, pings=[]))
    server.on("/jobs/state/", body(server.release, jobs=[]))
    server.on("/jobs/", body(server.release, jobs=[]))
    server.on("/partitions/", body(server.release, partitions=[]))
    server.on("/nodes/", body(server.release, nodes=[]))
    server.on("/reservations/", body(server.release, reservations=[]))
    server.on("/node/tidegate-no-such-node", (500, failure(2018, "Invalid node name specified")))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "localhost", 0, ssl_context=tls)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    server.url = f"{'https' if tls else 'http'}://localhost:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client(
    url: str,
    clock: Clock | None = None,
    secret: dict[str, bytes] | None = None,
    ca_pem: bytes | None = None,
    total_seconds: float = 10.0,
    heard: list[tuple[str, str]] | None = None,
) -> AsyncIterator[SlurmRestClient]:
    """A client of it, whose retries do not wait. `heard` gets each request with the reason of its failure."""
    clock = clock or Clock()
    tokens = TokenSource(SECRET, secret or {"jwt_hs256.key": KEY}, "slurm", clock)

    def hear(call: str, seconds: float, failure: str) -> None:
        assert seconds >= 0
        if heard is not None:
            heard.append((call, failure))

    made = SlurmRestClient(
        "site", url, "slurm", tokens, ca_pem, clock,
        random=lambda: 0.0, on_request=hear, total_seconds=total_seconds,
    )  # fmt: skip
    try:
        yield made
    finally:
        await made.close()
        # aiohttp closes transports in the next turn of the loop
        await asyncio.sleep(0)

"""A model server that does what a test wants: it answers, waits, streams, breaks off, or is not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


class ModelServer:
    """What it was asked, and how it shall answer."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[tuple[str, str, bytes]] = []
        """Method, path with query, and body of each request."""
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.models = ["tiny"]
        self.choices = [{"text": "x"}]
        self.go_on = asyncio.Event()
        """While it is not set, no answer ends."""
        self.go_on.set()
        self.given_up = 0
        """Requests whose client went away."""

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.asked.append((request.method, request.path_qs, body))
        self.headers.append(dict(request.headers))
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": name} for name in self.models]})
        if request.path == "/stream/completions":
            return await self._stream(request)
        if request.path == "/break/completions":
            return await self._break(request)
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        return web.json_response(
            {"choices": self.choices, "path": request.path}, status=self.status, headers={"X-Model": "tiny"}
        )

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """One event now, one when `go_on` is set."""
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b"data: one\n\n")
        try:
            await self.go_on.wait()
            await answer.write(b"data: two\n\n")
        except (asyncio.CancelledError, ConnectionError):
            self.given_up += 1
            raise
        return answer

    async def _break(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"half of")
        await self.go_on.wait()
        assert request.transport
        request.transport.abort()
        return answer

    @asynccontextmanager
    async def serve(self, port: int = 0) -> AsyncIterator[ModelServer]:
        """It runs within the block, at `url`."""
        app = web.Application(client_max_size=10_000_000)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

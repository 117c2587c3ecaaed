"""Requests go through to the model server as they are, answers come back as they are made; both are counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from weakref import WeakKeyDictionary

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector, web
from multidict import CIMultiDict
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from yarl import URL

log = logging.getLogger(__name__)
CONNECT_SECONDS = 5
CONNECTION_SECONDS = 10.0
"""A connection that is older ends with its next answer: a client that keeps its connections finds new replicas."""
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that speak of one connection and not of the request (RFC 9110, 7.6.1)."""
_NOT_OURS_TO_ADD = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class BrokenOff(Exception):  # noqa: N818 - what happened, not an error of ours
    """The model server ended in the middle of its answer."""

    def __init__(self, answer: web.StreamResponse) -> None:
        super().__init__("the model server ended in the middle of its answer")
        self.answer = answer


class Proxy:
    """Forwards to one server. Requests are not buffered and not repeated; an answer is passed on part by part."""

    def __init__(
        self,
        server: str,
        clock: Callable[[], float],
        works: Callable[[], None],
        connection_seconds: float = CONNECTION_SECONDS,
    ) -> None:
        """`server` is its URL without a path; `works` is called for each part of a good answer of the model."""
        self._server = server
        self._clock = clock
        self._works = works
        self._connection_seconds = connection_seconds
        self._connected: WeakKeyDictionary[asyncio.BaseTransport, float] = WeakKeyDictionary()
        # A kept connection may be closed by the server just as a request is sent on it, and a POST is not repeated.
        connector = TCPConnector(limit=0, force_close=True)
        timeout = ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        self._session = ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        self.in_flight = 0
        self.last_request = clock()
        """When a request last came or ended."""
        self.closing = False
        """Whether each answer is the last one on its connection, so that the client's next one goes elsewhere."""
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "tidegate_gate_requests_total", "Requests by status code.", ["code"], registry=self.registry
        )
        self._seconds = Histogram(
            "tidegate_gate_request_seconds",
            "From a request's head to the end of its answer.",
            registry=self.registry,
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
        )
        in_flight = Gauge(
            "tidegate_gate_in_flight_requests", "Requests without a whole answer.", registry=self.registry
        )
        in_flight.set_function(lambda: self.in_flight)

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Answer as the model server does. 502 when it does not answer."""
        started = self.last_request = self._clock()
        if request.transport:
            self._connected.setdefault(request.transport, started)
        self.in_flight += 1
        code = "aborted"
        try:
            answer = await self._forward(request)
            code = str(answer.status)
            return answer
        except BrokenOff as broken:
            # An end in the middle must not look like the end of the answer.
            if request.transport:
                request.transport.abort()
            return broken.answer
        finally:
            self.in_flight -= 1
            self.last_request = self._clock()
            self._requests.labels(code).inc()
            self._seconds.observe(self._clock() - started)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        try:
            upstream = await self._session.request(
                request.method,
                URL(self._server + request.raw_path, encoded=True),
                headers=_end_to_end(request.headers),
                data=request.content if request.body_exists else None,
                allow_redirects=False,
                skip_auto_headers=_NOT_OURS_TO_ADD,
            )
        except (ClientError, TimeoutError) as error:
            return self._no_answer(request, error)
        async with upstream:
            return await self._pass_on(request, upstream)

    async def _pass_on(self, request: web.Request, upstream: ClientResponse) -> web.StreamResponse:
        answer = web.StreamResponse(
            status=upstream.status, reason=upstream.reason, headers=_end_to_end(upstream.headers)
        )
        self._may_end_connection(request, answer)
        proves = request.method == "POST" and request.path.endswith("/completions") and upstream.status == 200
        await answer.prepare(request)
        while part := await self._next_part(answer, upstream):
            await answer.write(part)
            if proves:
                self._works()
        await answer.write_eof()
        return answer

    async def _next_part(self, answer: web.StreamResponse, upstream: ClientResponse) -> bytes:
        """What came next of the answer; nothing at its end."""
        try:
            return await upstream.content.readany()
        except ClientError as error:
            log.warning("the model server broke off an answer: %s", error)
            raise BrokenOff(answer) from error

    def _may_end_connection(self, request: web.Request, answer: web.StreamResponse) -> None:
        since = self._connected.get(request.transport) if request.transport else None
        if self.closing or since is None or self._clock() - since >= self._connection_seconds:
            answer.force_close()

    def _no_answer(self, request: web.Request, error: Exception) -> web.Response:
        why = str(error) or type(error).__name__
        log.warning("the model server does not answer: %s", why)
        words = f"The model server of this replica does not answer ({why}); try again."
        answer = web.json_response({"error": {"message": words, "type": "server_error"}}, status=502)
        self._may_end_connection(request, answer)
        return answer

    async def close(self) -> None:
        """Close the connections to the server."""
        await self._session.close()


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    return CIMultiDict((k, v) for k, v in headers.items() if k.lower() not in _HOP_BY_HOP | named)

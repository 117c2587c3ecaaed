"""The gate as a process: one port for everybody, and one for the kubelet and Prometheus."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest

from tidegate.gate.drain import QUIET_SECONDS, SETTLE_SECONDS, Drain
from tidegate.gate.proxy import CONNECTION_SECONDS, Proxy
from tidegate.gate.readiness import Question, Readiness

DRAIN_HEADER = "Tidegate-Drain"
"""Who asks for the drain has to know the replica's token: the port is open to the whole cluster."""
_LAST_WORDS_SECONDS = 5.0
"""How long answers in the making are waited for when the process is told to end."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a gate is told."""

    server: str
    """URL of the model server, such as `http://127.0.0.1:8000`."""
    drain_token: str
    drain_seconds: float = 120.0
    port: int = 8080
    control_port: int = 8081
    question: Question = field(default_factory=Question)
    settle_seconds: float = SETTLE_SECONDS
    quiet_seconds: float = QUIET_SECONDS
    connection_seconds: float = CONNECTION_SECONDS
    host: str | None = None
    """Every address of the pod, of either family, when absent."""


async def run(settings: Settings) -> None:
    """Serve until cancelled."""
    async with gate(settings):
        await asyncio.Event().wait()


@asynccontextmanager
async def gate(settings: Settings, clock: Callable[[], float] = time.monotonic) -> AsyncIterator[tuple[int, int]]:
    """A gate that serves within the block; its two ports."""
    readiness = Readiness(settings.server, settings.question, clock)
    proxy = Proxy(settings.server, clock, readiness.works, settings.connection_seconds)
    drain = Drain(proxy, settings.drain_seconds, clock, settings.settle_seconds, settings.quiet_seconds)
    public, control = web.Application(), web.Application()
    public.router.add_route("*", "/{path:.*}", proxy.forward)
    _add_control(control, settings, proxy, readiness, drain)
    asking = asyncio.create_task(readiness.keep(), name="readiness")
    runners = []
    try:
        ports = []
        for app, port in ((public, settings.port), (control, settings.control_port)):
            # A client that goes away ends its request at the model server, too.
            runner = web.AppRunner(
                app, access_log=None, handler_cancellation=True, shutdown_timeout=_LAST_WORDS_SECONDS
            )
            await runner.setup()
            runners.append(runner)
            await web.TCPSite(runner, settings.host, port).start()
            ports.append(int(runner.addresses[0][1]))
        yield ports[0], ports[1]
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        for runner in runners:
            await runner.cleanup()
        await proxy.close()


def _add_control(app: web.Application, settings: Settings, proxy: Proxy, readiness: Readiness, drain: Drain) -> None:
    ready = Gauge("tidegate_gate_ready", "1 while this replica wants requests.", registry=proxy.registry)
    ready.set_function(lambda: readiness.ready and not drain.began)

    async def readyz(_: web.Request) -> web.Response:
        why_not = "the replica ends" if drain.began else readiness.why_not
        return web.Response(status=503, text=f"{why_not}\n") if why_not else web.Response(text="ok\n")

    async def drained(request: web.Request) -> web.Response:
        given = request.headers.get(DRAIN_HEADER, "")
        if not hmac.compare_digest(given.encode(), settings.drain_token.encode()):
            return web.Response(status=403, text=f"only who knows the token in {DRAIN_HEADER} may end this replica\n")
        done = await drain.finish()
        return web.Response(text="drained\n" if done else "the time for it was over\n")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(proxy.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.router.add_get("/readyz", readyz)
    app.router.add_get("/drain", drained)
    app.router.add_get("/metrics", metrics)

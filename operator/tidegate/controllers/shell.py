"""The kopf shell and the process around it: watches feed the world, the loop decides, end points tell how it goes."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kopf
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from tidegate import __version__
from tidegate.cluster.client import KubeClient
from tidegate.cluster.errors import KubeError
from tidegate.cluster.kinds import Kind
from tidegate.controllers.crd_check import check_crds
from tidegate.controllers.hands import Hands
from tidegate.controllers.lease import Lease
from tidegate.controllers.loop import Loop
from tidegate.controllers.slurm_watch import SlurmWatch
from tidegate.controllers.world import SELECTORS, WATCHED, World

log = logging.getLogger(__name__)
PROBE_PORT = 8080
METRICS_PORT = 9090
RESYNC_SECONDS = 600
"""How often the world is compared with full lists, for deletions that a broken watch did not tell."""
STUCK_SECONDS = 60
"""A loop without a finished round for this long is dead, and the process is to be started again."""


async def run(
    kubeconfig: Path | None,
    namespace: str,
    probe_port: int = PROBE_PORT,
    metrics_port: int = METRICS_PORT,
    gate_image: str = "",
) -> None:
    """Run the operator until it is cancelled. Raises `KubeError` when the cluster does not let it start."""
    kube = await KubeClient.connect(kubeconfig, f"tidegate-operator/{__version__}")
    try:
        await check_crds(kube)
        await _run(kube, kubeconfig, namespace, probe_port, metrics_port, gate_image)
    finally:
        await kube.close()


async def _run(
    kube: KubeClient, kubeconfig: Path | None, namespace: str, probe_port: int, metrics_port: int, gate_image: str
) -> None:
    world = World(gate_image)
    lease = Lease(kube, namespace, f"{socket.gethostname()}_{os.getpid()}_{time.time_ns():x}", time.monotonic)

    def mark() -> None:
        loop.dirty()

    slurm = SlurmWatch(kube, namespace, _now, mark)
    hands = Hands(kube, slurm.client, namespace, _now, world.put, world.applied, world.refused, gate_image, lease.held)
    loop = Loop(world, slurm, hands, _now)
    synced = asyncio.Event()
    servers = [
        await _serve(probe_port, {"/healthz": lambda: _alive(loop), "/readyz": synced.is_set}),
        await _serve(metrics_port, {}),
    ]

    async def decide_when_synced() -> None:
        await synced.wait()
        await loop.run()

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(lease.keep(), name="lease")
            tasks.create_task(decide_when_synced(), name="loop")
            tasks.create_task(_resync(kube, world, mark), name="resync")
            tasks.create_task(_watch(world, kubeconfig, synced, mark), name="watch")
    finally:
        await slurm.close()
        await lease.release()
        for server in servers:
            await server.cleanup()


async def _watch(world: World, kubeconfig: Path | None, synced: asyncio.Event, mark: Callable[[], None]) -> None:
    """kopf's watches. Index functions see every object once before any event handler runs: then the world is whole."""
    registry = kopf.OperatorRegistry()

    def watch(kind: Kind) -> None:
        group, _, version = kind.api_version.rpartition("/")

        @kopf.index(group, version, kind.plural, id=f"put-{kind.plural}", registry=registry)
        async def put(body: kopf.Body, **_: Any) -> None:
            if world.put(kind, _raw(body, kind)):
                mark()

        @kopf.on.event(group, version, kind.plural, id=f"seen-{kind.plural}", registry=registry)
        async def seen(body: kopf.Body, type: str | None, **_: Any) -> None:
            if type == "DELETED":
                world.drop(kind, _raw(body, kind))
                mark()
            synced.set()

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        if kubeconfig is None:
            return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
        os.environ["KUBECONFIG"] = str(kubeconfig)
        return kopf.login_with_kubeconfig(**kwargs)

    for kind in WATCHED:
        watch(kind)
    await kopf.operator(registry=registry, settings=_settings(), standalone=True, clusterwide=True)
    raise RuntimeError("the watches ended; the operator starts anew")


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.chunk_size = 500
    for kind, labels in SELECTORS.items():
        group, _, version = kind.api_version.rpartition("/")
        settings.watching.label_selectors[group, version, kind.plural] = labels
    return settings


def _raw(body: kopf.Body, kind: Kind) -> dict[str, Any]:
    return {**body, "apiVersion": kind.api_version, "kind": kind.kind}


async def _resync(kube: KubeClient, world: World, mark: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(RESYNC_SECONDS)
        for kind in WATCHED:
            try:
                known = len(world.all(kind))
                listed = await kube.list(kind, label_selector=SELECTORS.get(kind, ""))
            except KubeError as error:
                log.warning("%s were not compared with a full list: %s", kind.plural, error)
                continue
            newest = max((int(item["metadata"]["resourceVersion"]) for item in listed), default=0)
            world.keep_only(kind, {item["metadata"]["uid"] for item in listed}, newest)
            if known != len(world.all(kind)):
                mark()


def _alive(loop: Loop) -> bool:
    return loop.last_round is None or time.monotonic() - loop.last_round < STUCK_SECONDS


async def _serve(port: int, checks: dict[str, Callable[[], bool]]) -> web.AppRunner:
    """Probes that answer 200 or 503, or, without probes, `/metrics`."""
    app = web.Application()

    def probe(check: Callable[[], bool]) -> Callable[[web.Request], Any]:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(text="ok\n") if check() else web.Response(status=503, text="not now\n")

        return answer

    async def expose(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    for path, check in checks.items():
        app.router.add_get(path, probe(check))
    if not checks:
        app.router.add_get("/metrics", expose)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner


def _now() -> datetime:
    return datetime.now(UTC)

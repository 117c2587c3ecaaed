"""Commands on a Kubernetes in memory, with a clock that stands and a terminal of one width."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from typer.testing import CliRunner, Result

from tests.fakes.kube import FakeKube
from tests.sharing.build import NOW
from tidegate.api import BatchPool, CapacityClaim, NodeLoan
from tidegate.api.names import FENCE_TAINT
from tidegate.cli.app import Outside, app
from tidegate.cluster.client import KubeApi
from tidegate.cluster.kinds import BATCH_POOLS, CAPACITY_CLAIMS, NODE_LOANS, NODES

LABELS = {"tidegate.dev/lendable": "true"}
_KINDS = {"BatchPool": BATCH_POOLS, "NodeLoan": NODE_LOANS, "CapacityClaim": CAPACITY_CLAIMS}


@dataclass
class Clock:
    """The time of objects that are made."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Commands:
    """Runs `tidegate` on its cluster. `asked` has the kubeconfig of each connection."""

    clock: Clock = field(default_factory=Clock)
    asked: list[Path | None] = field(default_factory=list)
    width: int = 120

    def __post_init__(self) -> None:
        self.kube = FakeKube(self.clock)

    def __call__(self, *args: str) -> Result:
        outside = Outside(self._connect, lambda: NOW, self._console)
        return CliRunner().invoke(app, args, obj=outside)

    async def _connect(self, kubeconfig: Path | None) -> KubeApi:
        self.asked.append(kubeconfig)
        return self.kube

    def _console(self) -> Console:
        return Console(width=self.width, markup=False, highlight=False, emoji=False, color_system=None)

    def node(self, name: str, fence: str = "", **spec: Any) -> None:
        """A node with eight GPUs that pools select, with a fence of this value."""
        asyncio.run(self.kube.add_node(name, labels=LABELS))
        taints = [{"key": FENCE_TAINT, "value": fence, "effect": "NoSchedule"}] if fence else []
        asyncio.run(self.kube.patch(NODES, name, {"spec": {"taints": taints, **spec}}))

    def put(self, thing: BatchPool | NodeLoan | CapacityClaim) -> str:
        """An object with its status, made when it says; its UID."""
        kind, metadata = _KINDS[thing.kind], thing.metadata
        self.clock.now = metadata.creation_timestamp or NOW
        body = {
            "metadata": {"name": metadata.name, "finalizers": list(metadata.finalizers)},
            "spec": thing.spec.to_json(),
        }
        made = asyncio.run(self.kube.create(kind, body, metadata.namespace or ""))
        status: Mapping[str, Any] = {"status": thing.status.to_json()}
        asyncio.run(self.kube.patch(kind, metadata.name, dict(status), metadata.namespace or "", "status"))
        self.clock.now = NOW
        return str(made["metadata"]["uid"])

"""What happened to the pods: evictions, double bindings, refusals by the kubelet, and how long notebooks waited."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from e2e.background import Background
from e2e.kube import Json, Kube
from e2e.stage import GPU

OVER = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Doubled:
    """A pod that was bound to a node whose GPUs were taken, and by whom."""

    at: float
    node: str
    pod: str
    beside: tuple[str, ...]


@dataclass
class Record:
    """The pods of one namespace, told change by change in the API server's own order. Times are the caller's clock."""

    gpus: Mapping[str, int]
    """How many each node has."""
    made: dict[str, list[str]] = field(default_factory=dict)
    """UIDs of pods by application."""
    evicted: dict[str, float] = field(default_factory=dict)
    """When a scheduler preempted a pod, by UID."""
    refused: dict[str, str] = field(default_factory=dict)
    """The kubelet's reason, by UID."""
    doubled: list[Doubled] = field(default_factory=list)
    running: dict[str, float] = field(default_factory=dict)
    """When the first pod of an application ran."""
    _there: dict[str, tuple[str, str, str, int]] = field(default_factory=dict)
    """Bound pods that are not over, by UID: application, name, node, GPUs."""

    def see(self, kind: str, pod: Json, at: float) -> None:
        """One change: ADDED, MODIFIED or DELETED."""
        uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
        status, node = pod.get("status", {}), pod["spec"].get("nodeName", "")
        labels = pod["metadata"].get("labels", {})
        app = labels.get("app") or labels.get("app.kubernetes.io/name") or name
        made = self.made.setdefault(app, [])
        if uid not in made:
            made.append(uid)
        if any(_is_preemption(condition) for condition in status.get("conditions", ())):
            self.evicted.setdefault(uid, at)
        if status.get("phase") == "Failed" and status.get("reason"):
            self.refused.setdefault(uid, status["reason"])
        if status.get("phase") == "Running" and kind != "DELETED":
            self.running.setdefault(app, at)
        if kind == "DELETED" or status.get("phase") in OVER:
            self._there.pop(uid, None)
        elif node and uid not in self._there:
            self._bind(uid, (app, name, node, _gpus(pod)), at)

    def evictions(self, app: str) -> tuple[float, ...]:
        """When pods of an application were preempted by a scheduler."""
        return tuple(sorted(self.evicted[uid] for uid in self.made.get(app, ()) if uid in self.evicted))

    def _bind(self, uid: str, pod: tuple[str, str, str, int], at: float) -> None:
        _, name, node, gpus = pod
        beside = [(other, count) for _, other, where, count in self._there.values() if where == node and count]
        if gpus and gpus + sum(count for _, count in beside) > self.gpus.get(node, 0):
            self.doubled.append(Doubled(at, node, name, tuple(sorted(other for other, _ in beside))))
        self._there[uid] = pod


def _is_preemption(condition: Json) -> bool:
    return condition["type"] == "DisruptionTarget" and condition.get("reason") == "PreemptionByScheduler"


def _gpus(pod: Json) -> int:
    limits = [(one.get("resources") or {}).get("limits") or {} for one in pod["spec"]["containers"]]
    return sum(int(one.get(GPU, 0)) for one in limits)


class Recorder(Background):
    """Writes a Record from a watch of people's pods while the context is open; times are seconds since it opened."""

    def __init__(self, kube: Kube, gpus: Mapping[str, int], namespaces: tuple[str, ...]) -> None:
        super().__init__("recorder")
        self.record = Record(gpus)
        self._kube = kube
        self._start = 0.0
        self._namespaces = namespaces

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        return super().__enter__()

    def clock(self) -> float:
        """Seconds since the record began."""
        return time.monotonic() - self._start

    def work(self) -> None:
        # A version that the server has forgotten would be a hole in the record, so it ends it.
        for change in self._kube.watch("pods", stop=self.end):
            pod = change["object"]
            if pod["metadata"]["namespace"] in self._namespaces:
                self.record.see(change["type"], pod, self.clock())

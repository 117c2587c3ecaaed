"""Who is behind the pods that wait: a pod's controller, that one's controller, and so on to the top."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tidegate.cluster import views
from tidegate.cluster.client import KubeApi
from tidegate.cluster.errors import Forbidden, KubeError, NotFound
from tidegate.cluster.kinds import DEPLOYMENTS, JOBS, PODS, REPLICA_SETS, STATEFUL_SETS, Kind
from tidegate.sharing.snapshot import Owner, Pod

log = logging.getLogger(__name__)

READ_AGAIN_SECONDS = 60
"""Controllers hardly ever change hands. One that was orphaned is seen after this long."""
PATIENCE_SECONDS = 10
"""A controller that cannot be read for this long counts as the top, so that its pods do not wait for ever."""
_RETRY_SECONDS = 1
_MOST_AT_ONCE = 64
_MOST_LEVELS = 8
_READ = {(k.api_version, k.kind): k for k in (REPLICA_SETS, DEPLOYMENTS, STATEFUL_SETS, JOBS, PODS)}
"""Kinds that others make on behalf of something: a Deployment its ReplicaSets, a JobSet its Jobs, a LeaderWorkerSet
StatefulSets, the workers of which belong to the leader's Pod. What is of another kind is the top."""


@dataclass(slots=True)
class _Entry:
    due: datetime
    above: tuple[Owner, ...] | None = None
    failing_since: datetime | None = None


class Owners:
    """A small book of the controllers of pods that wait for GPUs. Nobody else's are read."""

    def __init__(self, kube: KubeApi, clock: Callable[[], datetime]) -> None:
        self._kube = kube
        self._clock = clock
        self._known: dict[str, _Entry] = {}

    @property
    def above(self) -> dict[str, tuple[Owner, ...]]:
        """By the UID of a pod's controller those above it, the nearest first; without those not read yet."""
        return {uid: entry.above for uid, entry in self._known.items() if entry.above is not None}

    async def look(self, pods: Iterable[Pod]) -> bool:
        """Read what is lacking for these pods, and forget what no pod has any more. Whether some is left to read."""
        now = self._clock()
        controlled = {pod.owner.uid: pod for pod in pods if pod.owner.uid != pod.uid}
        for uid in self._known.keys() - controlled.keys():
            del self._known[uid]
        due = [p for uid, p in controlled.items() if (known := self._known.get(uid)) is None or known.due <= now]
        await asyncio.gather(*(self._read(pod, now) for pod in due[:_MOST_AT_ONCE]))
        return len(due) > _MOST_AT_ONCE

    async def _read(self, pod: Pod, now: datetime) -> None:
        entry = self._known.setdefault(pod.owner.uid, _Entry(now))
        above: list[Owner] = []
        try:
            await self._climb(pod, above)
            entry.failing_since = None
        except KubeError as error:
            entry.failing_since = entry.failing_since or now
            patient = now - entry.failing_since < timedelta(seconds=PATIENCE_SECONDS)
            if patient and not isinstance(error, Forbidden):
                entry.due = now + timedelta(seconds=_RETRY_SECONDS)
                return
            top = above[-1] if above else pod.owner
            log.warning("%s %s/%s counts as the top controller: %s", top.kind, pod.namespace, top.name, error)
        entry.above, entry.due = tuple(above), now + timedelta(seconds=READ_AGAIN_SECONDS)

    async def _climb(self, pod: Pod, above: list[Owner]) -> None:
        """Put the controllers above the pod's own into the list as far as they can be read and are there."""
        current = pod.owner
        while (kind := _READ.get((current.api_version, current.kind))) and len(above) < _MOST_LEVELS:
            if not (raw := await self._get(kind, current, pod.namespace)):
                # It is gone: what it left behind stands for itself until it is collected, too.
                del above[-1:]
                return
            parent = views.controller(raw["metadata"])
            if parent is None:
                return
            above.append(parent)
            current = parent

    async def _get(self, kind: Kind, owner: Owner, namespace: str) -> views.Json | None:
        try:
            raw = await self._kube.get(kind, owner.name, namespace)
        except NotFound:
            return None
        return raw if raw["metadata"]["uid"] == owner.uid else None

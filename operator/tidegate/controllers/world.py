"""What is known of the cluster: the newest version of each object, from watch events and from our own writes."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from tidegate.api import BatchPool, CapacityClaim, NodeLoan, SlurmCluster
from tidegate.cluster import views
from tidegate.cluster.client import Json
from tidegate.cluster.kinds import (
    BATCH_POOLS,
    CAPACITY_CLAIMS,
    NAMESPACES,
    NODE_LOANS,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    SLURM_CLUSTERS,
    Kind,
)
from tidegate.cluster.slurmd_pod import template_problem
from tidegate.sharing.snapshot import SlurmState, Snapshot

log = logging.getLogger(__name__)

_VIEWS: Mapping[Kind, Callable[[Json], Any]] = {
    NODES: views.node,
    PODS: views.pod,
    NAMESPACES: lambda raw: raw["metadata"].get("labels") or {},
    PRIORITY_CLASSES: lambda raw: (int(raw["value"]), bool(raw.get("globalDefault"))),
    SLURM_CLUSTERS: lambda raw: views.resource(SlurmCluster, raw),
    BATCH_POOLS: lambda raw: views.resource(BatchPool, raw),
    NODE_LOANS: lambda raw: views.resource(NodeLoan, raw),
    CAPACITY_CLAIMS: lambda raw: views.resource(CapacityClaim, raw),
}
WATCHED: tuple[Kind, ...] = tuple(_VIEWS)
"""The kinds that decisions look at."""

_REMEMBERED_DEATHS = 10_000


class World:
    """Excerpts of all watched objects. Versions older than what is known, and the dead, are ignored."""

    def __init__(self) -> None:
        self._seen: dict[Kind, dict[str, tuple[int, str, Any]]] = {kind: {} for kind in WATCHED}
        self._dead: OrderedDict[str, None] = OrderedDict()

    def put(self, kind: Kind, raw: Json) -> bool:
        """Take in an object. Whether that was news."""
        meta = raw["metadata"]
        key, version, uid = _key(raw), int(meta["resourceVersion"]), meta["uid"]
        known = self._seen[kind].get(key)
        if uid in self._dead or (known and known[1] == uid and known[0] >= version):
            return False
        try:
            view = _VIEWS[kind](raw)
        except ValueError as error:
            # An object that this release cannot read is as if it were not there: nothing is lent on its word.
            log.warning("%s", error)
            view = None
        self._seen[kind][key] = (version, uid, view)
        return known is None or known[2] != view

    def drop(self, kind: Kind, raw: Json) -> None:
        """Forget an object that was deleted; answers to writes that come late do not bring it back."""
        uid = raw["metadata"]["uid"]
        self._dead[uid] = None
        while len(self._dead) > _REMEMBERED_DEATHS:
            self._dead.popitem(last=False)
        known = self._seen[kind].get(_key(raw))
        if known and known[1] == uid:
            del self._seen[kind][_key(raw)]

    def keep_only(self, kind: Kind, alive: set[str], as_of: int) -> None:
        """Forget what a list did not have, unless it is newer: a watch that lost its place tells of no deletions."""
        for key, (version, uid, _) in list(self._seen[kind].items()):
            if uid not in alive and version <= as_of:
                log.info("%s %s vanished unseen", kind.kind, key)
                del self._seen[kind][key]

    def all(self, kind: Kind) -> dict[str, Any]:
        """The excerpts of a kind by `name` or `namespace/name`."""
        return {key: view for key, (_, _, view) in self._seen[kind].items() if view is not None}

    def snapshot(self, slurm: Mapping[str, SlurmState], idle_since: Mapping[str, datetime]) -> Snapshot:
        """The world as a decision sees it."""
        classes, pools = self.all(PRIORITY_CLASSES), self.all(BATCH_POOLS)
        return Snapshot(
            nodes=self.all(NODES),
            pods=tuple(self.all(PODS).values()),
            pools=tuple(pools.values()),
            clusters=self.all(SLURM_CLUSTERS),
            slurm=slurm,
            loans=tuple(self.all(NODE_LOANS).values()),
            claims=tuple(self.all(CAPACITY_CLAIMS).values()),
            priority_classes={name: value for name, (value, _) in classes.items()},
            default_priority_class=next((name for name, (_, default) in classes.items() if default), ""),
            namespaces=self.all(NAMESPACES),
            idle_since=idle_since,
            template_problems={name: words for name, pool in pools.items() if (words := template_problem(pool))},
        )


def _key(raw: Json) -> str:
    meta = raw["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])

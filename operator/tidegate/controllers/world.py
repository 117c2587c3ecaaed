"""What is known of the cluster: the newest version of each object, from watch events and from our own writes."""

from __future__ import annotations

import logging
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from tidegate.api import BatchPool, CapacityClaim, InferenceService, NodeLoan, SlurmCluster
from tidegate.api.names import SERVICE_LABEL
from tidegate.cluster import inference, views
from tidegate.cluster.client import Json
from tidegate.cluster.kinds import (
    BATCH_POOLS,
    CAPACITY_CLAIMS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    INFERENCE_SERVICES,
    NAMESPACES,
    NODE_LOANS,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    SERVICES,
    SLURM_CLUSTERS,
    Kind,
)
from tidegate.cluster.slurmd_pod import template_problem
from tidegate.sharing.snapshot import Part, Refusal, SlurmState, Snapshot

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
    INFERENCE_SERVICES: lambda raw: views.resource(InferenceService, raw),
    DEPLOYMENTS: views.part,
    SERVICES: views.part,
    DISRUPTION_BUDGETS: views.disruption_budget,
}
WATCHED: tuple[Kind, ...] = tuple(_VIEWS)
"""The kinds that decisions look at."""
SELECTORS: Mapping[Kind, str] = dict.fromkeys((DEPLOYMENTS, SERVICES), SERVICE_LABEL)
"""Of a kind that everybody has many of, only objects with such labels are looked at."""

_REMEMBERED_DEATHS = 10_000


class World:
    """Excerpts of all watched objects. Versions older than what is known, and the dead, are ignored."""

    def __init__(self, gate_image: str = "") -> None:
        self._gate_image = gate_image
        self._applied: dict[str, str] = {}
        self._refusals: dict[str, Refusal] = {}
        self._seen: dict[Kind, dict[str, tuple[int, str, Any]]] = {kind: {} for kind in WATCHED}
        self._dead: OrderedDict[str, int] = OrderedDict()

    def put(self, kind: Kind, raw: Json) -> bool:
        """Take in an object. Whether that was news."""
        meta = raw["metadata"]
        key, version, uid = _key(raw), int(meta["resourceVersion"]), meta["uid"]
        known = self._seen[kind].get(key)
        if version <= self._dead.get(uid, -1) or (known and known[1] == uid and known[0] >= version):
            return False
        try:
            view = _VIEWS[kind](raw)
        except ValueError as error:
            # An object that this release cannot read is as if it were not there: nothing is lent on its word.
            log.warning("%s", error)
            view = None
        self._seen[kind][key] = (version, uid, view)
        return known is None or known[2] != view

    def applied(self, kind: Kind, raw: Json) -> None:
        """Take in the answer to an own apply: until somebody changes the object, it is as it should be."""
        self._applied[raw["metadata"]["uid"]] = views.revision(raw)
        self.put(kind, raw)

    def refused(self, service: InferenceService, message: str, time: datetime) -> None:
        """Take in that the API server did not take what was made of a service."""
        self._refusals[service.metadata.uid] = Refusal(service.metadata.generation, message, time)

    def drop(self, kind: Kind, raw: Json) -> None:
        """Forget an object that was deleted; answers to writes that come late do not bring it back.

        One that only lost the label by which it is watched may come back, in a newer version.
        """
        uid = raw["metadata"]["uid"]
        self._dead[uid] = int(raw["metadata"]["resourceVersion"]) if kind in SELECTORS else sys.maxsize
        while len(self._dead) > _REMEMBERED_DEATHS:
            self._dead.popitem(last=False)
        self._applied.pop(uid, None)
        self._refusals.pop(uid, None)
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
        services = self.all(INFERENCE_SERVICES)
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
            disruption_budgets=tuple(self.all(DISRUPTION_BUDGETS).values()),
            idle_since=idle_since,
            template_problems={name: words for name, pool in pools.items() if (words := template_problem(pool))},
            services=tuple(services.values()),
            parts=self._parts(),
            service_problems={
                key: words for key, one in services.items() if (words := inference.template_problem(one))
            },
            refusals=dict(self._refusals),
            gate_image=self._gate_image,
        )

    def _parts(self) -> dict[str, Part]:
        budgets = {key: budget.part for key, budget in self.all(DISRUPTION_BUDGETS).items() if budget.part}
        found = {DEPLOYMENTS: self.all(DEPLOYMENTS), SERVICES: self.all(SERVICES), DISRUPTION_BUDGETS: budgets}
        return {
            f"{kind.kind} {key}": replace(part, as_applied=self._applied.get(part.uid) == part.revision)
            for kind, parts in found.items()
            for key, part in parts.items()
        }


def _key(raw: Json) -> str:
    meta = raw["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])

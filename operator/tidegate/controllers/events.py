"""Kubernetes events: what changed, told on the objects where people look."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Sequence
from datetime import datetime

from tidegate.api import (
    OVERDUE,
    BatchPool,
    BatchPoolStatus,
    CapacityClaim,
    Condition,
    InferenceService,
    NodeLoan,
    Status,
)
from tidegate.api.names import API_VERSION
from tidegate.cluster.client import Json
from tidegate.cluster.errors import AlreadyExists, KubeError
from tidegate.cluster.kinds import EVENTS
from tidegate.controllers.hands import Hands
from tidegate.sharing.commands import Advice
from tidegate.sharing.explanation import listed, utc
from tidegate.sharing.report import LATE
from tidegate.sharing.snapshot import Pod

log = logging.getLogger(__name__)
_COMPONENT = "tidegate"
_QUARANTINED = "Quarantined"
_WARNINGS = frozenset({OVERDUE, "Expired", _QUARANTINED, LATE})
_WOULD = {"Lend": "lend", "Recall": "take back"}
_MOST_NODES = 16
"""Nodes that get an event of their own from one decision of a pool that only recommends."""


async def tell_loan(loan: NodeLoan, status: Status, hands: Hands) -> None:
    """Events on the loan, its node and its claim, for each condition that changed."""
    claim = loan.spec.back.claim if loan.spec.back else None
    involved: list[Json] = [
        {"apiVersion": API_VERSION, "kind": "NodeLoan", "name": loan.metadata.name, "uid": loan.metadata.uid},
        _node(loan.spec.node_name),
    ]
    if claim:
        involved.append({"apiVersion": API_VERSION, "kind": "CapacityClaim", **claim.to_json()})
    for condition in _changed(loan.status, status):
        for target in involved:
            words = (
                f"Loan {loan.metadata.name}: {condition.message}" if target["kind"] != "NodeLoan" else condition.message
            )
            await post(target, condition, words, hands)


async def tell_claim(claim: CapacityClaim, status: Status, hands: Hands) -> None:
    """Events on the claim and its holder for each condition that changed."""
    meta, holder = claim.metadata, claim.spec.holder_ref
    involved: list[Json] = [
        {
            "apiVersion": API_VERSION,
            "kind": "CapacityClaim",
            "namespace": meta.namespace,
            "name": meta.name,
            "uid": meta.uid,
        }
    ]
    if holder:
        involved.append({**holder.to_json(), "namespace": meta.namespace})
    for condition in _changed(claim.status, status):
        for target in involved:
            words = (
                condition.message if target["kind"] == "CapacityClaim" else f"Claim {meta.name}: {condition.message}"
            )
            await post(target, condition, words, hands)


async def tell_advice(pool: BatchPool, advice: Sequence[Advice], hands: Hands) -> None:
    """Events on the pool, one for each reason, and on the first nodes of it: what would have been done."""
    by_reason: dict[tuple[str, str], list[Advice]] = {}
    for one in advice:
        by_reason.setdefault((one.would, one.reason), []).append(one)
    meta = pool.metadata
    target: Json = {"apiVersion": API_VERSION, "kind": "BatchPool", "name": meta.name, "uid": meta.uid}
    for (would, _), found in by_reason.items():
        words = f"would {_WOULD[would]} {listed(one.node for one in found)}: {found[0].message}"
        await post(target, _event(found[0], hands), words, hands)
    for one in advice[:_MOST_NODES]:
        words = f"Pool {meta.name} would {_WOULD[one.would]} it: {one.message}"
        await post(_node(one.node), _event(one, hands), words, hands)


def _event(one: Advice, hands: Hands) -> Condition:
    return Condition(type=f"Would{one.would}", status="True", reason=one.reason, last_transition_time=hands.clock())


async def tell_quarantine(pool: BatchPool, status: BatchPoolStatus, hands: Hands) -> None:
    """Events on the nodes that went into quarantine or came out of it."""
    before, after = ({one.node: one for one in which.quarantined} for which in (pool.status, status))
    now, name = hands.clock(), pool.metadata.name
    for node in sorted(after.keys() - before.keys()):
        words = (
            f"It was lent as often as flapBudget of pool {name} allows and stays home until {utc(after[node].until)}; "
            f"`tidegate node release {node}` ends that"
        )
        begun = Condition(type=_QUARANTINED, status="True", reason=after[node].reason, last_transition_time=now)
        await post(_node(node), begun, words, hands)
    for node in sorted(before.keys() - after.keys()):
        over = Condition(type=_QUARANTINED, status="False", reason="Over", last_transition_time=now)
        await post(_node(node), over, f"Pool {name} may lend it again", hands)


async def tell_pod(pod: Pod, message: str, hands: Hands) -> None:
    """An event on a pending pod: why no claim is made for it. The same after a restart, so that it is there once."""
    target = {"apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid}
    said = Condition(type="NotClaimed", status="True", reason="NoNodeFits", last_transition_time=pod.created)
    await post(target, said, message, hands, moment=pod.created)


def _node(name: str) -> Json:
    # The kubelet uses the name as UID in its events on nodes, and `kubectl describe node` looks for that.
    return {"apiVersion": "v1", "kind": "Node", "name": name, "uid": name}


async def tell_service(service: InferenceService, status: Status, hands: Hands) -> None:
    """Events on the service for each condition that changed."""
    meta = service.metadata
    target = {"apiVersion": API_VERSION, "kind": "InferenceService", "namespace": meta.namespace, "name": meta.name}
    for condition in _changed(service.status, status):
        await post({**target, "uid": meta.uid}, condition, condition.message, hands)


def _changed(old: Status, new: Status) -> list[Condition]:
    before = {c.type: (c.status, c.reason) for c in old.conditions}
    return [c for c in new.conditions if before.get(c.type) != (c.status, c.reason)]


async def post(target: Json, condition: Condition, message: str, hands: Hands, moment: datetime | None = None) -> None:
    """One event, at most once for a `moment`. A lost one is logged and does not stop the step that it tells of."""
    # That a claim ends when its duration is over is what was asked for.
    bad = condition.type in _WARNINGS and condition.status == "True" and condition.reason != "Ended"
    now = hands.clock()
    namespace = target.get("namespace") or "default"
    body: Json = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": _name(target["name"], condition, message, moment or now), "namespace": namespace},
        "involvedObject": target,
        "type": "Warning" if bad else "Normal",
        "reason": condition.type if condition.status == "True" else f"{condition.type}{condition.reason}",
        "action": condition.reason,
        "message": message[:1024],
        "firstTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lastTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "count": 1,
        "source": {"component": _COMPONENT},
        "reportingComponent": _COMPONENT,
    }
    try:
        await hands.kube.create(EVENTS, body, namespace)
    except AlreadyExists:
        return
    except KubeError as error:
        log.warning("event %s on %s %s was not recorded: %s", condition.type, target["kind"], target["name"], error)


def _name(object_name: str, condition: Condition, message: str, now: datetime) -> str:
    """The same for the same event, so that telling it twice is harmless."""
    moment = int(now.timestamp() * 1_000_000)
    return f"{object_name[:200]}.{condition.type.lower()}.{moment:x}{zlib.crc32(message.encode()):x}"

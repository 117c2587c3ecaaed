"""Claims that Tidegate makes by itself: one for each controller with pending GPU pods that a lent node could run."""

from __future__ import annotations

from collections import Counter, defaultdict

from tidegate.api import BatchPool, CapacityClaim, CapacityClaimSpec, HolderReference
from tidegate.api.names import CLAIM_LABEL
from tidegate.sharing.commands import Command, CreateClaim
from tidegate.sharing.index import Index
from tidegate.sharing.needs import is_automatic
from tidegate.sharing.places import Need
from tidegate.sharing.snapshot import Owner, Pod
from tidegate.sharing.waiting import is_served, is_settled, is_stuck
from tidegate.sharing.why_not import tell_why_not

GANGS = frozenset({"JobSet", "LeaderWorkerSet"})
"""Kinds whose pods are of use only together. Those of a Job may be, too, but as often each has a task of its own."""


def make_automatic(index: Index) -> list[Command]:
    """The claims that are lacking."""
    commands: list[Command] = []
    pools = [pool for pool in index.pools.values() if pool.spec.mode == "Enforce"]
    for (namespace, _), pods in sorted(_without_claim(index).items()):
        owner = index.controllers_of(pods[0])[-1]
        if not is_settled(pods, index):
            continue
        for pool in pools:
            served = [pod for pod in pods if is_served(pod, pool, index)]
            if served and (nodes := _nodes_for(served, owner, pool, index)):
                commands.append(_claim(namespace, owner, served, nodes, pool, index))
                break
        else:
            commands += tell_why_not(pods, index)
    return commands


def _nodes_for(pods: list[Pod], owner: Owner, pool: BatchPool, index: Index) -> int:
    """How many nodes on loan the pods need; none when open nodes will do, or for a gang that could not be whole."""
    need = Need(pods, (), pool, index)
    if owner.kind not in GANGS or not need.nodes:
        return need.nodes
    need = Need(pods, (), pool, index, gang=True)
    return 0 if need.left_over else need.nodes


def _without_claim(index: Index) -> dict[tuple[str, str], list[Pod]]:
    """Pods that are stuck, by namespace and UID of the top controller; those with a claim, or a recent one that ended
    without serving them, are left out, and those whose controllers were not read yet.
    """
    covered = {c.spec.holder_ref.uid for c in index.live_claims.values() if c.spec.holder_ref}
    covered |= {
        c.metadata.labels[CLAIM_LABEL] for c in index.snapshot.claims if is_automatic(c) and _is_expired(c, index)
    }
    waiting: dict[tuple[str, str], list[Pod]] = defaultdict(list)
    for pod in filter(is_stuck, index.snapshot.pods):
        controllers = index.controllers_of(pod)
        if controllers and not any(owner.uid in covered for owner in controllers):
            waiting[pod.namespace, controllers[-1].uid].append(pod)
    return waiting


def _is_expired(claim: CapacityClaim, index: Index) -> bool:
    """Whether it ended without leave of its pods. A new one waits until it is forgotten, so that claims do not flap."""
    return claim.status.is_true("Expired") or index.is_expired(claim)


def _claim(namespace: str, owner: Owner, pods: list[Pod], nodes: int, pool: BatchPool, index: Index) -> CreateClaim:
    number = 1 + index.once(_claims_so_far)[owner.uid]
    taken = index.once(_claim_names)
    stem = f"{owner.kind.lower()}-{owner.name}"[:200]
    while (namespace, f"{stem}-{number}") in taken:
        number += 1
    first = max(pods, key=lambda p: p.priority)
    spec = CapacityClaimSpec(
        pool_name=pool.metadata.name,
        nodes=nodes,
        gang=owner.kind in GANGS,
        holder_ref=HolderReference(api_version=owner.api_version, kind=owner.kind, name=owner.name, uid=owner.uid),
        priority_class_name=first.priority_class_name or None,
        recall_class=pool.spec.recall.automatic_class,
    )
    return CreateClaim(namespace, f"{stem}-{number}", owner, spec)


def _claims_so_far(index: Index) -> Counter[str]:
    """How many automatic claims there are, by UID of the controller."""
    return Counter(claim.metadata.labels.get(CLAIM_LABEL, "") for claim in index.snapshot.claims)


def _claim_names(index: Index) -> set[tuple[str, str]]:
    return {(claim.metadata.namespace or "", claim.metadata.name) for claim in index.snapshot.claims}

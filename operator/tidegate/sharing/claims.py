"""Who waits for nodes: automatic claims of pending GPU pods, what a claim still lacks, and what it holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta

from tidegate.api import BatchPool, CapacityClaim, CapacityClaimSpec, CapacityClaimStatus, HolderReference, NodeLoan
from tidegate.api.names import CLAIM_LABEL, FENCE_TAINT, claim_fence, claim_of_fence
from tidegate.sharing.commands import (
    Command,
    CreateClaim,
    ForgetClaim,
    FreeNode,
    HoldNode,
    ResizeClaim,
    TolerateFence,
    WriteClaimStatus,
)
from tidegate.sharing.fit import extra_nodes_needed, may_run
from tidegate.sharing.index import Index, created, wants_gpu
from tidegate.sharing.lending import free_nodes
from tidegate.sharing.snapshot import Node, Owner, Pod, Taint

FORGET_SECONDS = 600
"""An automatic claim that is over is kept this long to look at."""


def in_order(index: Index) -> list[CapacityClaim]:
    """Live claims in the one order for all: priority, then age, then UID."""
    return sorted(
        index.live_claims.values(),
        key=lambda c: (-(index.priority_of(c) or 0), created(c), c.metadata.uid),
    )


def is_automatic(claim: CapacityClaim) -> bool:
    """Whether Tidegate made the claim for pending pods."""
    return CLAIM_LABEL in claim.metadata.labels


def pods_of(claim: CapacityClaim, index: Index) -> Sequence[Pod]:
    """The pods that the claim's nodes are for, bound or not."""
    namespace, holder = claim.metadata.namespace or "", claim.spec.holder_ref
    if holder:
        return index.pods_by_owner.get((namespace, holder.uid), ())
    return index.pods_by_claim_label.get((namespace, claim.metadata.name), ())


def held_nodes(claim: CapacityClaim, index: Index) -> Sequence[Node]:
    """Nodes whose fence names the claim, by name."""
    return index.nodes_by_fence.get(claim_fence(claim.metadata.uid), ())


def coming_loans(claim: CapacityClaim, index: Index) -> Sequence[NodeLoan]:
    """Loans that are on their way back for the claim, by node name."""
    return index.coming_by_claim.get(claim.metadata.uid, ())


def nodes_lacking(claim: CapacityClaim, pool: BatchPool, index: Index) -> int:
    """How many nodes the claim needs beside those it holds and those on their way to it."""
    held, coming = held_nodes(claim, index), coming_loans(claim, index)
    if not is_automatic(claim):
        return max(claim.spec.nodes - len(held) - len(coming), 0)
    return max(_needed_now(_waiting(claim, pool, index), held, pool, index) - len(coming), 0)


def helpful(claim: CapacityClaim, loans: Iterable[NodeLoan], pool: BatchPool, index: Index) -> list[NodeLoan]:
    """Those of the loans whose nodes exist and could run a waiting pod of the claim; an explicit claim takes any."""
    there = [loan for loan in loans if loan.spec.node_name in index.snapshot.nodes]
    if not is_automatic(claim):
        return there
    pods = _waiting(claim, pool, index)
    return [loan for loan in there if any(may_run(p, index.snapshot.nodes[loan.spec.node_name]) for p in pods)]


def _waiting(claim: CapacityClaim, pool: BatchPool, index: Index) -> list[Pod]:
    return [p for p in pods_of(claim, index) if not p.node and not p.gated and wants_gpu(p, pool)]


def _needed_now(pods: list[Pod], held: Sequence[Node], pool: BatchPool, index: Index) -> int:
    lent = [n for n in index.nodes_of_pool[pool.metadata.name] if n.name in index.active_loans]
    return extra_nodes_needed(pods, held, lent, pool, index)


def make_automatic(index: Index) -> list[Command]:
    """A claim for each controller with unschedulable GPU pods that a node on loan could run."""
    covered = {claim.spec.holder_ref.uid for claim in index.live_claims.values() if claim.spec.holder_ref}
    waiting: dict[tuple[str, str], list[Pod]] = defaultdict(list)
    for pod in index.snapshot.pods:
        stuck = not pod.node and pod.unschedulable and not pod.gated and not pod.deleting
        if stuck and pod.gpus and pod.loan is None and CLAIM_LABEL not in pod.labels and pod.owner.uid not in covered:
            waiting[(pod.namespace, pod.owner.uid)].append(pod)
    commands: list[Command] = []
    for (namespace, _), pods in sorted(waiting.items()):
        pool = next((p for p in index.pools.values() if any(_helped(pod, p, index) for pod in pods)), None)
        if pool is None:
            continue
        helped = [pod for pod in pods if _helped(pod, pool, index)]
        commands.append(_automatic_claim(namespace, pods[0].owner, helped, pool, index))
    return commands


def _helped(pod: Pod, pool: BatchPool, index: Index) -> bool:
    nodes = index.nodes_of_pool[pool.metadata.name]
    return wants_gpu(pod, pool) and any(n.name in index.active_loans and may_run(pod, n) for n in nodes)


def _automatic_claim(namespace: str, owner: Owner, pods: list[Pod], pool: BatchPool, index: Index) -> CreateClaim:
    number = 1 + sum(c.metadata.labels.get(CLAIM_LABEL) == owner.uid for c in index.snapshot.claims)
    taken = {c.metadata.name for c in index.snapshot.claims if c.metadata.namespace == namespace}
    stem = f"{owner.kind.lower()}-{owner.name}"[:200]
    while f"{stem}-{number}" in taken:
        number += 1
    first = max(pods, key=lambda p: p.priority)
    spec = CapacityClaimSpec(
        pool_name=pool.metadata.name,
        nodes=max(_needed_now(pods, [], pool, index), 1),
        holder_ref=HolderReference(api_version=owner.api_version, kind=owner.kind, name=owner.name, uid=owner.uid),
        priority_class_name=first.priority_class_name or None,
        recall_class=pool.spec.recall.automatic_class,
    )
    return CreateClaim(namespace, f"{stem}-{number}", owner, spec)


def tend(claim: CapacityClaim, index: Index) -> list[Command]:
    """Let the claim's pods onto its nodes, and keep the size of an automatic claim true."""
    pool = index.pools.get(claim.spec.pool_name)
    if pool is None:
        return []
    fence = Taint(FENCE_TAINT, claim_fence(claim.metadata.uid), "NoSchedule")
    commands: list[Command] = [
        TolerateFence(pod, claim.metadata.uid)
        for pod in pods_of(claim, index)
        if not pod.node and not any(t.tolerates(fence) for t in pod.tolerations)
    ]
    if is_automatic(claim):
        held, coming = held_nodes(claim, index), coming_loans(claim, index)
        needed = len(held) + max(_needed_now(_waiting(claim, pool, index), held, pool, index), len(coming))
        if needed > claim.spec.nodes:
            commands.append(ResizeClaim(claim, needed))
    return commands


def asks_too_much(claim: CapacityClaim, pool: BatchPool, index: Index) -> bool:
    """Whether an explicit claim asks for more nodes than the pool has; then it gets none, because all would not do."""
    return not is_automatic(claim) and claim.spec.nodes > len(index.nodes_of_pool[pool.metadata.name])


def hold_free(index: Index) -> list[HoldNode]:
    """Free nodes for what explicit claims lack, in the claims' order; no node for two of them."""
    commands: list[HoldNode] = []
    taken: set[str] = set()
    for claim in in_order(index):
        pool = index.pools.get(claim.spec.pool_name)
        if pool is None or is_automatic(claim) or asks_too_much(claim, pool, index):
            continue
        lacking = nodes_lacking(claim, pool, index)
        free = [node for node in free_nodes(pool, index) if node.name not in taken][:lacking]
        taken |= {node.name for node in free}
        commands += [HoldNode(node, claim.metadata.uid) for node in free]
    return commands


def let_go(index: Index) -> list[Command]:
    """Take the fence of claims that are over (or gone) off their nodes, and forget old automatic claims."""
    commands: list[Command] = []
    for _, node in sorted(index.snapshot.nodes.items()):
        uid = claim_of_fence(node.fence) if node.fence else None
        if uid and uid not in index.live_claims:
            commands.append(FreeNode(node, uid))
    ended = (c for c in index.snapshot.claims if c.is_over and c.metadata.deletion_timestamp is None)
    commands += [ForgetClaim(claim) for claim in ended if is_automatic(claim) and _is_old(claim, index)]
    return commands


def _is_old(claim: CapacityClaim, index: Index) -> bool:
    ended = claim.status.since("Expired") if claim.status.is_true("Expired") else claim.status.since("Satisfied")
    return ended is not None and index.now - ended > timedelta(seconds=FORGET_SECONDS)


def write_status(claim: CapacityClaim, recallable: int, index: Index) -> list[Command]:
    """The claim's status as it should read; `recallable` loans could still be recalled for it."""
    pool = index.pools.get(claim.spec.pool_name)
    held = held_nodes(claim, index)
    status = claim.status.model_copy(
        update={
            "nodes": tuple(n.name for n in held),
            "held_nodes": len(held),
            "priority": index.priority_of(claim),
            "observed_generation": claim.metadata.generation or None,
        }
    )
    if index.is_expired(claim):
        words = f"not ended within ttlSeconds {claim.spec.ttl_seconds}; its nodes are let go"
        status = _say(claim, status, index, "Expired", True, "TimeToLive", words)
        status = status.model_copy(update={"nodes": (), "held_nodes": 0})
    else:
        satisfied, reason, message = _satisfaction(claim, pool, held, recallable, index)
        status = _say(claim, status, index, "Satisfied", satisfied, reason, message)
        if reason == "Served":
            status = status.model_copy(update={"nodes": (), "held_nodes": 0})
    return [WriteClaimStatus(claim, status)] if status != claim.status else []


def _satisfaction(
    claim: CapacityClaim, pool: BatchPool | None, held: Sequence[Node], recallable: int, index: Index
) -> tuple[bool, str, str]:
    if pool is None:
        return (
            False,
            "PoolNotFound",
            f"BatchPool {claim.spec.pool_name} does not exist; set poolName to one of {_names(index)}",
        )
    if index.priority_of(claim) is None:
        words = f"PriorityClass {claim.spec.priority_class_name} does not exist; create it or name another"
        return False, "PriorityClassNotFound", words
    coming = coming_loans(claim, index)
    if is_automatic(claim):
        if not _waiting(claim, pool, index) and not coming:
            return True, "Served", "all its pods are bound"
    elif len(held) >= claim.spec.nodes:
        return True, "Held", f"{len(held)} nodes are held for it"
    if asks_too_much(claim, pool, index):
        size = len(index.nodes_of_pool[pool.metadata.name])
        words = (
            f"asks for {claim.spec.nodes} nodes, pool {pool.metadata.name} has {size}; lower nodes or change poolName"
        )
        return False, "MoreThanPool", words
    if coming:
        waits = ", ".join(loan.spec.node_name for loan in coming[:8])
        return False, "Recalling", f"waiting for {waits} to come back from Slurm"
    if nodes_lacking(claim, pool, index) == 0:
        return False, "Binding", "its pods are about to be bound to the nodes held for it"
    if index.slurm_of(pool.metadata.name) is None:
        words = f"Slurm {pool.spec.slurm_cluster_name} does not answer; nothing is recalled without seeing what it runs"
        return False, "SlurmSilent", words
    if recallable == 0:
        words = f"no loan of pool {pool.metadata.name} has a priority below {index.priority_of(claim)}"
        return False, "NothingToRecall", words
    return False, "Choosing", "choosing loans to recall"


def _names(index: Index) -> str:
    return ", ".join(sorted(index.pools)) or "(there is none yet)"


def _say(
    claim: CapacityClaim, status: CapacityClaimStatus, index: Index, type_: str, holds: bool, reason: str, message: str
) -> CapacityClaimStatus:
    return status.with_condition(index.now, type_, holds, reason, message, claim.metadata.generation or None)

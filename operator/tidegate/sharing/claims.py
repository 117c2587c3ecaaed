"""Who waits for nodes: automatic claims of pending GPU pods, what a claim still lacks, and what it holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from tidegate.api import BatchPool, CapacityClaim, CapacityClaimStatus, NodeLoan
from tidegate.api.names import CLAIM_LABEL, FENCE_TAINT, claim_fence, claim_of_fence
from tidegate.sharing.commands import (
    Command,
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
from tidegate.sharing.sides import sides
from tidegate.sharing.snapshot import Node, Pod, Taint
from tidegate.sharing.waiting import is_served, is_settled

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
        mine = index.claim_of_holder.get((namespace, holder.uid), claim.metadata.uid) == claim.metadata.uid
        return index.pods_by_owner.get((namespace, holder.uid), ()) if mine else ()
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
    needed = needed_now(_waiting(claim, pool, index), held, pool, index)
    # What goes beyond its size waits until that was raised: then the pods that need it are all there.
    return max(min(needed, claim.spec.nodes - len(held)) - len(coming), 0)


def helpful(claim: CapacityClaim, loans: Iterable[NodeLoan], pool: BatchPool, index: Index) -> list[NodeLoan]:
    """Those of the loans whose nodes exist and could run a waiting pod of the claim; an explicit claim takes any."""
    there = [loan for loan in loans if loan.spec.node_name in index.snapshot.nodes]
    if not is_automatic(claim):
        return there
    pods = _waiting(claim, pool, index)
    return [loan for loan in there if any(may_run(p, index.snapshot.nodes[loan.spec.node_name]) for p in pods)]


def _waiting(claim: CapacityClaim, pool: BatchPool, index: Index) -> list[Pod]:
    return [p for p in _unbound(claim, pool, index) if not p.gated and wants_gpu(p, pool)]


def _unbound(claim: CapacityClaim, pool: BatchPool, index: Index) -> list[Pod]:
    pods = [pod for pod in pods_of(claim, index) if not pod.node]
    return [pod for pod in pods if is_served(pod, pool, index)] if is_automatic(claim) else pods


def needed_now(pods: list[Pod], held: Sequence[Node], pool: BatchPool, index: Index) -> int:
    """How many nodes of the pool that are on loan the pods need beside those held for them."""
    lent = [n for n in index.nodes_of_pool[pool.metadata.name] if n.name in index.active_loans]
    return extra_nodes_needed(pods, held, lent, pool, index)


def tend(claim: CapacityClaim, index: Index) -> list[Command]:
    """Let the claim's pods onto its nodes, and keep the size of an automatic claim true."""
    pool = index.pools.get(claim.spec.pool_name)
    if pool is None:
        return []
    fence = Taint(FENCE_TAINT, claim_fence(claim.metadata.uid), "NoSchedule")
    commands: list[Command] = [
        TolerateFence(pod, claim.metadata.uid)
        for pod in _unbound(claim, pool, index)
        if not any(t.tolerates(fence) for t in pod.tolerations)
    ]
    if is_automatic(claim):
        held, coming = held_nodes(claim, index), coming_loans(claim, index)
        needed = len(held) + max(needed_now(_waiting(claim, pool, index), held, pool, index), len(coming))
        if needed > claim.spec.nodes and is_settled(_waiting(claim, pool, index), index):
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
    if recallable == 0 and _is_kept_for_slurm(claim, pool, index):
        cap = index.terms(pool).kubernetes.cap
        words = f"pool {pool.metadata.name} takes no node back for Kubernetes beyond its kubernetes.cap {cap}"
        return False, "KubernetesCap", words
    if recallable == 0:
        words = f"no loan of pool {pool.metadata.name} has a priority below {index.priority_of(claim)}"
        return False, "NothingToRecall", words
    return False, "Choosing", "choosing loans to recall"


def _is_kept_for_slurm(claim: CapacityClaim, pool: BatchPool, index: Index) -> bool:
    """Whether nothing but the pool's `kubernetes.cap` keeps loans of lower priority from the claim."""
    lowest, priority = sides(pool, index).lowest, index.priority_of(claim)
    lower = lowest is not None and priority is not None and lowest < priority
    return lower and sides(pool, index).may_take_back == 0


def _names(index: Index) -> str:
    return ", ".join(sorted(index.pools)) or "(there is none yet)"


def _say(
    claim: CapacityClaim, status: CapacityClaimStatus, index: Index, type_: str, holds: bool, reason: str, message: str
) -> CapacityClaimStatus:
    return status.with_condition(index.now, type_, holds, reason, message, claim.metadata.generation or None)

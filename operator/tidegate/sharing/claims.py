"""The life of claims: their pods are let onto their nodes, their status is told, and at the end they let go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from tidegate.api import BatchPool, CapacityClaim, CapacityClaimStatus
from tidegate.api.names import FENCE_TAINT, claim_fence
from tidegate.sharing.allotment import Allotment, unservable
from tidegate.sharing.announcements import Told
from tidegate.sharing.commands import (
    Command,
    ForgetClaim,
    FreeNode,
    FreeSurplus,
    ResizeClaim,
    TieToHolder,
    TolerateFence,
    WriteClaimStatus,
)
from tidegate.sharing.considered import consider
from tidegate.sharing.idleness import Blocker
from tidegate.sharing.index import Index
from tidegate.sharing.lifetime import GATHERING, ends_at, is_gathering
from tidegate.sharing.needs import (
    amount,
    coming_loans,
    held_nodes,
    is_automatic,
    lacking,
    need_of,
    suitable,
    surplus,
    unbound_pods,
    units_of,
    waiting_pods,
    wanted_nodes,
)
from tidegate.sharing.priorities import of_loan
from tidegate.sharing.report import with_start, with_told
from tidegate.sharing.reservations import is_due, words_of_wait
from tidegate.sharing.snapshot import Node, Taint
from tidegate.sharing.waiting import is_settled

FORGET_SECONDS = 600
"""An automatic claim that is over is kept this long to look at."""


def tend(claim: CapacityClaim, index: Index) -> list[Command]:
    """Let the claim's pods onto its nodes, those of a gang once it has them all, and keep its size true."""
    pool = index.pools.get(claim.spec.pool_name)
    if pool is None:
        return []
    commands: list[Command] = []
    if not is_gathering(claim) and is_due(claim, index) and (pods := unbound_pods(claim, pool, index)):
        fence = Taint(FENCE_TAINT, claim_fence(claim.metadata.uid), "NoSchedule")
        stopped = (pod for pod in pods if not any(t.tolerates(fence) for t in pod.tolerations))
        commands += [TolerateFence(pod, claim.metadata.uid) for pod in stopped]
    if (holder := claim.spec.holder_ref) and holder.uid not in {ref.uid for ref in claim.metadata.owner_references}:
        commands.append(TieToHolder(claim, holder))
    if is_automatic(claim):
        has = len(held_nodes(claim, index)) + len(coming_loans(claim, index))
        needed = has + need_of(claim, pool, index).nodes
        if needed > amount(claim) and is_settled(waiting_pods(claim, pool, index), index):
            commands.append(ResizeClaim(claim, needed))
    if spare := surplus(claim, pool, index):
        keeps = tuple(node.name for node in held_nodes(claim, index) if node not in spare)
        commands += [FreeSurplus(node, claim, keeps) for node in spare]
    return commands


def let_go(index: Index) -> list[Command]:
    """Take the fence of claims that are over (or gone) off their nodes, and forget old automatic claims."""
    commands: list[Command] = []
    for _, node in sorted(index.snapshot.nodes.items()):
        if uid := index.left_behind(node):
            commands.append(FreeNode(node, uid))
    still = {claim.metadata.uid for claim in index.open_claims}
    ended = (one for uid, one in index.claims.items() if uid not in still and one.metadata.deletion_timestamp is None)
    commands += [ForgetClaim(claim) for claim in ended if is_automatic(claim) and _is_old(claim, index)]
    return commands


def _is_old(claim: CapacityClaim, index: Index) -> bool:
    ended = claim.status.since("Expired") if claim.status.is_true("Expired") else claim.status.since("Satisfied")
    return ended is not None and index.now - ended > timedelta(seconds=FORGET_SECONDS)


def write_status(
    claim: CapacityClaim, allotment: Allotment, told: Told | None, index: Index, advice: str = ""
) -> list[Command]:
    """The claim's status as it should read. `advice` is what its pool would do for it, if it only says so."""
    pool = index.pools.get(claim.spec.pool_name)
    held = held_nodes(claim, index)
    status = claim.status.but(
        nodes=tuple(n.name for n in held),
        held_nodes=len(held),
        wanted_nodes=wanted_nodes(claim, index),
        priority=index.priority_of(claim),
        observed_generation=claim.metadata.generation or None,
    )
    end = ends_at(claim, index)
    if end and index.now >= end.time:
        words = f"{end.message}{_who_has_what(claim, index) if end.reason == 'GangIncomplete' else ''}"
        status = _say(claim, status, index, "Expired", True, end.reason, words)
        over = {"nodes": (), "held_nodes": 0, "considered": (), "expected": None}
        return _written(claim, status.model_copy(update=over))
    satisfied, reason, message = _satisfaction(claim, pool, held, allotment, index)
    if advice and not satisfied:
        reason, message = "Recommended", advice
    status = _say(claim, status, index, "Satisfied", satisfied, reason, message)
    status = with_start(claim, status, unservable(claim, index) is None and not advice, index)
    status = with_told(claim, status, told, index)
    if claim.spec.gang:
        status = _with_gathering(claim, status, held, index)
    if reason == "Served":
        status = status.model_copy(update={"nodes": (), "held_nodes": 0})
    return _written(claim, _with_considered(claim, status, index))


def _written(claim: CapacityClaim, status: CapacityClaimStatus) -> list[Command]:
    return [WriteClaimStatus(claim, status)] if status is not claim.status and status != claim.status else []


def _satisfaction(
    claim: CapacityClaim, pool: BatchPool | None, held: Sequence[Node], allotment: Allotment, index: Index
) -> tuple[bool, str, str]:
    blocker = unservable(claim, index)
    if pool is None or index.priority_of(claim) is None:
        return False, *_words(blocker)
    coming = coming_loans(claim, index)
    if is_automatic(claim):
        if not waiting_pods(claim, pool, index) and not coming:
            return True, "Served", "all its pods are bound"
    elif sum(units_of(node, claim, pool) for node in held) >= amount(claim):
        return True, "Held", f"{len(held)} nodes are held for it"
    if blocker:
        return False, *_words(blocker)
    if not is_due(claim, index):
        return False, "Reserved", words_of_wait(claim, index)
    if coming:
        waits = ", ".join(loan.spec.node_name for loan in coming[:8])
        return False, "Recalling", f"waiting for {waits} to come back from Slurm"
    if lacking(claim, pool, index) == 0:
        return False, "Binding", "its pods are about to be bound to the nodes held for it"
    if blocker := allotment.waits.get(claim.metadata.uid):
        return False, *_words(blocker)
    return False, "Choosing", "choosing loans to recall"


def _words(blocker: Blocker | None) -> tuple[str, str]:
    return (blocker.reason, blocker.message) if blocker else ("", "")


def _with_gathering(
    claim: CapacityClaim, status: CapacityClaimStatus, held: Sequence[Node], index: Index
) -> CapacityClaimStatus:
    """Since when a gang has some of its nodes and lacks others; its deadline counts from then."""
    has = len(held) + len(coming_loans(claim, index))
    if status.started is None and has:
        words = f"{len(held)} of {status.wanted_nodes} nodes are held; none is handed over before all are"
        return _say(claim, status, index, GATHERING, True, "NodesMissing", words)
    if status.condition(GATHERING) is None:
        return status
    reason, words = ("Complete", "all its nodes were held at once") if status.started else ("NoNodes", "it has no node")
    return _say(claim, status, index, GATHERING, False, reason, words)


def _with_considered(claim: CapacityClaim, status: CapacityClaimStatus, index: Index) -> CapacityClaimStatus:
    """Which nodes come into question, looked at anew whenever there is news of what the claim waits for."""
    said, old = status.condition("Satisfied"), claim.status.condition("Satisfied")
    if said == old:
        return status
    considered, expected = consider(claim, index) if said and said.status == "False" else ((), None)
    return status.but(considered=considered, expected=expected)


def _who_has_what(claim: CapacityClaim, index: Index) -> str:
    """How far a gang came, and which claims have the other nodes of the pool that it could have used."""
    pool = index.pools.get(claim.spec.pool_name)
    if pool is None:
        return ""
    coming, others = coming_loans(claim, index), Counter[str]()
    for node in suitable(claim, pool, index):
        if owner := index.claimant(node):
            others[f"claim {owner.metadata.namespace}/{owner.metadata.name}"] += 1
        elif (loan := index.active_loans.get(node.name)) and loan not in coming:
            others[f"Slurm (priority {of_loan(loan, index)})"] += 1
    has_itself = len(held_nodes(claim, index)) + len(coming)
    has = ", ".join(f"{name} has {count}" for name, count in sorted(others.items())[:8])
    return f": it had {has_itself} of {claim.status.wanted_nodes} nodes{f'; {has}' if has else ''}"


def _say(
    claim: CapacityClaim, status: CapacityClaimStatus, index: Index, type_: str, holds: bool, reason: str, message: str
) -> CapacityClaimStatus:
    return status.with_condition(index.now, type_, holds, reason, message, claim.metadata.generation or None)

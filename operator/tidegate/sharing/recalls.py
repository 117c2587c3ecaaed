"""Which loans turn around now: for claims in their order, and for the pool's own terms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

from tidegate.api import RECALL_CLASSES, BatchPool, CapacityClaim, ClaimReference, LoanReturn, NodeLoan
from tidegate.sharing.claims import asks_too_much, helpful, in_order, nodes_lacking
from tidegate.sharing.commands import Command, HoldNode, RecallLoan
from tidegate.sharing.index import Index
from tidegate.sharing.lending import free_nodes, obtainable, wanted
from tidegate.sharing.priorities import of_loan
from tidegate.sharing.return_steps import back_of
from tidegate.sharing.sides import sides
from tidegate.sharing.victims import cheapest


def recall_for_claims(index: Index, holds: Iterable[HoldNode]) -> tuple[list[Command], dict[str, int]]:
    """Recalls for what claims lack beside the free nodes that `holds` gives them, and by claim UID how many nodes it
    could get so.

    Reserve first: a loan that is on its way back already, for nobody or for a claim that is over, is given to the claim
    before another one is recalled.
    """
    free = Counter(hold.claim_uid for hold in holds)
    rooms = {name: sides(pool, index).may_take_back for name, pool in index.pools.items()}
    commands: list[Command] = []
    recallable: dict[str, int] = {}
    taken: set[str] = set()
    for claim in in_order(index):
        pool = index.pools.get(claim.spec.pool_name)
        priority = index.priority_of(claim)
        if pool is None or priority is None or asks_too_much(claim, pool, index):
            continue
        loans = helpful(claim, index.loans_of(pool.metadata.name), pool, index)
        loans = [loan for loan in loans if loan.metadata.name not in taken]
        returning = [loan for loan in loans if loan.is_wanted_back and not index.is_promised(loan)]
        lent = [loan for loan in loans if not loan.is_wanted_back and of_loan(loan, index) < priority]
        if index.slurm_of(pool.metadata.name) is None:
            # Which recall costs least cannot be seen, and a recall is one-way.
            lent = [loan for loan in lent if not loan.status.is_true("Vacated")]
        held, room = free[claim.metadata.uid], rooms[pool.metadata.name]
        recallable[claim.metadata.uid] = held + len(returning) + min(len(lent), room)
        lacking = nodes_lacking(claim, pool, index) - held
        chosen = returning[:lacking]
        recalled = cheapest(lent, min(lacking - len(chosen), room), claim.spec.recall_class, index)
        rooms[pool.metadata.name] -= len(recalled)
        chosen += recalled
        for loan in chosen:
            taken.add(loan.metadata.name)
            commands.append(RecallLoan(loan, _back_for(claim, loan, index)))
    return commands, recallable


def _back_for(claim: CapacityClaim, loan: NodeLoan, index: Index) -> LoanReturn:
    """The claim's own recall, or for a loan on its way back the claim as its goal, at the faster of the two classes."""
    meta = claim.metadata
    reference = ClaimReference(namespace=meta.namespace or "", name=meta.name, uid=meta.uid)
    if loan.is_wanted_back:
        back = back_of(loan, index)
        faster = max(back.recall_class, claim.spec.recall_class, key=RECALL_CLASSES.index)
        return back.model_copy(update={"claim": reference, "recall_class": faster})
    words = f"claim {meta.namespace}/{meta.name} needs the node"
    return LoanReturn(reason="Claimed", message=words, recall_class=claim.spec.recall_class, claim=reference)


def recall_by_terms(pool: BatchPool, index: Index) -> list[Command]:
    """Recalls because the cap was lowered, Kubernetes has too few (free) nodes, or Slurm has no use for a node.

    Headroom is refilled to its low mark only: what comes back costs running jobs, so no more than is lacking.
    """
    lent = [loan for loan in index.loans_of(pool.metadata.name) if not loan.is_wanted_back]
    terms = index.terms(pool)
    over_cap = max(len(lent) - terms.cap, 0) if terms.cap is not None else 0
    low, floor, now = terms.headroom.low, terms.kubernetes.floor, sides(pool, index)
    too_few_free = min(low - len(free_nodes(pool, index)) - now.coming, now.may_take_back)
    must = [
        (over_cap, "CapLowered", f"the cap is {terms.cap}"),
        (too_few_free, "HeadroomLow", f"fewer than {low} free nodes are left for Kubernetes"),
        (floor - now.kubernetes - now.coming, "KubernetesFloor", f"Kubernetes has fewer than {floor} nodes"),
    ]
    count, reason, message = max(must, key=lambda one: one[0])
    if count > 0:
        chosen = cheapest(lent, count, pool.spec.recall.automatic_class, index)
        return [_turn(loan, reason, message, pool) for loan in chosen]
    return [
        _turn(loan, "IdleInSlurm", f"Slurm had no use for it for {terms.idle_return_seconds} s", pool)
        for loan in _useless(pool, lent, index)
    ]


def _turn(loan: NodeLoan, reason: str, message: str, pool: BatchPool) -> RecallLoan:
    return RecallLoan(loan, LoanReturn(reason=reason, message=message, recall_class=pool.spec.recall.automatic_class))


def _useless(pool: BatchPool, lent: list[NodeLoan], index: Index) -> list[NodeLoan]:
    terms = index.terms(pool)
    slurm = index.slurm_of(pool.metadata.name)
    if terms.policy == "Eager" or slurm is None or not index.nodes_of_pool[pool.metadata.name]:
        return []
    idle = [
        loan
        for loan in lent
        if (since := _idle_since(loan, index)) and index.now - since >= timedelta(seconds=terms.idle_return_seconds)
    ]
    if not idle:
        return []
    # As if they were at home: those that would be lent again at once stay.
    useful = wanted(pool, slurm, index, len(idle) + obtainable(pool, slurm, index, soon=True), but_for=idle)
    keep = max(useful, terms.floor - (len(lent) - len(idle)), 0)
    return sorted(idle, key=lambda loan: loan.metadata.name)[keep:]


def _idle_since(loan: NodeLoan, index: Index) -> datetime | None:
    slurm = index.slurm_of(loan.spec.pool_name)
    record = index.record_of(loan, slurm) if slurm else None
    lent_at = loan.status.since("Lent") if loan.status.is_true("Lent") else None
    if slurm is None or record is None or lent_at is None or record.is_busy or index.jobs_on(loan):
        return None
    if "DRAIN" in record.states:
        return None
    return max(lent_at, record.last_busy or lent_at)

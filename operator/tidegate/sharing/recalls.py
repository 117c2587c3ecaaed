"""Which loans turn around now by the pool's own terms."""

from __future__ import annotations

from datetime import datetime, timedelta

from tidegate.api import BatchPool, LoanReturn, NodeLoan
from tidegate.sharing.commands import Command, RecallLoan
from tidegate.sharing.idleness import free_nodes
from tidegate.sharing.index import Index
from tidegate.sharing.lending import obtainable, wanted
from tidegate.sharing.priorities import serves_urgent_job
from tidegate.sharing.protection import shields
from tidegate.sharing.sides import sides
from tidegate.sharing.snapshot import SeenInSlurm
from tidegate.sharing.victims import cheapest


def recall_by_terms(pool: BatchPool, index: Index) -> list[Command]:
    """Recalls because the cap was lowered, Kubernetes has too few (free) nodes, or Slurm has no use for a node.

    Headroom is refilled to its low mark only: what comes back costs running jobs, so no more than is lacking.
    """
    lent = [loan for loan in index.loans_of(pool.metadata.name) if not loan.is_wanted_back]
    terms = index.terms(pool)
    over_cap = max(len(lent) - terms.cap, 0) if terms.cap is not None else 0
    low, floor, now = terms.headroom.low, terms.kubernetes.floor, sides(pool, index)
    must, reason, message = max(
        (over_cap, "CapLowered", f"the cap is {terms.cap}"),
        (floor - now.kubernetes - now.coming, "KubernetesFloor", f"Kubernetes has fewer than {floor} nodes"),
        (0, "", ""),
    )
    too_few_free = min(low - len(free_nodes(pool, index)) - now.coming, now.may_take_back)
    if must or too_few_free > 0:
        # Protected loans come last, and headroom leaves them where they are.
        chosen = cheapest(lent, max(must, too_few_free), pool.spec.recall.automatic_class, index)
        words = f"fewer than {low} free nodes are left for Kubernetes"
        return [
            *(_turn(loan, reason, message, pool) for loan in chosen[:must]),
            *(
                _turn(loan, "HeadroomLow", words, pool, index.seen(loan))
                for loan in chosen[must:]
                if _may_be_taken(loan, pool, index)
            ),
        ]
    words = f"Slurm had no use for it for {terms.idle_return_seconds} s"
    return [_turn(loan, "IdleInSlurm", words, pool, index.seen(loan)) for loan in _useless(pool, lent, index)]


def _may_be_taken(loan: NodeLoan, pool: BatchPool, index: Index) -> bool:
    """Whether nothing is known to protect the loan; of a Slurm that cannot be seen nothing is known."""
    is_seen = index.slurm_of(pool.metadata.name) is not None or not loan.status.is_true("Vacated")
    # A job that may take nodes would take another one in the place of its own, and so on for ever.
    return is_seen and not shields(loan, index) and not serves_urgent_job(loan, index)


def _turn(loan: NodeLoan, reason: str, message: str, pool: BatchPool, seen: SeenInSlurm | None = None) -> RecallLoan:
    back = LoanReturn(reason=reason, message=message, recall_class=pool.spec.recall.automatic_class)
    return RecallLoan(loan, back, seen)


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
    seen = index.seen(loan)
    lent_at = loan.status.since("Lent") if loan.status.is_true("Lent") else None
    record = seen.record if seen else None
    if record is None or lent_at is None or record.is_busy or index.jobs_on(loan):
        return None
    if "DRAIN" in record.states:
        return None
    return max(lent_at, record.last_busy or lent_at)

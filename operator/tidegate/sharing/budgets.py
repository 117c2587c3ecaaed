"""How often a node may change hands, and until when one that did so too often is left alone."""

from __future__ import annotations

from datetime import datetime, timedelta

from tidegate.api import BatchPool, NodeLoan
from tidegate.api.names import RELEASED_ANNOTATION
from tidegate.sharing.index import Index, created
from tidegate.sharing.snapshot import Node


def loans_in_window(node_name: str, pool: BatchPool, index: Index) -> int:
    """Loans of the node that the pool's flap budget counts."""
    return len(counted_loans(node_name, pool, index))


def counted_loans(node_name: str, pool: BatchPool, index: Index) -> list[NodeLoan]:
    """Loans of the node that the flap budget counts, the oldest first: those that got the fence, started within the
    window and after the node was last released."""
    node = index.snapshot.nodes.get(node_name)
    released = released_at(node, index.now) if node else None
    loans = [
        loan
        for loan in index.loans_by_node.get(node_name, ())
        if in_window(loan, pool, index)
        and loan.status.is_true("Fenced")
        and (released is None or created(loan) > released)
    ]
    return sorted(loans, key=lambda loan: (created(loan), loan.metadata.name))


def failed_loans(node_name: str, pool: BatchPool, index: Index) -> int:
    """Those of the counted loans that never became Slurm's, and not because somebody claimed the node."""
    return sum(
        loan.is_wanted_back and not loan.status.is_true("Lent") and not (loan.spec.back and loan.spec.back.claim)
        for loan in counted_loans(node_name, pool, index)
    )


def in_window(loan: NodeLoan, pool: BatchPool, index: Index) -> bool:
    """Whether the loan started within the pool's flap window."""
    return created(loan) > index.now - timedelta(seconds=index.terms(pool).flap_budget.window_seconds)


def quarantined_until(node_name: str, pool: BatchPool, index: Index) -> datetime | None:
    """Until when the node is not lent because its flap budget is used up; None when it is not."""
    budget, loans = index.terms(pool).flap_budget, counted_loans(node_name, pool, index)
    if len(loans) < budget.loans:
        return None
    # From then on one fewer than the budget is within the window.
    return created(loans[len(loans) - budget.loans]) + timedelta(seconds=budget.window_seconds)


def released_at(node: Node, now: datetime) -> datetime | None:
    """When a person let the node be lent again. What is no moment does not count, nor what is still to come."""
    try:
        moment = datetime.fromisoformat(node.annotations.get(RELEASED_ANNOTATION, ""))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None and moment <= now else None

"""How often a node may change hands."""

from __future__ import annotations

from datetime import timedelta

from tidegate.api import BatchPool, NodeLoan
from tidegate.sharing.index import Index, created


def loans_in_window(node_name: str, pool: BatchPool, index: Index) -> int:
    """Loans of the node that started within the pool's flap window; loans that never got the fence do not count."""
    loans = index.loans_by_node.get(node_name, ())
    return sum(in_window(loan, pool, index) and loan.status.is_true("Fenced") for loan in loans)


def in_window(loan: NodeLoan, pool: BatchPool, index: Index) -> bool:
    """Whether the loan started within the pool's flap window."""
    return created(loan) > index.now - timedelta(seconds=index.terms(pool).flap_budget.window_seconds)

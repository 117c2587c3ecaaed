"""What one step of a loan comes to, and the words that steps put into the status."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tidegate.api import OVERDUE, BatchPool, LoanReturn, NodeLoan, NodeLoanStatus, RecallClass
from tidegate.api.batch_pool import Recall
from tidegate.sharing.commands import Command, RecallLoan
from tidegate.sharing.index import Index, created


@dataclass
class Step:
    """What a step came to: the status as it should read, and the effects, in order."""

    status: NodeLoanStatus
    before: list[Command] = field(default_factory=list)
    """Effects that come before the status is written, because doing them twice is better than not at all."""
    after: list[Command] = field(default_factory=list)
    """Effects that come after, because the record of them must not be lost."""


def said(
    loan: NodeLoan, status: NodeLoanStatus, now: datetime, type_: str, holds: bool, reason: str, message: str
) -> NodeLoanStatus:
    said = status.with_condition(now, type_, holds, reason, message, loan.metadata.generation or None)
    state = type_ if holds else status.state
    return said.but(state=state, message=message, deadline=None, observed_generation=loan.metadata.generation or None)


def waiting(status: NodeLoanStatus, message: str, deadline: datetime | None) -> NodeLoanStatus:
    return status.but(message=message[:1024], deadline=deadline)


def deadline_after(loan: NodeLoan, status: NodeLoanStatus, index: Index, since: str, seconds: int) -> datetime:
    started = status.since(since) or (created(loan) if loan.metadata.creation_timestamp else index.now)
    return started + timedelta(seconds=seconds)


def turned_back(
    loan: NodeLoan, reason: str, message: str, pool: BatchPool | None, recall_class: RecallClass | None = None
) -> Step:
    recall_class = recall_class or (pool.spec.recall if pool else Recall()).automatic_class
    return Step(
        loan.status,
        after=[RecallLoan(loan, LoanReturn(reason=reason, message=message[:1024], recall_class=recall_class))],
    )


def with_overdue(status: NodeLoanStatus, loan: NodeLoan, now: datetime) -> NodeLoanStatus:
    late = status.deadline is not None and now >= status.deadline and not status.is_true("Returned")
    if not late and status.condition(OVERDUE) is None:
        return status
    if late:
        return status.with_condition(
            now, OVERDUE, True, "DeadlinePassed", status.message, loan.metadata.generation or None
        )
    return status.with_condition(now, OVERDUE, False, "OnTime", "", loan.metadata.generation or None)

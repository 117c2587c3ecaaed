"""How long before they are needed nodes have to be recalled, as measured on the pool's own recent recalls."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tidegate.api import BatchPool, Ladder, NodeLoan, RecallClass

if TYPE_CHECKING:
    from tidegate.sharing.index import Index

UNMEASURED_SECONDS = 30.0
"""What a recall is taken to need beyond its ladder while the pool has no ended loan to look at."""
SHARE = 0.95
"""So many of the recent recalls were done within what is counted on."""
LOOK_SECONDS = 1.0
"""The loop that turns loans around looks at the clock this often."""


def lead(pool: BatchPool, recall_class: RecallClass, index: Index) -> timedelta:
    """The time from a recall until the node can be handed over: all of the ladder, and what comes beside it."""
    beyond = index.recall_overheads.get(pool.metadata.name, UNMEASURED_SECONDS)
    return _length(pool, recall_class) + timedelta(seconds=beyond + LOOK_SECONDS)


def back_by(loan: NodeLoan, pool: BatchPool, index: Index) -> datetime:
    """When a loan on its way back is home, if it takes no longer than most."""
    began = loan.status.since("Recalled") if loan.status.is_true("Recalled") else None
    recall_class = loan.spec.back.recall_class if loan.spec.back else pool.spec.recall.automatic_class
    return (began or index.now) + lead(pool, recall_class, index)


def overheads(loans: Iterable[NodeLoan], pools: Mapping[str, BatchPool]) -> dict[str, float]:
    """By pool the seconds beyond the ladder that SHARE of its ended loans needed from the recall to the end."""
    found: dict[str, list[float]] = defaultdict(list)
    for loan in loans:
        pool = pools.get(loan.spec.pool_name)
        seconds = _beyond_ladder(loan, pool) if pool else None
        if seconds is not None:
            found[loan.spec.pool_name].append(seconds)
    return {name: sorted(seconds)[math.ceil(SHARE * len(seconds)) - 1] for name, seconds in found.items()}


def _beyond_ladder(loan: NodeLoan, pool: BatchPool) -> float | None:
    """None for loans that tell nothing: those that are not over, never got to Slurm, or waited for a job that may not
    be requeued, which has a patience of its own."""
    if not (loan.is_over and loan.status.is_true("Joined")) or any(not job.requeueable for job in loan.status.jobs):
        return None
    recalled, drained, returned = (_when(loan, step) for step in ("Recalled", "Drained", "Returned"))
    if recalled is None or drained is None or returned is None:
        return None
    recall_class = loan.spec.back.recall_class if loan.spec.back else pool.spec.recall.automatic_class
    overrun = drained - recalled - _length(pool, recall_class)
    return (max(overrun, timedelta()) + (returned - drained)).total_seconds()


def _when(loan: NodeLoan, step: str) -> datetime | None:
    return loan.status.since(step) if loan.status.is_true(step) else None


def _length(pool: BatchPool, recall_class: RecallClass) -> timedelta:
    ladder: Ladder = getattr(pool.spec.recall, recall_class)
    return timedelta(seconds=ladder.drain_seconds + ladder.checkpoint_seconds + ladder.requeue_seconds)

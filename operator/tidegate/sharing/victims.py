"""Which loans a claim takes back: those whose recall loses least."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from tidegate.api import BatchPool, NodeLoan, RecallClass
from tidegate.sharing.index import Index
from tidegate.sharing.ladder import declared_signal
from tidegate.sharing.snapshot import SlurmJob

_NOTHING_LOST, _WORK_LOST, _JOB_LOST = range(3)


def cheapest(loans: Iterable[NodeLoan], count: int, recall_class: RecallClass, index: Index) -> list[NodeLoan]:
    """Up to `count` loans in the order in which they are recalled.

    First those that run nothing (the ones still joining before the idle ones), then those whose jobs lose the least
    GPU-seconds, last those with a job that may not be requeued. A job is counted whole: recalling one node of a job
    of many nodes ends all of it, and once it is lost its other nodes cost nothing more.
    """
    left = sorted(loans, key=lambda loan: loan.metadata.name)
    chosen: list[NodeLoan] = []
    ended: set[int] = set()
    while left and len(chosen) < count:
        best = min(left, key=lambda loan: (*_cost(loan, ended, recall_class, index), loan.metadata.name))
        left.remove(best)
        chosen.append(best)
        ended |= {job.job_id for job in index.jobs_on(best)}
    return chosen


def _cost(loan: NodeLoan, ended: set[int], recall_class: RecallClass, index: Index) -> tuple[int, float, bool]:
    pool = index.pools[loan.spec.pool_name]
    jobs = [job for job in index.jobs_on(loan) if job.job_id not in ended]
    tier = _NOTHING_LOST if not jobs else _WORK_LOST if all(j.requeueable for j in jobs) else _JOB_LOST
    lost = sum(lost_gpu_seconds(job, pool, recall_class, index.now) for job in jobs)
    return tier, lost, loan.status.is_true("Lent")


def lost_gpu_seconds(job: SlurmJob, pool: BatchPool, recall_class: RecallClass, now: datetime) -> float:
    """GPU-seconds that ending the job now would lose; one that saves on a signal loses at most its checkpoint time."""
    if job.start_time is None:
        return 0.0
    seconds = max((now - job.start_time).total_seconds(), 0.0)
    if declared_signal(job):
        ladder = getattr(pool.spec.recall, recall_class)
        seconds = min(seconds, ladder.checkpoint_seconds)
    return seconds * max(job.gpus, 1)

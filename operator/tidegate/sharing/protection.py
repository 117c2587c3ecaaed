"""Which jobs may not be ended for a claim or for headroom, why, and until when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tidegate.api import NodeLoan, Recall
from tidegate.sharing.index import Index
from tidegate.sharing.snapshot import SlurmJob

MOST = 4
"""So many jobs are named in a sentence."""


@dataclass(frozen=True, slots=True)
class Shield:
    """A job that protects the nodes it runs on."""

    job_id: int
    why: str
    until: datetime | None
    """None when nobody knows, because the job has no time limit."""

    @property
    def words(self) -> str:
        """A part of a sentence."""
        end = f"until {self.until:%Y-%m-%dT%H:%M:%SZ}" if self.until else "until it ends"
        return f"job {self.job_id} {self.why} ({end})"


def shield_of(job: SlurmJob, terms: Recall, now: datetime) -> Shield | None:
    """What protects the job; of several reasons the one that lasts longest. A job that ends anyway has none."""
    least, after = terms.protection.minimum_run_seconds, terms.protection.after_restarts
    if job.requeueable and not least and job.restarts < after:
        return None
    if job.start_time is None or "COMPLETING" in job.states:
        return None
    if not job.requeueable and terms.non_requeueable_jobs == "Protect":
        return Shield(job.job_id, "may not be requeued", job.end_time)
    if job.restarts >= after and terms.protection.protected_seconds > least:
        seconds, why = terms.protection.protected_seconds, f"was requeued {job.restarts} times"
    else:
        seconds, why = least, f"has not run for {least} s"
    until = job.start_time + timedelta(seconds=seconds)
    return Shield(job.job_id, why, until) if now < until else None


def shields(loan: NodeLoan, index: Index) -> tuple[Shield, ...]:
    """The jobs that protect the loan's node, by id."""
    return index.once(_shields, loan.spec.pool_name).get(loan.spec.node_name, ())


def _shields(pool_name: str, index: Index) -> dict[str, tuple[Shield, ...]]:
    pool = index.pools.get(pool_name)
    if pool is None:
        return {}
    node_names = {loan.spec.slurm_node_name: loan.spec.node_name for loan in index.loans_of(pool_name)}
    found: dict[str, tuple[Shield, ...]] = {}
    for job in index.jobs_of(pool_name):
        if shield := shield_of(job, pool.spec.recall, index.now):
            for name in filter(None, map(node_names.get, job.nodes)):
                found[name] = (*found.get(name, ()), shield)
    return found


def protecting(loans: Iterable[NodeLoan], index: Index) -> str:
    """Which jobs keep these loans, the one first that gives its nodes free the soonest."""
    found = {shield.job_id: shield for loan in loans for shield in shields(loan, index)}
    soonest = sorted(found.values(), key=lambda one: (one.until is None, one.until or index.now, one.job_id))
    more = f" and {len(soonest) - MOST} more" if len(soonest) > MOST else ""
    return ", ".join(shield.words for shield in soonest[:MOST]) + more

"""One number line for both sides: what jobs and loans are worth beside claims and pods.

Kubernetes' side of it is the PriorityClass. Slurm's side is `SlurmCluster.spec.priorities`, by partition or QOS.
"""

from __future__ import annotations

from tidegate.api import JobPriority, NodeLoan, SlurmCluster
from tidegate.sharing.index import Index, created
from tidegate.sharing.snapshot import SlurmJob, SlurmState


def of_job(job: SlurmJob, cluster: SlurmCluster) -> int | None:
    """What the job is worth: the highest entry that fits it; None when none does."""
    return max((entry.priority for entry in cluster.spec.priorities if _fits(entry, job)), default=None)


def _fits(entry: JobPriority, job: SlurmJob) -> bool:
    return entry.partition in (None, *job.partitions) and entry.qos in (None, job.qos)


def of_loan(loan: NodeLoan, index: Index) -> int:
    """What the loan is worth: as much as the most important job on its node, and at least what its pool said.

    A node that was taken for a job is worth that job from the first step until the job has started or is gone, so that
    nothing less important can take it back half way. While Slurm cannot be seen, nothing gets less important.
    """
    known = index.loan_priorities
    if loan.metadata.name not in known:
        known[loan.metadata.name] = _of_loan(loan, index)
    return known[loan.metadata.name]


def serves_urgent_job(loan: NodeLoan, index: Index) -> bool:
    """Whether a job that may take nodes runs on the loan's node, or waits for it."""
    pool = index.pools.get(loan.spec.pool_name)
    if pool is None or index.terms(pool).preemption == "Never":
        return False
    slurm, cluster = index.slurm_of(loan.spec.pool_name), index.snapshot.clusters.get(pool.spec.slurm_cluster_name)
    if loan.spec.taken_for and (not loan.status.is_true("Lent") or slurm is None or _may_wait(loan, slurm)):
        return True
    return cluster is not None and any(of_job(job, cluster) is not None for job in index.jobs_on(loan))


def _of_loan(loan: NodeLoan, index: Index) -> int:
    pool = index.pools.get(loan.spec.pool_name)
    cluster = index.snapshot.clusters.get(pool.spec.slurm_cluster_name) if pool else None
    slurm = index.slurm_of(loan.spec.pool_name)
    worth = [loan.spec.priority]
    if loan.spec.taken_for and (not loan.status.is_true("Lent") or slurm is None or _may_wait(loan, slurm)):
        worth.append(loan.spec.taken_for.priority)
    if cluster is None or slurm is None:
        worth += [loan.status.priority] if loan.status.priority is not None else []
    else:
        mapped = (of_job(job, cluster) for job in index.jobs_on(loan))
        worth += [priority for priority in mapped if priority is not None]
    return max(worth)


def _may_wait(loan: NodeLoan, slurm: SlurmState) -> bool:
    """Whether the job for which the node was taken is pending, or Slurm was not asked since the loan was made."""
    job = slurm.jobs.get(loan.spec.taken_for.job_id) if loan.spec.taken_for else None
    unseen = slurm.observed is None or slurm.observed <= created(loan)
    return unseen or (job is not None and job.is_pending)

"""A node on its way back: drain, leave, clean, release. Undoing a loan is the same way from where it is."""

from __future__ import annotations

from datetime import datetime

from tidegate.api import BatchPool, Ledger, LoanReturn, NodeLoan, NodeLoanStatus, TouchedJob
from tidegate.api.batch_pool import Recall
from tidegate.api.names import DRAIN_REASON_PREFIX
from tidegate.sharing.commands import (
    CancelJob,
    DeleteSlurmdPod,
    DeleteSlurmNode,
    DownSlurmNode,
    DrainSlurmNode,
    ReleaseNode,
    RequeueJob,
    SignalJob,
    UnlabelNode,
)
from tidegate.sharing.index import Index, is_drained_by_others, joins
from tidegate.sharing.ladder import climb
from tidegate.sharing.loan_step import Step, deadline_after, said, waiting
from tidegate.sharing.snapshot import SlurmNode, SlurmState

REGISTER_SECONDS = 10
"""slurmd registers about a second after it starts; one that does not within this is ended without a drain."""
LEAVE_SECONDS = 60
"""slurmd ends within seconds of its pod's deletion; a node that is gone for longer needs a person."""
CLEAN_SECONDS = 120
"""A node that is not healthy again by then is given back as it is: Kubernetes has its own means against bad nodes."""
RELEASE_SECONDS = 30
"""Swapping the fence is one patch."""


def back_of(loan: NodeLoan, index: Index) -> LoanReturn:
    """Why and how a loan that is wanted back returns, also when a person only deleted it or changed `wanted`."""
    words = "the loan was asked to return or deleted"
    return loan.spec.back or LoanReturn(reason="WantedBack", message=words, recall_class=_class_of(loan, index))


def come_back(loan: NodeLoan, index: Index) -> Step:
    """The next step of a loan that is wanted back."""
    back = back_of(loan, index)
    status = loan.status
    if not status.is_true("Recalled"):
        status = said(loan, status, index.now, "Recalled", True, back.reason, back.message)
    step = Step(status)
    for do in (_drain, _leave, _clean, _release):
        if not do(loan, back, step, index):
            break
    return step


def _drain(loan: NodeLoan, back: LoanReturn, step: Step, index: Index) -> bool:
    """Nothing of Slurm's runs on the node, and nothing new will. A slurmd that came back meanwhile is drained again."""
    if step.status.is_true("Drained") and not _came_back(loan, index):
        return True
    if not step.status.is_true("Vacated"):
        step.status = said(loan, step.status, index.now, "Drained", True, "NeverJoined", "slurmd was never started")
        return True
    pool = index.pools.get(loan.spec.pool_name)
    slurm = index.slurm_of(loan.spec.pool_name)
    if pool is None or slurm is None:
        words, due = _silence(loan, index), deadline_after(loan, step.status, index, "Recalled", LEAVE_SECONDS)
        step.status = said(loan, step.status, index.now, "Drained", False, "SlurmSilent", words)
        step.status = waiting(step.status, words, due)
        return False
    cluster = pool.spec.slurm_cluster_name
    record = index.record_of(loan, slurm)
    if record is None:
        if step.status.is_true("Joined") or not index.slurmd_pods.get(loan.metadata.name):
            step.status = said(loan, step.status, index.now, "Drained", True, "NotInSlurm", "Slurm has no record of it")
            step.status = step.status.but(ledger=_ledger(loan, step.status, index.now))
            return True
        _end_unregistered(loan, step, cluster, index)
        return False
    if not record.is_drained or joins(record):
        step.status = waiting(
            step.status, "draining the Slurm node", deadline_after(loan, step.status, index, "Recalled", LEAVE_SECONDS)
        )
        step.after.append(DrainSlurmNode(cluster, loan, _drain_reason(back)))
        return False
    jobs = index.jobs_on(loan)
    if not jobs and not record.is_busy:
        step.status = said(loan, step.status, index.now, "Drained", True, "Empty", "Slurm runs nothing on it")
        step.status = step.status.but(ledger=_ledger(loan, step.status, index.now))
        return True
    _climb(loan, back, step, record, pool, slurm, index)
    return False


def _came_back(loan: NodeLoan, index: Index) -> bool:
    slurm = index.slurm_of(loan.spec.pool_name)
    record = index.record_of(loan, slurm) if slurm else None
    return record is not None and (not record.is_drained or record.is_busy) and not loan.status.is_true("Left")


def _climb(
    loan: NodeLoan, back: LoanReturn, step: Step, record: SlurmNode, pool: BatchPool, slurm: SlurmState, index: Index
) -> None:
    cluster = pool.spec.slurm_cluster_name
    rungs = climb(
        jobs=tuple(index.jobs_on(loan)),
        touched=step.status.jobs,
        start=step.status.since("Recalled") or index.now,
        now=index.now,
        ladder=getattr(pool.spec.recall, back.recall_class),
        terms=pool.spec.recall,
        can_requeue="requeue" in slurm.capabilities,
    )
    step.status = waiting(step.status, rungs.message, rungs.deadline).but(jobs=rungs.touched)
    step.before += [SignalJob(cluster, loan, job_id, signal) for job_id, signal in rungs.signal]
    step.after += [RequeueJob(cluster, loan, job_id) for job_id in rungs.requeue]
    step.after += [CancelJob(cluster, loan, job_id) for job_id in rungs.cancel]
    if rungs.down and "DOWN" not in record.states:
        foreign = is_drained_by_others(record)
        step.after.append(DownSlurmNode(cluster, loan, record.reason if foreign else _drain_reason(back)))


def _leave(loan: NodeLoan, back: LoanReturn, step: Step, index: Index) -> bool:
    """slurmd and its record are gone, and no other slurmd of this loan can come."""
    if step.status.is_true("Left"):
        return True
    if not step.status.is_true("Vacated"):
        step.status = said(loan, step.status, index.now, "Left", True, "NeverJoined", "slurmd was never started")
        return True
    due = deadline_after(loan, step.status, index, "Drained", LEAVE_SECONDS)
    node = index.snapshot.nodes.get(loan.spec.node_name)
    pool = index.pools.get(loan.spec.pool_name)
    labelled = node is not None and node.loan_label == loan.metadata.name
    if node and labelled:
        step.after.append(UnlabelNode(loan, node))
    if index.slurmd_pods.get(loan.metadata.name):
        step.status = waiting(step.status, "waiting for the slurmd pod to end", due)
        if pool:
            _end_slurmd(loan, step, pool.spec.slurm_cluster_name, index)
        return False
    slurm = index.slurm_of(loan.spec.pool_name)
    if pool is None or slurm is None:
        words = _silence(loan, index)
        step.status = waiting(said(loan, step.status, index.now, "Left", False, "SlurmSilent", words), words, due)
        return False
    record = index.record_of(loan, slurm)
    if record and not is_drained_by_others(record):
        step.status = waiting(step.status, f"deleting Slurm node {record.name}", due)
        step.after.append(DeleteSlurmNode(pool.spec.slurm_cluster_name, loan))
        return False
    if labelled:
        step.status = waiting(step.status, "taking the loan's label off the node", due)
        return False
    kept = (
        f"the record stays, somebody else drained it: {record.reason}" if record else "slurmd and its record are gone"
    )
    step.status = said(loan, step.status, index.now, "Left", True, "RecordKept" if record else "Gone", kept)
    return True


def _clean(loan: NodeLoan, back: LoanReturn, step: Step, index: Index) -> bool:
    """The node is as healthy as it was lent."""
    if step.status.is_true("Clean"):
        return True
    node = index.snapshot.nodes.get(loan.spec.node_name)
    if node is None:
        step.status = said(loan, step.status, index.now, "Clean", True, "NodeGone", "the node does not exist any more")
        return True
    gpus = node.gpus.get(loan.spec.gpu_resource_name, 0)
    if node.ready and gpus >= loan.spec.gpus:
        step.status = said(loan, step.status, index.now, "Clean", True, "Healthy", f"Ready with {gpus} GPUs")
        return True
    words = f"node {node.name} is {'Ready' if node.ready else 'not Ready'} with {gpus} of {loan.spec.gpus} GPUs"
    due = deadline_after(loan, step.status, index, "Left", CLEAN_SECONDS)
    overdue = index.now >= due
    reason = "ReturnedUnhealthy" if overdue else "Unhealthy"
    step.status = waiting(said(loan, step.status, index.now, "Clean", False, reason, words), words, due)
    return overdue


def _release(loan: NodeLoan, back: LoanReturn, step: Step, index: Index) -> bool:
    """Nobody but the claimant (or everybody, without one) may come onto the node."""
    node = index.snapshot.nodes.get(loan.spec.node_name)
    if node is None or node.fence != loan.metadata.name:
        claimed = node is not None and node.fence is not None
        reason = "HandedOver" if claimed else "Released"
        words = f"node {loan.spec.node_name} is " + ("held for its claim" if claimed else "Kubernetes' again")
        step.status = said(loan, step.status, index.now, "Returned", True, reason, words)
        step.status = step.status.but(message="", deadline=None)
        return True
    claim_uid = back.claim.uid if back.claim and back.claim.uid in index.live_claims else None
    pool = index.pools.get(loan.spec.pool_name)
    if pool is None:
        return False
    due = deadline_after(loan, step.status, index, "Clean", RELEASE_SECONDS)
    step.status = waiting(step.status, "handing the node over" if claim_uid else "taking the fence off", due)
    step.after.append(ReleaseNode(loan, pool.spec.slurm_cluster_name, claim_uid))
    return False


def _end_unregistered(loan: NodeLoan, step: Step, cluster: str, index: Index) -> None:
    """End a slurmd that never registered; one that is about to is given the time, so that it can be drained first."""
    due = deadline_after(loan, step.status, index, "Recalled", REGISTER_SECONDS)
    about_to = any(p.node and not p.waiting_reason and not p.deleting for p in index.slurmd_pods[loan.metadata.name])
    if about_to and index.now < due:
        step.status = waiting(step.status, "slurmd is about to register; then it is drained", due)
        return
    step.status = waiting(
        step.status,
        "slurmd has not registered; ending it",
        deadline_after(loan, step.status, index, "Recalled", LEAVE_SECONDS),
    )
    _end_slurmd(loan, step, cluster, index)


def _end_slurmd(loan: NodeLoan, step: Step, cluster: str, index: Index) -> None:
    pods = index.slurmd_pods.get(loan.metadata.name, ())
    step.after += [DeleteSlurmdPod(cluster, loan, pod) for pod in pods if not pod.deleting]


def _ledger(loan: NodeLoan, status: NodeLoanStatus, now: datetime) -> Ledger:
    lent_at = status.since("Lent") if status.is_true("Lent") else None
    ended = [job for job in status.jobs if job.action in ("Requeued", "Cancelled", "EndedByDown")]
    return Ledger(
        lent_seconds=int((now - lent_at).total_seconds()) if lent_at else 0,
        requeued_jobs=sum(job.requeueable for job in ended),
        cancelled_jobs=sum(not job.requeueable for job in ended),
        lost_gpu_seconds=sum(_lost(job) for job in ended),
    )


def _lost(job: TouchedJob) -> int:
    return int((job.time - job.start_time).total_seconds()) * max(job.gpus, 1) if job.start_time else 0


def _class_of(loan: NodeLoan, index: Index) -> str:
    pool = index.pools.get(loan.spec.pool_name)
    return pool.spec.recall.automatic_class if pool else Recall().automatic_class


def _drain_reason(back: LoanReturn) -> str:
    whom = f" for {back.claim.namespace}/{back.claim.name}" if back.claim else ""
    return f"{DRAIN_REASON_PREFIX} {back.reason}{whom}"


def _silence(loan: NodeLoan, index: Index) -> str:
    pool = index.pools.get(loan.spec.pool_name)
    if pool is None:
        return f"pool {loan.spec.pool_name} is gone; without it the Slurm of this loan is not known"
    name = pool.spec.slurm_cluster_name
    if name not in index.snapshot.clusters:
        return f"SlurmCluster {name} does not exist; create it again so that the node can be drained"
    state = index.snapshot.slurm.get(name)
    return state.error if state and state.error else f"Slurm {name} has not answered lately"

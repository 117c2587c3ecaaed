"""The trip of one node: the next thing to do for a loan on its way to Slurm, in Slurm, and on its way back.

Each step looks at the world, not at what was done before: it is repeated until the world shows its effect, and then the
condition is set. So a crash, a lost answer or a second operator only repeats a step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tidegate.api import (
    OVERDUE,
    BatchPool,
    Ledger,
    LoanReturn,
    NodeLoan,
    NodeLoanStatus,
    TouchedJob,
)
from tidegate.api.batch_pool import Recall
from tidegate.api.names import DRAIN_REASON_PREFIX
from tidegate.sharing.commands import (
    CancelJob,
    Command,
    ConfirmVacated,
    CreateSlurmdPod,
    DeleteSlurmdPod,
    DeleteSlurmNode,
    DownSlurmNode,
    DrainSlurmNode,
    EndLoan,
    FenceNode,
    RecallLoan,
    ReleaseNode,
    RequeueJob,
    SignalJob,
    UnlabelNode,
    WriteLoanStatus,
)
from tidegate.sharing.idleness import set_aside
from tidegate.sharing.index import Index, created, extra_of, is_drained_by_others
from tidegate.sharing.ladder import climb
from tidegate.sharing.snapshot import Node, Pod, SlurmNode, SlurmState

FENCE_SECONDS = 30
"""A node that does not take the fence by then has become somebody else's business."""
VACATE_SECONDS = 30
"""A GPU pod that shows up behind the fence and is still there by then keeps the node."""
REGISTER_SECONDS = 10
"""slurmd registers about a second after it starts; one that does not within this is ended without a drain."""
LEAVE_SECONDS = 60
"""slurmd ends within seconds of its pod's deletion; a node that is gone for longer needs a person."""
CLEAN_SECONDS = 120
"""A node that is not healthy again by then is given back as it is: Kubernetes has its own means against bad nodes."""
RELEASE_SECONDS = 30
"""Swapping the fence is one patch."""
TERMINAL_SLURM_STATES = frozenset({"INVAL", "INVALID_REG", "INVALID", "FAIL", "DOWN"})


@dataclass
class _Step:
    """What a step came to: the status as it should read, and the effects, in order."""

    status: NodeLoanStatus
    before: list[Command] = field(default_factory=list)
    """Effects that come before the status is written, because doing them twice is better than not at all."""
    after: list[Command] = field(default_factory=list)
    """Effects that come after, because the record of them must not be lost."""


def advance(loan: NodeLoan, index: Index) -> list[Command]:
    """The next commands for a loan that is not over, its status write among them."""
    step = _come_back(loan, index) if loan.is_wanted_back else _go_out(loan, index)
    status = _with_overdue(step.status, loan, index.now)
    write: list[Command] = [WriteLoanStatus(loan, status)] if status != loan.status else []
    return [*step.before, *write, *step.after]


def finish(loan: NodeLoan, index: Index) -> list[Command]:
    """What is left to do for a loan that is over: its finalizer, and a fence or pods that came late."""
    commands: list[Command] = []
    node = index.snapshot.nodes.get(loan.spec.node_name)
    pool = index.pools.get(loan.spec.pool_name)
    if pool:
        cluster, pods = pool.spec.slurm_cluster_name, index.slurmd_pods.get(loan.metadata.name, ())
        commands += [DeleteSlurmdPod(cluster, loan, pod) for pod in pods if not pod.deleting]
        if node and node.fence == loan.metadata.name:
            commands.append(ReleaseNode(loan, cluster, None))
    if loan.metadata.finalizers and not commands:
        commands.append(EndLoan(loan))
    return commands


# --- on the way out ---------------------------------------------------------------------------------------------------


def _go_out(loan: NodeLoan, index: Index) -> _Step:
    node = index.snapshot.nodes.get(loan.spec.node_name)
    pool = index.pools.get(loan.spec.pool_name)
    if pool is None or pool.metadata.deletion_timestamp:
        return _recall(loan, "PoolDeleted", f"pool {loan.spec.pool_name} is gone", None)
    if pool.spec.stop_policy == "HoldAndDrain":
        return _recall(loan, "PoolStopped", f"pool {pool.metadata.name} has stopPolicy HoldAndDrain", pool)
    if node is None:
        return _recall(loan, "NodeLost", f"node {loan.spec.node_name} does not exist any more", pool)
    if aside := set_aside(node, pool):
        return _recall(loan, aside.reason, aside.message, pool)
    if node.fence not in (None, loan.metadata.name):
        return _recall(loan, "NodeTaken", f"node {node.name} is held by {node.fence}", pool)
    for do in (_fence, _vacate, _join, _stay):
        step = do(loan, node, pool, index)
        if step is not None:
            return step
    return _Step(loan.status)


def _fence(loan: NodeLoan, node: Node, pool: BatchPool, index: Index) -> _Step | None:
    if node.fence == loan.metadata.name and node.loan_label == loan.metadata.name:
        if loan.status.is_true("Fenced"):
            return None
        return _Step(
            _say(
                loan,
                loan.status,
                index.now,
                "Fenced",
                True,
                "FenceInPlace",
                "only the slurmd pod of this loan may come",
            )
        )
    status = loan.status
    if status.condition("Fenced"):
        status = _say(
            loan, status, index.now, "Fenced", False, "FenceLost", "somebody took the fence off; putting it back"
        )
    due = _due(loan, status, index, "Fenced", FENCE_SECONDS)
    if not status.is_true("Vacated") and index.now >= due:
        return _recall(loan, "FenceOverdue", f"node {node.name} did not take the fence within {FENCE_SECONDS} s", pool)
    return _Step(_next(status, f"putting the fence on node {node.name}", due), after=[FenceNode(loan, node)])


def _vacate(loan: NodeLoan, node: Node, pool: BatchPool, index: Index) -> _Step | None:
    if loan.status.is_true("Vacated"):
        return None
    due = _due(loan, loan.status, index, "Fenced", VACATE_SECONDS)
    if pods := index.foreign_gpu_pods(node.name, pool):
        return _recall(loan, "NotVacant", f"pod {pods[0].key} was bound to node {node.name} before the fence", pool)
    if index.now >= due:
        return _recall(
            loan, "VacateOverdue", f"node {node.name} could not be shown empty within {VACATE_SECONDS} s", pool
        )
    return _Step(_next(loan.status, "asking whether GPU pods are on the node", due), after=[ConfirmVacated(loan, pool)])


def _join(loan: NodeLoan, node: Node, pool: BatchPool, index: Index) -> _Step | None:
    if loan.status.is_true("Joined"):
        return None
    limit = pool.spec.lending.join_seconds
    due = _due(loan, loan.status, index, "Vacated", limit)
    pods = index.slurmd_pods.get(loan.metadata.name, [])
    if refused := next((p for p in pods if p.phase == "Failed"), None):
        return _recall(loan, "PodRefused", f"slurmd pod {refused.key} was refused: {refused.waiting_reason}", pool)
    if foreign := index.foreign_gpu_pods(node.name, pool):
        return _recall(loan, "NotVacant", f"pod {foreign[0].key} was bound to node {node.name} late", pool)
    if index.now >= due:
        return _recall(loan, "JoinOverdue", _why_not_joined(loan, pods, limit), pool)
    slurm = index.slurm_of(pool.metadata.name)
    if slurm is None:
        return _Step(_next(loan.status, f"waiting for Slurm {pool.spec.slurm_cluster_name} to answer", due))
    record = slurm.nodes.get(loan.spec.slurm_node_name)
    if record and record.extra != extra_of(loan.metadata.name):
        if not record.extra.startswith(extra_of("")):
            return _recall(loan, "SlurmNameTaken", f"Slurm node {record.name} is somebody else's", pool)
        if is_drained_by_others(record, DRAIN_REASON_PREFIX):
            return _recall(loan, "DrainedByOthers", f"Slurm node {record.name} is drained: {record.reason}", pool)
        owners = (
            one for one in index.snapshot.loans if not one.is_over and record.extra == extra_of(one.metadata.name)
        )
        if owner := next(owners, None):
            return _recall(loan, "SlurmNameTaken", f"Slurm node {record.name} is of loan {owner.metadata.name}", pool)
        left_over = DeleteSlurmNode(pool.spec.slurm_cluster_name, loan)
        return _Step(_next(loan.status, "deleting the record of the last loan", due), after=[left_over])
    if not pods:
        cpus, memory_mib = offer(node, index)
        if cpus < 1 or memory_mib < 1:
            return _recall(loan, "NoRoom", f"pods that stay on node {node.name} leave no whole CPU for slurmd", pool)
        cluster = index.snapshot.clusters[pool.spec.slurm_cluster_name]
        create = CreateSlurmdPod(loan, pool, cluster, cpus, memory_mib)
        return _Step(_next(loan.status, "starting slurmd", due), after=[create])
    if record is None:
        return _Step(_next(loan.status, _pod_story(pods[0]), due))
    if bad := record.states & TERMINAL_SLURM_STATES:
        words = f"Slurm node {record.name} is {'+'.join(sorted(bad))}: {record.reason or 'no reason given'}"
        return _recall(loan, "SlurmNodeInvalid", words, pool)
    if record.gpus != loan.spec.gpus:
        words = f"Slurm node {record.name} has {record.gpus} GPUs, node {node.name} has {loan.spec.gpus}"
        return _recall(loan, "GpuCountDiffers", words, pool)
    if record.states & {"NOT_RESPONDING", "UNKNOWN"}:
        return _Step(_next(loan.status, f"Slurm node {record.name} does not respond to slurmctld yet", due))
    if record.is_drained:
        return _Step(_next(loan.status, f"Slurm node {record.name} is drained: {record.reason}", due))
    status = _say(loan, loan.status, index.now, "Joined", True, "Registered", f"Slurm node {record.name} takes jobs")
    status = _say(loan, status, index.now, "Lent", True, "SlurmOwns", f"partition {pool.spec.partition} may use it")
    return _Step(status.model_copy(update={"deadline": None}))


def _stay(loan: NodeLoan, node: Node, pool: BatchPool, index: Index) -> _Step | None:
    pods = [p for p in index.slurmd_pods.get(loan.metadata.name, ()) if p.phase != "Failed" and not p.deleting]
    if not pods:
        return _recall(loan, "SlurmdLost", f"the slurmd pod of node {node.name} is gone", pool)
    slurm = index.slurm_of(pool.metadata.name)
    if slurm is None:
        return _Step(
            loan.status.model_copy(update={"message": f"Slurm {pool.spec.slurm_cluster_name} does not answer"})
        )
    record = index.record_of(loan, slurm)
    if record is None:
        return _recall(
            loan, "SlurmNodeLost", f"Slurm knows no node {loan.spec.slurm_node_name} of this loan any more", pool
        )
    if record.states & TERMINAL_SLURM_STATES and not slurm.jobs_on(record.name) and not record.is_busy:
        words = f"Slurm node {record.name} is {'+'.join(sorted(record.states))}: {record.reason or 'no reason given'}"
        return _recall(loan, "SlurmNodeUnhealthy", words, pool)
    drained = is_drained_by_others(record, DRAIN_REASON_PREFIX)
    words = f"Slurm node {record.name} is drained by somebody else: {record.reason}" if drained else ""
    return _Step(loan.status.model_copy(update={"message": words, "deadline": None}))


def offer(node: Node, index: Index) -> tuple[int, int]:
    """Whole CPUs and MiB that slurmd may offer: allocatable less what the pods that stay on the node have requested."""
    there = index.pods_by_node.get(node.name, ())
    cpu_millis = node.cpu_millis - sum(p.cpu_millis for p in there)
    memory_mib = node.memory_mib - sum(p.memory_mib for p in there)
    return cpu_millis // 1000, memory_mib


def _why_not_joined(loan: NodeLoan, pods: list[Pod], limit: int) -> str:
    story = _pod_story(pods[0]) if pods else "its slurmd pod was never created"
    return f"Slurm node {loan.spec.slurm_node_name} did not register within {limit} s: {story}"


def _pod_story(pod: Pod) -> str:
    if pod.waiting_reason:
        return f"slurmd pod {pod.key} does not start: {pod.waiting_reason}"
    if not pod.node:
        return f"slurmd pod {pod.key} is not bound: {pod.scheduler_message or 'waiting for kube-scheduler'}"
    return f"slurmd pod {pod.key} is {pod.phase}, waiting for it to register"


# --- on the way back --------------------------------------------------------------------------------------------------


def back_of(loan: NodeLoan, index: Index) -> LoanReturn:
    """Why and how a loan that is wanted back returns, also when a person only deleted it or changed `wanted`."""
    words = "the loan was asked to return or deleted"
    return loan.spec.back or LoanReturn(reason="WantedBack", message=words, recall_class=_class_of(loan, index))


def _come_back(loan: NodeLoan, index: Index) -> _Step:
    back = back_of(loan, index)
    status = loan.status
    if not status.is_true("Recalled"):
        status = _say(loan, status, index.now, "Recalled", True, back.reason, back.message)
    step = _Step(status)
    for do in (_drain, _leave, _clean, _release):
        if not do(loan, back, step, index):
            break
    return step


def _drain(loan: NodeLoan, back: LoanReturn, step: _Step, index: Index) -> bool:
    """Nothing of Slurm's runs on the node, and nothing new will. A slurmd that came back meanwhile is drained again."""
    if step.status.is_true("Drained") and not _came_back(loan, index):
        return True
    if not step.status.is_true("Vacated"):
        step.status = _say(loan, step.status, index.now, "Drained", True, "NeverJoined", "slurmd was never started")
        return True
    pool = index.pools.get(loan.spec.pool_name)
    slurm = index.slurm_of(loan.spec.pool_name)
    if pool is None or slurm is None:
        words, due = _silence(loan, index), _due(loan, step.status, index, "Recalled", LEAVE_SECONDS)
        step.status = _say(loan, step.status, index.now, "Drained", False, "SlurmSilent", words)
        step.status = _next(step.status, words, due)
        return False
    cluster = pool.spec.slurm_cluster_name
    record = index.record_of(loan, slurm)
    if record is None:
        if step.status.is_true("Joined") or not index.slurmd_pods.get(loan.metadata.name):
            step.status = _say(loan, step.status, index.now, "Drained", True, "NotInSlurm", "Slurm has no record of it")
            step.status = step.status.model_copy(update={"ledger": _ledger(loan, step.status, index.now)})
            return True
        _end_unregistered(loan, step, cluster, index)
        return False
    if not record.is_drained:
        step.status = _next(
            step.status, "draining the Slurm node", _due(loan, step.status, index, "Recalled", LEAVE_SECONDS)
        )
        step.after.append(DrainSlurmNode(cluster, loan, _drain_reason(back)))
        return False
    jobs = slurm.jobs_on(record.name)
    if not jobs and not record.is_busy:
        step.status = _say(loan, step.status, index.now, "Drained", True, "Empty", "Slurm runs nothing on it")
        step.status = step.status.model_copy(update={"ledger": _ledger(loan, step.status, index.now)})
        return True
    _climb(loan, back, step, record, pool, slurm, index)
    return False


def _came_back(loan: NodeLoan, index: Index) -> bool:
    slurm = index.slurm_of(loan.spec.pool_name)
    record = index.record_of(loan, slurm) if slurm else None
    return record is not None and (not record.is_drained or record.is_busy) and not loan.status.is_true("Left")


def _climb(
    loan: NodeLoan, back: LoanReturn, step: _Step, record: SlurmNode, pool: BatchPool, slurm: SlurmState, index: Index
) -> None:
    cluster = pool.spec.slurm_cluster_name
    rungs = climb(
        jobs=slurm.jobs_on(record.name),
        touched=step.status.jobs,
        start=step.status.since("Recalled") or index.now,
        now=index.now,
        ladder=getattr(pool.spec.recall, back.recall_class),
        terms=pool.spec.recall,
        can_requeue="requeue" in slurm.capabilities,
    )
    step.status = _next(step.status, rungs.message, rungs.deadline).model_copy(update={"jobs": rungs.touched})
    step.before += [SignalJob(cluster, loan, job_id, signal) for job_id, signal in rungs.signal]
    step.after += [RequeueJob(cluster, loan, job_id) for job_id in rungs.requeue]
    step.after += [CancelJob(cluster, loan, job_id) for job_id in rungs.cancel]
    if rungs.down and "DOWN" not in record.states:
        foreign = is_drained_by_others(record, DRAIN_REASON_PREFIX)
        step.after.append(DownSlurmNode(cluster, loan, record.reason if foreign else _drain_reason(back)))


def _leave(loan: NodeLoan, back: LoanReturn, step: _Step, index: Index) -> bool:
    """slurmd and its record are gone, and no other slurmd of this loan can come."""
    if step.status.is_true("Left"):
        return True
    if not step.status.is_true("Vacated"):
        step.status = _say(loan, step.status, index.now, "Left", True, "NeverJoined", "slurmd was never started")
        return True
    due = _due(loan, step.status, index, "Drained", LEAVE_SECONDS)
    node = index.snapshot.nodes.get(loan.spec.node_name)
    pool = index.pools.get(loan.spec.pool_name)
    labelled = node is not None and node.loan_label == loan.metadata.name
    if node and labelled:
        step.after.append(UnlabelNode(loan, node))
    if index.slurmd_pods.get(loan.metadata.name):
        step.status = _next(step.status, "waiting for the slurmd pod to end", due)
        if pool:
            _end_slurmd(loan, step, pool.spec.slurm_cluster_name, index)
        return False
    slurm = index.slurm_of(loan.spec.pool_name)
    if pool is None or slurm is None:
        words = _silence(loan, index)
        step.status = _next(_say(loan, step.status, index.now, "Left", False, "SlurmSilent", words), words, due)
        return False
    record = index.record_of(loan, slurm)
    if record and not is_drained_by_others(record, DRAIN_REASON_PREFIX):
        step.status = _next(step.status, f"deleting Slurm node {record.name}", due)
        step.after.append(DeleteSlurmNode(pool.spec.slurm_cluster_name, loan))
        return False
    if labelled:
        step.status = _next(step.status, "taking the loan's label off the node", due)
        return False
    kept = (
        f"the record stays, somebody else drained it: {record.reason}" if record else "slurmd and its record are gone"
    )
    step.status = _say(loan, step.status, index.now, "Left", True, "RecordKept" if record else "Gone", kept)
    return True


def _clean(loan: NodeLoan, back: LoanReturn, step: _Step, index: Index) -> bool:
    """The node is as healthy as it was lent."""
    if step.status.is_true("Clean"):
        return True
    node = index.snapshot.nodes.get(loan.spec.node_name)
    if node is None:
        step.status = _say(loan, step.status, index.now, "Clean", True, "NodeGone", "the node does not exist any more")
        return True
    gpus = node.gpus.get(loan.spec.gpu_resource_name, 0)
    if node.ready and gpus >= loan.spec.gpus:
        step.status = _say(loan, step.status, index.now, "Clean", True, "Healthy", f"Ready with {gpus} GPUs")
        return True
    words = f"node {node.name} is {'Ready' if node.ready else 'not Ready'} with {gpus} of {loan.spec.gpus} GPUs"
    due = _due(loan, step.status, index, "Left", CLEAN_SECONDS)
    overdue = index.now >= due
    reason = "ReturnedUnhealthy" if overdue else "Unhealthy"
    step.status = _next(_say(loan, step.status, index.now, "Clean", False, reason, words), words, due)
    return overdue


def _release(loan: NodeLoan, back: LoanReturn, step: _Step, index: Index) -> bool:
    """Nobody but the claimant (or everybody, without one) may come onto the node."""
    node = index.snapshot.nodes.get(loan.spec.node_name)
    if node is None or node.fence != loan.metadata.name:
        claimed = node is not None and node.fence is not None
        reason = "HandedOver" if claimed else "Released"
        words = f"node {loan.spec.node_name} is " + ("held for its claim" if claimed else "Kubernetes' again")
        step.status = _say(loan, step.status, index.now, "Returned", True, reason, words)
        step.status = step.status.model_copy(update={"message": "", "deadline": None})
        return True
    claim_uid = back.claim.uid if back.claim and back.claim.uid in index.live_claims else None
    pool = index.pools.get(loan.spec.pool_name)
    if pool is None:
        return False
    due = _due(loan, step.status, index, "Clean", RELEASE_SECONDS)
    step.status = _next(step.status, "handing the node over" if claim_uid else "taking the fence off", due)
    step.after.append(ReleaseNode(loan, pool.spec.slurm_cluster_name, claim_uid))
    return False


def _end_unregistered(loan: NodeLoan, step: _Step, cluster: str, index: Index) -> None:
    """End a slurmd that never registered; one that is about to is given the time, so that it can be drained first."""
    due = _due(loan, step.status, index, "Recalled", REGISTER_SECONDS)
    about_to = any(p.node and not p.waiting_reason and not p.deleting for p in index.slurmd_pods[loan.metadata.name])
    if about_to and index.now < due:
        step.status = _next(step.status, "slurmd is about to register; then it is drained", due)
        return
    step.status = _next(
        step.status, "slurmd has not registered; ending it", _due(loan, step.status, index, "Recalled", LEAVE_SECONDS)
    )
    _end_slurmd(loan, step, cluster, index)


def _end_slurmd(loan: NodeLoan, step: _Step, cluster: str, index: Index) -> None:
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


# --- words ------------------------------------------------------------------------------------------------------------


def _say(
    loan: NodeLoan, status: NodeLoanStatus, now: datetime, type_: str, holds: bool, reason: str, message: str
) -> NodeLoanStatus:
    said = status.with_condition(now, type_, holds, reason, message, loan.metadata.generation or None)
    state = type_ if holds else status.state
    return said.model_copy(
        update={
            "state": state,
            "message": message,
            "deadline": None,
            "observed_generation": loan.metadata.generation or None,
        }
    )


def _next(status: NodeLoanStatus, message: str, deadline: datetime | None) -> NodeLoanStatus:
    return status.model_copy(update={"message": message[:1024], "deadline": deadline})


def _due(loan: NodeLoan, status: NodeLoanStatus, index: Index, since: str, seconds: int) -> datetime:
    started = status.since(since) or (created(loan) if loan.metadata.creation_timestamp else index.now)
    return started + timedelta(seconds=seconds)


def _recall(loan: NodeLoan, reason: str, message: str, pool: BatchPool | None) -> _Step:
    recall_class = pool.spec.recall.automatic_class if pool else Recall().automatic_class
    return _Step(
        loan.status,
        after=[RecallLoan(loan, LoanReturn(reason=reason, message=message[:1024], recall_class=recall_class))],
    )


def _with_overdue(status: NodeLoanStatus, loan: NodeLoan, now: datetime) -> NodeLoanStatus:
    late = status.deadline is not None and now >= status.deadline and not status.is_true("Returned")
    if not late and status.condition(OVERDUE) is None:
        return status
    if late:
        return status.with_condition(
            now, OVERDUE, True, "DeadlinePassed", status.message, loan.metadata.generation or None
        )
    return status.with_condition(now, OVERDUE, False, "OnTime", "", loan.metadata.generation or None)

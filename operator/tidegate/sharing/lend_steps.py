"""A node on its way to Slurm, and in Slurm: fence, vacate, join, stay. What fails turns the loan back."""

from __future__ import annotations

from tidegate.api import BatchPool, NodeLoan, NodeLoanStatus
from tidegate.sharing.announcements import is_told, must_be_told
from tidegate.sharing.commands import ConfirmVacated, CreateSlurmdPod, DeleteSlurmNode, FenceNode, ResumeSlurmNode
from tidegate.sharing.idleness import set_aside
from tidegate.sharing.index import Index, extra_of, is_drained_by_others, joins
from tidegate.sharing.loan_step import Step, deadline_after, said, turned_back, waiting
from tidegate.sharing.make_way import clear, still_needed
from tidegate.sharing.snapshot import Node, Pod, SlurmState

FENCE_SECONDS = 30
"""A node that does not take the fence by then has become somebody else's business."""
VACATE_SECONDS = 30
"""A GPU pod that shows up behind the fence and is still there by then keeps the node."""
TERMINAL_SLURM_STATES = frozenset({"INVAL", "INVALID_REG", "INVALID", "FAIL", "DOWN"})


def go_out(loan: NodeLoan, index: Index) -> Step:
    """The next step of a loan that is wanted in Slurm."""
    node = index.snapshot.nodes.get(loan.spec.node_name)
    pool = index.pools.get(loan.spec.pool_name)
    if pool is None or pool.metadata.deletion_timestamp:
        return turned_back(loan, "PoolDeleted", f"pool {loan.spec.pool_name} is gone", None)
    if pool.spec.stop_policy == "HoldAndDrain":
        return turned_back(loan, "PoolStopped", f"pool {pool.metadata.name} has stopPolicy HoldAndDrain", pool)
    if pool.spec.mode == "Recommend":
        words = f"pool {pool.metadata.name} has mode Recommend, so that nothing stays lent"
        return turned_back(loan, "PoolRecommends", words, pool, "graceful")
    if node is None:
        return turned_back(loan, "NodeLost", f"node {loan.spec.node_name} does not exist any more", pool)
    if aside := set_aside(node, pool):
        return turned_back(loan, aside.reason, aside.message, pool)
    if node.fence not in (None, loan.metadata.name):
        return turned_back(loan, "NodeTaken", f"node {node.name} is held by {node.fence}", pool)
    for do in (still_needed, _fence, _vacate, _join, _stay):
        step = do(loan, node, pool, index)
        if step is not None:
            return step
    return Step(loan.status)


def _fence(loan: NodeLoan, node: Node, pool: BatchPool, index: Index) -> Step | None:
    if node.fence == loan.metadata.name and node.loan_label == loan.metadata.name:
        if loan.status.is_true("Fenced"):
            return None
        return Step(
            said(
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
        status = said(
            loan, status, index.now, "Fenced", False, "FenceLost", "somebody took the fence off; putting it back"
        )
    due = deadline_after(loan, status, index, "Fenced", FENCE_SECONDS)
    if not status.is_true("Vacated") and index.now >= due:
        return turned_back(
            loan, "FenceOverdue", f"node {node.name} did not take the fence within {FENCE_SECONDS} s", pool
        )
    return Step(waiting(status, f"putting the fence on node {node.name}", due), after=[FenceNode(loan, node)])


def _vacate(loan: NodeLoan, node: Node, pool: BatchPool, index: Index) -> Step | None:
    if loan.status.is_true("Vacated"):
        return None
    seconds = VACATE_SECONDS
    if loan.spec.taken_for:
        if step := clear(loan, node, pool, index):
            return step
        seconds += 2 * index.terms(pool).eviction_seconds
    due = deadline_after(loan, loan.status, index, "Fenced", seconds)
    if pods := index.foreign_gpu_pods(node.name, pool):
        return turned_back(loan, "NotVacant", f"pod {pods[0].key} was bound to node {node.name} before the fence", pool)
    if index.now >= due:
        return turned_back(loan, "VacateOverdue", f"node {node.name} could not be shown empty within {seconds} s", pool)
    return Step(
        waiting(loan.status, "asking whether GPU pods are on the node", due), after=[ConfirmVacated(loan, pool)]
    )


def _join(loan: NodeLoan, node: Node, pool: BatchPool, index: Index) -> Step | None:
    if loan.status.is_true("Joined"):
        return None
    limit = index.terms(pool).join_seconds
    due = deadline_after(loan, loan.status, index, "Vacated", limit)
    pods = index.slurmd_pods.get(loan.metadata.name, [])
    if refused := next((p for p in pods if p.phase == "Failed"), None):
        return turned_back(loan, "PodRefused", f"slurmd pod {refused.key} was refused: {refused.waiting_reason}", pool)
    if foreign := index.foreign_gpu_pods(node.name, pool):
        return turned_back(loan, "NotVacant", f"pod {foreign[0].key} was bound to node {node.name} late", pool)
    if index.now >= due:
        return turned_back(loan, "JoinOverdue", _why_not_joined(loan, pods, limit), pool)
    slurm = index.slurm_of(pool.metadata.name)
    if slurm is None:
        return Step(waiting(loan.status, f"waiting for Slurm {pool.spec.slurm_cluster_name} to answer", due))
    record = slurm.nodes.get(loan.spec.slurm_node_name)
    if record and record.extra != extra_of(loan.metadata.name):
        if not record.extra.startswith(extra_of("")):
            return turned_back(loan, "SlurmNameTaken", f"Slurm node {record.name} is somebody else's", pool)
        if is_drained_by_others(record):
            return turned_back(loan, "DrainedByOthers", f"Slurm node {record.name} is drained: {record.reason}", pool)
        owners = (
            one for one in index.snapshot.loans if not one.is_over and record.extra == extra_of(one.metadata.name)
        )
        if owner := next(owners, None):
            return turned_back(
                loan, "SlurmNameTaken", f"Slurm node {record.name} is of loan {owner.metadata.name}", pool
            )
        left_over = DeleteSlurmNode(pool.spec.slurm_cluster_name, loan)
        return Step(waiting(loan.status, "deleting the record of the last loan", due), after=[left_over])
    if not pods:
        cpus, memory_mib = offer(node, index)
        if cpus < 1 or memory_mib < 1:
            return turned_back(
                loan, "NoRoom", f"pods that stay on node {node.name} leave no whole CPU for slurmd", pool
            )
        cluster = index.snapshot.clusters[pool.spec.slurm_cluster_name]
        create = CreateSlurmdPod(loan, pool, cluster, cpus, memory_mib, must_be_told(pool, slurm, index))
        return Step(waiting(loan.status, "starting slurmd", due), after=[create])
    if record is None:
        return Step(waiting(loan.status, _pod_story(pods[0]), due))
    if bad := record.states & TERMINAL_SLURM_STATES:
        words = f"Slurm node {record.name} is {'+'.join(sorted(bad))}: {record.reason or 'no reason given'}"
        return turned_back(loan, "SlurmNodeInvalid", words, pool)
    if record.gpus != loan.spec.gpus:
        words = f"Slurm node {record.name} has {record.gpus} GPUs, node {node.name} has {loan.spec.gpus}"
        return turned_back(loan, "GpuCountDiffers", words, pool)
    if record.states & {"NOT_RESPONDING", "UNKNOWN"}:
        return Step(waiting(loan.status, f"Slurm node {record.name} does not respond to slurmctld yet", due))
    if joins(record):
        return _let_jobs_in(loan, pool, slurm, index, waiting(loan.status, "telling Slurm of reservations first", due))
    if record.is_drained:
        return Step(waiting(loan.status, f"Slurm node {record.name} is drained: {record.reason}", due))
    status = said(loan, loan.status, index.now, "Joined", True, "Registered", f"Slurm node {record.name} takes jobs")
    status = said(loan, status, index.now, "Lent", True, "SlurmOwns", f"partition {pool.spec.partition} may use it")
    return Step(status.but(deadline=None))


def _stay(loan: NodeLoan, node: Node, pool: BatchPool, index: Index) -> Step | None:
    pods = [p for p in index.slurmd_pods.get(loan.metadata.name, ()) if p.phase != "Failed" and not p.deleting]
    if not pods:
        return turned_back(loan, "SlurmdLost", f"the slurmd pod of node {node.name} is gone", pool)
    slurm = index.slurm_of(pool.metadata.name)
    if slurm is None:
        return Step(loan.status.but(message=f"Slurm {pool.spec.slurm_cluster_name} does not answer"))
    record = index.record_of(loan, slurm)
    if record is None:
        return turned_back(
            loan, "SlurmNodeLost", f"Slurm knows no node {loan.spec.slurm_node_name} of this loan any more", pool
        )
    if record.states & TERMINAL_SLURM_STATES and not index.jobs_on(loan) and not record.is_busy:
        words = f"Slurm node {record.name} is {'+'.join(sorted(record.states))}: {record.reason or 'no reason given'}"
        return turned_back(loan, "SlurmNodeUnhealthy", words, pool)
    drained = is_drained_by_others(record)
    words = f"Slurm node {record.name} is drained by somebody else: {record.reason}" if drained else ""
    return Step(loan.status.but(message=words, deadline=None))


def _let_jobs_in(loan: NodeLoan, pool: BatchPool, slurm: SlurmState, index: Index, status: NodeLoanStatus) -> Step:
    """The node was drained since it registered; once Slurm knows what is reserved, jobs may come."""
    told = is_told(pool, slurm, index)
    return Step(status, after=[ResumeSlurmNode(pool.spec.slurm_cluster_name, loan)] if told else [])


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

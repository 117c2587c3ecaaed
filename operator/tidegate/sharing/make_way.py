"""A node that is taken for a job, from its fence to the moment when the last GPU pod of others has gone.

The nodes of one job go together: no pod is evicted before all of them are fenced and all their pods may go, and when
one of them turns back before it is lent, those that are not lent yet do, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.api import BatchPool, NodeLoan
from tidegate.sharing.commands import EvictPod
from tidegate.sharing.demand import more_partitions, waits_for_nodes
from tidegate.sharing.evictions import Allowance, why_it_stays
from tidegate.sharing.idleness import DO_NOT_DISRUPT
from tidegate.sharing.index import Index, created
from tidegate.sharing.loan_step import Step, deadline_after, turned_back, waiting
from tidegate.sharing.priorities import of_job
from tidegate.sharing.snapshot import Node, Pod

EVICTION_REFUSED = "EvictionRefused"
"""Why a loan turned back whose pods did not go in time. The job waits a while before it takes nodes again."""


def open_loans(loan: NodeLoan, pool: BatchPool, index: Index) -> list[NodeLoan]:
    """The loans of the pool that the job of this loan has, the oldest first: neither over nor on their way back."""
    assert loan.spec.taken_for  # noqa: S101 - asked of no other loan
    taken = index.loans_by_taker.get((pool.spec.slurm_cluster_name, loan.spec.taken_for.job_id), ())
    ours = (one for one in taken if one.spec.pool_name == pool.metadata.name)
    return [one for one in ours if not one.is_over and not one.is_wanted_back]


def still_needed(loan: NodeLoan, node: Node, pool: BatchPool, index: Index) -> Step | None:
    """Turn a loan back whose job needs it no longer, or can no longer get all of its nodes; None for all others."""
    job = loan.spec.taken_for
    if job is None or loan.status.is_true("Lent"):
        return None
    if words := _job_lost_interest(loan, pool, index):
        return turned_back(loan, "NotNeeded", words, pool)
    gang = open_loans(loan, pool, index)
    if len(gang) < job.nodes:
        words = f"only {len(gang)} of the {job.nodes} nodes that job {job.job_id} needs together could be taken"
        return turned_back(loan, "GangBroken", words, pool)
    # Two operators may have chosen different nodes at the same moment. Both drop the same ones.
    first = sorted(gang, key=lambda one: (not one.status.is_true("Lent"), created(one), one.metadata.name))
    if loan.metadata.name not in {one.metadata.name for one in first[: job.nodes]}:
        words = f"job {job.job_id} needs {job.nodes} nodes, and {len(gang)} were taken for it"
        return turned_back(loan, "TakenTwice", words, pool)
    return None


def _job_lost_interest(loan: NodeLoan, pool: BatchPool, index: Index) -> str:
    slurm, wanted = index.slurm_of(pool.metadata.name), loan.spec.taken_for
    cluster = index.snapshot.clusters.get(pool.spec.slurm_cluster_name)
    if index.terms(pool).preemption == "Never":
        return f"pool {pool.metadata.name} has lending.preemption Never"
    if wanted is None or slurm is None or cluster is None or slurm.observed is None or slurm.observed <= created(loan):
        return ""
    job = slurm.jobs.get(wanted.job_id)
    if job and loan.spec.slurm_node_name in job.nodes:
        # It started as soon as slurmd was there, before the loan could say so.
        return ""
    if job is None or not waits_for_nodes(job, pool, more_partitions(pool, slurm, cluster)):
        return f"job {wanted.job_id} does not wait for nodes any more"
    worth = of_job(job, cluster)
    if worth is None or worth < wanted.priority:
        return f"job {job.job_id} no longer has priority {wanted.priority}"
    return ""


def clear(loan: NodeLoan, node: Node, pool: BatchPool, index: Index) -> Step | None:
    """Evict the GPU pods of others from the fenced node; None when there are none any more."""
    pods, job = index.foreign_gpu_pods(node.name, pool), loan.spec.taken_for
    if not pods or job is None:
        return None
    staying = [pod for pod in pods if not pod.deleting]
    if why := _why_not(node, staying, job.priority):
        return turned_back(loan, "NotEvictable", why, pool)
    limit = index.terms(pool).eviction_seconds
    # Those that are ending were asked in time, and may take as long as that again.
    due = deadline_after(loan, loan.status, index, "Fenced", limit if staying else 2 * limit)
    gang = open_loans(loan, pool, index)
    commands, words = _evictions(gang, job.priority, pool, index)
    if index.now >= due:
        words = words or f"pod {pods[0].key} has not ended"
        return turned_back(loan, EVICTION_REFUSED, f"node {node.name} is not vacant after {limit} s: {words}", pool)
    mine = [command for command in commands if command.loan.metadata.name == loan.metadata.name]
    for_whom = f"job {job.job_id} of priority {job.priority}"
    words = words or f"evicting {', '.join(pod.key for pod in (staying or pods)[:4])} for {for_whom}"
    return Step(waiting(loan.status, words, due), after=[*mine])


def _why_not(node: Node, staying: Sequence[Pod], priority: int) -> str:
    if node.annotations.get(DO_NOT_DISRUPT) == "true":
        return f"node {node.name} carries the annotation {DO_NOT_DISRUPT}"
    return next((why for pod in staying if (why := why_it_stays(pod, priority))), "")


def _evictions(gang: Sequence[NodeLoan], priority: int, pool: BatchPool, index: Index) -> tuple[list[EvictPod], str]:
    """The evictions that may be asked for now on all nodes of the job, or why none.

    All pods that are left must fit the budgets together. While none is ending the first goes alone, and only if the API
    server says that all the others may go, too.
    """
    if index.slurm_of(pool.metadata.name) is None:
        return [], f"Slurm {pool.spec.slurm_cluster_name} does not answer; nobody is evicted without seeing the job"
    staying: list[tuple[NodeLoan, Pod]] = []
    ending = False
    for loan in gang:
        node = index.snapshot.nodes.get(loan.spec.node_name)
        if node is None or node.fence != loan.metadata.name or not loan.status.is_true("Fenced"):
            return [], f"waiting for the fence on node {loan.spec.node_name}: the nodes of a job go together"
        there = index.foreign_gpu_pods(node.name, pool)
        left = sorted((pod for pod in there if not pod.deleting), key=lambda one: one.key)
        if why := _why_not(node, left, priority):
            return [], why
        ending = ending or len(left) < len(there)
        staying += [(loan, pod) for pod in left]
    pods = [pod for _, pod in staying]
    if why := Allowance(index.snapshot.disruption_budgets).take(pods):
        return [], why
    names = tuple(loan.metadata.name for loan in gang)
    if ending:
        return [EvictPod(loan, pod, names, ()) for loan, pod in staying], ""
    return [EvictPod(loan, pod, names, tuple(pods[1:])) for loan, pod in staying[:1]], ""

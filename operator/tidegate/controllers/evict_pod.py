"""Evicting a pod of others for a more important job: the one thing that Tidegate does to work that is not its own."""

from __future__ import annotations

from tidegate.api import Condition, NodeLoan, TakenFor
from tidegate.cluster import views
from tidegate.cluster.errors import NotFound
from tidegate.cluster.kinds import NODE_LOANS, NODES, PODS
from tidegate.controllers import metrics
from tidegate.controllers.events import post
from tidegate.controllers.hands import Hands, NotYet
from tidegate.sharing.commands import EvictPod
from tidegate.sharing.evictions import why_it_stays
from tidegate.sharing.idleness import DO_NOT_DISRUPT
from tidegate.sharing.snapshot import Pod


async def evict_pod(command: EvictPod, hands: Hands) -> None:
    """All that the decision rested on is asked anew at the API server; what budgets say is the server's own answer."""
    loan, job = command.loan, command.loan.spec.taken_for
    if job is None:
        raise NotYet(f"loan {loan.metadata.name} was not taken for a job")
    nodes = await _nodes_of_gang(command, job, hands)
    for other in command.others:
        if await _may_go(other, nodes, job, hands):
            await hands.kube.evict(other.name, other.namespace, other.uid, dry_run=True)
    if not await _may_go(command.pod, nodes, job, hands):
        return
    pod, whom = command.pod, f"Slurm job {job.job_id} of priority {job.priority}"
    await hands.kube.evict(pod.name, pod.namespace, pod.uid)
    metrics.EVICTIONS.labels(loan.spec.pool_name).inc()
    target = {"apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid}
    evicted = Condition(type="Evicted", status="True", reason="Preempted", last_transition_time=hands.clock())
    words = f"Evicted from node {loan.spec.node_name} for {whom}: the pod's priority is {pod.priority}"
    await post(target, evicted, words, hands)


async def _nodes_of_gang(command: EvictPod, job: TakenFor, hands: Hands) -> set[str]:
    """The nodes that the job gets. Raises `NotYet` unless they are those of the decision, and all are fenced."""
    loans = [views.resource(NodeLoan, raw) for raw in await hands.kube.list(NODE_LOANS)]
    ours = {
        loan.metadata.name: loan
        for loan in loans
        if loan.spec.taken_for and loan.spec.taken_for.job_id == job.job_id
        if not loan.is_over and not loan.is_wanted_back and loan.spec.pool_name == command.loan.spec.pool_name
    }
    if set(ours) != set(command.gang) or command.loan.metadata.name not in ours or len(ours) < job.nodes:
        raise NotYet(f"job {job.job_id} has the loans {', '.join(sorted(ours)) or 'none'} now")
    for loan in ours.values():
        node = views.node(await hands.kube.get(NODES, loan.spec.node_name))
        if node.fence != loan.metadata.name:
            raise NotYet(f"node {node.name} does not carry the fence of loan {loan.metadata.name}")
        if node.annotations.get(DO_NOT_DISRUPT) == "true":
            raise NotYet(f"node {node.name} carries the annotation {DO_NOT_DISRUPT}")
    return {loan.spec.node_name for loan in ours.values()}


async def _may_go(pod: Pod, nodes: set[str], job: TakenFor, hands: Hands) -> bool:
    """Whether the pod is there and not ending yet. Raises `NotYet` when it may not be evicted."""
    try:
        live = views.pod(await hands.kube.get(PODS, pod.name, pod.namespace))
    except NotFound:
        return False
    if live is None or live.uid != pod.uid or live.deleting:
        return False
    if live.node not in nodes:
        raise NotYet(f"pod {pod.key} is not on a node that was taken for job {job.job_id}")
    if why := why_it_stays(live, job.priority):
        raise NotYet(why)
    return True

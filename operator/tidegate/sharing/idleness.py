"""When a node may be lent: nobody's GPU pod for long enough, healthy, and not set aside by others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tidegate.api import BatchPool
from tidegate.api.names import FENCE_TAINT, claim_of_fence, slurm_node_name
from tidegate.sharing.budgets import loans_in_window, quarantined_until
from tidegate.sharing.explanation import utc
from tidegate.sharing.fit import could_run, kind_of
from tidegate.sharing.index import Index, extra_of, is_drained_by_others, wants_gpu
from tidegate.sharing.snapshot import Node, Pod, SlurmState, Snapshot, Taint, Toleration

DO_NOT_DISRUPT = "karpenter.sh/do-not-disrupt"


@dataclass(frozen=True, slots=True)
class Blocker:
    """Why a node is not lent: a CamelCase word and a sentence."""

    reason: str
    message: str


def track_idle(previous: Mapping[str, datetime], snapshot: Snapshot, now: datetime) -> dict[str, datetime]:
    """Since when each node has had no GPU pod of others and no claim. Forgetting it (a restart) only delays lending.

    A node that comes back for a claim, or is held for one, is no idle node: a claimant that gives it up and comes again
    soon, time after time, finds it at home and disturbs nobody.
    """
    gpu_names = {name for pool in snapshot.pools for name in pool.spec.gpu_resource_names}
    busy = {
        pod.node
        for pod in snapshot.pods
        if pod.node and pod.loan is None and any(pod.gpus.get(name, 0) for name in gpu_names)
    }
    busy |= {
        loan.spec.node_name for loan in snapshot.loans if not loan.is_over and loan.spec.back and loan.spec.back.claim
    }
    busy |= {node.name for node in snapshot.nodes.values() if node.fence and claim_of_fence(node.fence)}
    return {name: previous.get(name, now) for name in snapshot.nodes if name not in busy}


def template_tolerations(pool: BatchPool) -> tuple[Toleration, ...]:
    """What the pool's slurmd pods tolerate beside the fence, from the pool's template."""
    entries = pool.spec.slurmd.template.get("spec", {}).get("tolerations", [])
    return tuple(
        Toleration(e.get("key", ""), e.get("operator", "Equal"), e.get("value", ""), e.get("effect", ""))
        for e in entries
    )


def set_aside(node: Node, pool: BatchPool) -> Blocker | None:
    """What others did to the node that keeps us off it, whether it is lent or not."""
    if node.deleting:
        return Blocker("NodeDeleting", f"node {node.name} is being deleted")
    if node.unschedulable:
        return Blocker("Cordoned", f"node {node.name} is cordoned; `kubectl uncordon {node.name}` allows lending")
    if not node.ready:
        return Blocker("NotReady", f"node {node.name} is not Ready")
    if any(node.labels.get(key) != value for key, value in pool.spec.node_selector.items()):
        return Blocker(
            "NotSelected", f"node {node.name} no longer has the labels that pool {pool.metadata.name} selects"
        )
    taint = next((t for t in node.taints if _repels(t, pool)), None)
    if taint:
        return Blocker(
            "Tainted",
            f"node {node.name} has the taint {taint.key}:{taint.effect}, which the slurmd template does not tolerate",
        )
    return None


def _repels(taint: Taint, pool: BatchPool) -> bool:
    hard = taint.effect in ("NoSchedule", "NoExecute") and taint.key != FENCE_TAINT
    return hard and not any(t.tolerates(taint) for t in template_tolerations(pool))


def held_by(node: Node, pool: BatchPool, index: Index) -> Blocker | None:
    """Which pod, loan or claim has the node now."""
    if blocker := _spoken_for(node, index):
        return blocker
    pods = [p for p in index.pods_by_node.get(node.name, ()) if p.loan is not None or wants_gpu(p, pool)]
    if pods:
        return Blocker("InUse", f"pod {pods[0].key} holds GPUs of node {node.name}")
    return None


def _spoken_for(node: Node, index: Index) -> Blocker | None:
    if loan := index.active_loans.get(node.name):
        return Blocker("OnLoan", f"node {node.name} is on loan {loan.metadata.name}")
    if node.fence is not None:
        holder = f"claim {claim_of_fence(node.fence)}" if claim_of_fence(node.fence) else f"loan {node.fence}"
        return Blocker("Fenced", f"node {node.name} is held for {holder}")
    return None


def free_nodes(pool: BatchPool, index: Index) -> Sequence[Node]:
    """Nodes of the pool that Kubernetes could use at once: healthy, open, without a GPU pod."""
    return index.once(_free_nodes, pool.metadata.name)


def _free_nodes(pool_name: str, index: Index) -> list[Node]:
    nodes, pool = index.nodes_of_pool[pool_name], index.pools[pool_name]
    return [n for n in nodes if held_by(n, pool, index) is None and set_aside(n, pool) is None]


def lend_blocker(node: Node, pool: BatchPool, index: Index, slurm: SlurmState) -> Blocker | None:
    """The first reason why the node may not be lent now, or None when it may."""
    return (
        kubernetes_blocker(node, pool, index)
        or _not_idle_long_enough(node, pool, index)
        or _taken_in_slurm(node, slurm)
    )


def kubernetes_blocker(node: Node, pool: BatchPool, index: Index) -> Blocker | None:
    """The first reason that the API server alone can tell, to those who see neither Slurm nor how long nodes idle."""
    return (
        set_aside(node, pool)
        or _protected(node)
        or held_by(node, pool, index)
        or _promised_or_quarantined(node, pool, index)
    )


def lasting_blocker(node: Node, pool: BatchPool, index: Index, slurm: SlurmState) -> Blocker | None:
    """The first reason that neither the end of an earlier loan nor some idle seconds take away."""
    return (
        set_aside(node, pool)
        or _protected(node)
        or _promised_or_quarantined(node, pool, index)
        or _taken_in_slurm(node, slurm)
    )


def blocker_beside_pods(node: Node, pool: BatchPool, index: Index, slurm: SlurmState) -> Blocker | None:
    """The first reason why the node may not be lent that has nothing to do with pods of others."""
    return (
        set_aside(node, pool)
        or _protected(node)
        or _spoken_for(node, index)
        or _named_like_another(node, pool, index)
        or _flapping(node, pool, index)
        or _taken_in_slurm(node, slurm)
    )


def _promised_or_quarantined(node: Node, pool: BatchPool, index: Index) -> Blocker | None:
    return (
        _wanted_by_pending_pod(node, pool, index)
        or _named_like_another(node, pool, index)
        or _flapping(node, pool, index)
    )


def _protected(node: Node) -> Blocker | None:
    if node.annotations.get(DO_NOT_DISRUPT) != "true":
        return None
    return Blocker("DoNotDisrupt", f"node {node.name} carries the annotation {DO_NOT_DISRUPT}")


def _not_idle_long_enough(node: Node, pool: BatchPool, index: Index) -> Blocker | None:
    since = index.snapshot.idle_since.get(node.name, index.now)
    if index.now - since >= timedelta(seconds=index.terms(pool).idle_seconds):
        return None
    return Blocker(
        "RecentlyUsed",
        f"node {node.name} counts as idle after {index.terms(pool).idle_seconds} s without GPU pods and claims",
    )


def _wanted_by_pending_pod(node: Node, pool: BatchPool, index: Index) -> Blocker | None:
    for pod in index.once(_kinds_waiting, pool.metadata.name):
        if could_run(pod, node, index):
            return Blocker("PendingPod", f"pending pod {pod.key} could run on node {node.name}")
    return None


def _kinds_waiting(pool_name: str, index: Index) -> list[Pod]:
    """One pod of each kind that waits for GPUs of the pool."""
    waiting = sorted(index.waiting_pods, key=lambda pod: pod.key)
    return list({kind_of(pod): pod for pod in waiting if wants_gpu(pod, index.pools[pool_name])}.values())


def _named_like_another(node: Node, pool: BatchPool, index: Index) -> Blocker | None:
    cluster, name = pool.spec.slurm_cluster_name, slurm_node_name(node.name)
    others = [other for other in index.nodes_by_slurm_name.get((cluster, name), ()) if other != node.name]
    if not others:
        return None
    return Blocker(
        "SlurmNameTaken",
        f"nodes {node.name} and {others[0]} would both be {name} in Slurm {cluster}; take one of them out of its pool",
    )


def _taken_in_slurm(node: Node, slurm: SlurmState) -> Blocker | None:
    record = slurm.nodes.get(slurm_node_name(node.name))
    if record is None:
        return None
    if not record.extra.startswith(extra_of("")):
        return Blocker(
            "SlurmNameTaken",
            f"Slurm has a node {record.name} that is not Tidegate's; rename it or take {node.name} out of the pool",
        )
    if is_drained_by_others(record):
        return Blocker(
            "DrainedByOthers",
            f"Slurm node {record.name} was drained by somebody else ({record.reason or 'no reason given'}); "
            f"`scontrol delete nodename={record.name}` when it may be lent again",
        )
    return None


def _flapping(node: Node, pool: BatchPool, index: Index) -> Blocker | None:
    budget = index.terms(pool).flap_budget
    until = quarantined_until(node.name, pool, index)
    if until is None:
        return None
    return Blocker(
        "FlapBudget",
        f"node {node.name} was lent {loans_in_window(node.name, pool, index)} times within {budget.window_seconds} s, "
        f"the pool's flapBudget allows {budget.loans}; it is quarantined until {utc(until)}",
    )

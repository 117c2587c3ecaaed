"""Who owns a node, why, and why it is not lent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

from tidegate.api import BatchPool
from tidegate.api.names import FENCE_TAINT, claim_of_fence, slurm_node_name
from tidegate.sharing.budgets import loans_in_window
from tidegate.sharing.explain_claims import end_of_hold
from tidegate.sharing.explain_loans import last_loan, on_loan, why_back
from tidegate.sharing.explanation import (
    MOST,
    NOT_SEEN,
    Explanation,
    Facts,
    given,
    key_of,
    listed,
    reasoned,
    unknown,
    utc,
)
from tidegate.sharing.idleness import Blocker, free_nodes, kubernetes_blocker, lend_blocker
from tidegate.sharing.index import Index, gpu_resource, gpus_of
from tidegate.sharing.lending import allowed, stopped
from tidegate.sharing.snapshot import Node


def explain_nodes(names: Iterable[str], index: Index) -> list[Explanation]:
    """Explain nodes, and those that are gone but still on loan. Raises `UnknownObjectError`."""
    blocker_of = cache(lambda pool_name: pool_blocker(index.pools[pool_name], index))
    return [_explain_node(name, blocker_of, index) for name in names]


def _explain_node(name: str, blocker_of: Callable[[str], Blocker | None], index: Index) -> Explanation:
    node = index.snapshot.nodes.get(name)
    if loan := index.active_loans.get(name):
        return on_loan(f"node {name}", loan, index)
    if node is None:
        raise unknown("node", name, index.snapshot.nodes)
    if node.fence is not None:
        claim_uid = claim_of_fence(node.fence)
        return _on_claim(node, claim_uid, index) if claim_uid else _behind_old_fence(node, node.fence, index)
    pool = index.pools.get(index.pool_of_node.get(name, ""))
    if pool is None or not gpus_of(node, pool):
        return _outside(node, pool, index)
    slurm = index.slurm_of(pool.metadata.name)
    blocker = lend_blocker(node, pool, index, slurm) if slurm else kubernetes_blocker(node, pool, index)
    blocker = blocker or blocker_of(pool.metadata.name) or (None if slurm else _kept_in_slurm(node, index))
    return _at_home(node, pool, blocker, index)


def _on_claim(node: Node, claim_uid: str, index: Index) -> Explanation:
    claim = index.live_claims.get(claim_uid)
    if claim is None:
        owner, because = f"claim {claim_uid}", f"it was held for the claim with UID {claim_uid}, which is over or gone"
        return _node(node, owner, because, "the fence is taken off", "", index)
    satisfied = claim.status.condition("Satisfied")
    waits = satisfied.message if satisfied and satisfied.status == "False" else ""
    because = f"it is held for claim {key_of(claim)}; only the pods of that claim may come"
    return _node(node, f"claim {key_of(claim)}", because, end_of_hold(claim), waits, index)


def _behind_old_fence(node: Node, loan_name: str, index: Index) -> Explanation:
    loan = next((loan for loan in index.snapshot.loans if loan.metadata.name == loan_name), None)
    because = f"its fence names loan {loan_name}, which " + ("is over" if loan else "does not exist")
    if loan and loan.spec.pool_name in index.pools:
        return _node(node, "Kubernetes", because, "the fence is taken off", "", index)
    words = f"pool {loan.spec.pool_name} does not exist" if loan else "nobody knows what the loan left there"
    way_out = f"when nothing runs there, `kubectl taint nodes {node.name} {FENCE_TAINT}-` opens it"
    return _node(node, "Kubernetes", because, way_out, words, index)


def _outside(node: Node, pool: BatchPool | None, index: Index) -> Explanation:
    if pool:
        wanted = ", ".join(pool.spec.gpu_resource_names)
        because = f"pool {pool.metadata.name} selects it, but only nodes with GPUs are lent"
        words = f"it has none of {wanted}"
        return _node(
            node, "Kubernetes", because, "check its device plugin or the pool's gpuResourceNames", words, index
        )
    if not index.pools:
        return _node(node, "Kubernetes", "there is no BatchPool", "make a BatchPool that selects it", "", index)
    missing = {name: _labels_lacking(node, pool) for name, pool in index.pools.items()}
    nearest = min(missing, key=lambda name: (len(missing[name]), name))
    labels = " ".join(f"{key}={value}" for key, value in missing[nearest].items())
    way_out = f"`kubectl label --overwrite node {node.name} {labels}` puts it into pool {nearest}"
    lacks = "; ".join(_lacks(node, name, wanted) for name, wanted in sorted(missing.items())[:MOST])
    return _node(node, "Kubernetes", "no pool selects it", way_out, lacks, index)


def _labels_lacking(node: Node, pool: BatchPool) -> dict[str, str]:
    return {k: v for k, v in sorted(pool.spec.node_selector.items()) if node.labels.get(k) != v}


def _lacks(node: Node, pool_name: str, wanted: dict[str, str]) -> str:
    labels = ", ".join(
        f"{k}={v} ({f'it has {node.labels[k]}' if k in node.labels else 'absent'})" for k, v in wanted.items()
    )
    return f"for pool {pool_name} it lacks {labels}"


def _at_home(node: Node, pool: BatchPool, blocker: Blocker | None, index: Index) -> Explanation:
    idle = index.terms(pool).idle_seconds
    since = index.snapshot.idle_since.get(node.name)
    if pods := index.foreign_gpu_pods(node.name, pool):
        because = f"GPU pods are on it: {listed(pod.key for pod in pods)}"
    else:
        because = f"no GPU pod is on it{f' since {utc(since)}' if since else ''}, and it is not lent"
    next_step = (
        _way_out(blocker, node, pool, index) if blocker else f"it is lent when no GPU pod was on it for {idle} s"
    )
    words = reasoned(blocker.reason, blocker.message) if blocker else ""
    return _node(node, "Kubernetes", because, next_step, words, index)


def _kept_in_slurm(node: Node, index: Index) -> Blocker | None:
    """What the last loan learned of the node's record in Slurm, for those who cannot see Slurm."""
    loan = last_loan(node.name, index)
    if loan is None:
        return None
    recalled, left = loan.status.condition("Recalled"), loan.status.condition("Left")
    if left and left.reason == "RecordKept":
        return Blocker("DrainedByOthers", f"loan {loan.metadata.name} ended with: {left.message}")
    if recalled and recalled.reason in ("DrainedByOthers", "SlurmNameTaken"):
        return Blocker(recalled.reason, f"loan {loan.metadata.name} ended with: {recalled.message}")
    return None


def _way_out(blocker: Blocker, node: Node, pool: BatchPool, index: Index) -> str:
    lending = index.terms(pool)
    match blocker.reason:
        case "NodeDeleting":
            return "it leaves the cluster"
        case "NotReady":
            return "it can be lent when its kubelet says Ready again"
        case "Tainted":
            return f"take the taint off, or let slurmd.template of pool {pool.metadata.name} tolerate it"
        case "DoNotDisrupt":
            return "it can be lent when the annotation is taken off"
        case "InUse":
            return f"it can be lent {lending.idle_seconds} s after its last GPU pod has ended"
        case "PendingPod":
            return "kube-scheduler binds the pod; when it does not want the node, the node can be lent"
        case "FlapBudget":
            return f"`tidegate node release {node.name}` lets it be lent before that, so does a larger flapBudget"
        case "DrainedByOthers":
            return f"`scontrol delete nodename={slurm_node_name(node.name)}` in Slurm lets it be lent again"
        case "NoDemand":
            return f"it is lent when a pending job of partition {pool.spec.partition} can use it"
        case _:
            return "it can be lent when that is over"


def _node(node: Node, owner: str, because: str, next_step: str, blocked_by: str, index: Index) -> Explanation:
    pool = index.pools.get(index.pool_of_node.get(node.name, ""))
    last = last_loan(node.name, index)
    returned = last.status.since("Returned") if last else None
    return Explanation(
        f"node {node.name}", owner, returned, because, next_step, blocked_by, _node_facts(node, pool, index)
    )


def _node_facts(node: Node, pool: BatchPool | None, index: Index) -> Facts:
    if pool is None:
        return ()
    budget = index.terms(pool).flap_budget
    resource, last = gpu_resource(node, pool), last_loan(node.name, index)
    others = [name for name, other in index.pools.items() if other != pool and not _labels_lacking(node, other)]
    recent = (
        f"{loans_in_window(node.name, pool, index)} within {budget.window_seconds} s, flapBudget allows {budget.loans}"
    )
    return given(
        ("pool", pool.metadata.name),
        ("GPUs", f"{node.gpus[resource]} {resource}" if resource else ""),
        ("loans", recent),
        ("would be in Slurm", _since_when_recommended(node.name, pool)),
        ("last loan", f"{last.metadata.name}, {why_back(last)}" if last else ""),
        ("also selected by", f"{listed(others)}; the oldest pool has it" if others else ""),
    )


def _since_when_recommended(name: str, pool: BatchPool) -> str:
    there = pool.status.recommended.nodes if pool.status.recommended else ()
    since = next((one.since for one in there if one.name == name), None)
    return f"since {utc(since)}, if the pool did not only recommend" if since else ""


def pool_blocker(pool: BatchPool, index: Index) -> Blocker | None:
    """What keeps the pool as a whole from lending one more node."""
    if stop := stopped(pool, index):
        return stop
    ready = pool.status.condition("Ready")
    if ready is None:
        return Blocker("NotSeen", f"pool {pool.metadata.name}: {NOT_SEEN}")
    if ready.status != "True":
        return Blocker(ready.reason, ready.message or f"pool {pool.metadata.name} is not Ready")
    limits = allowed(pool, index, len(free_nodes(pool, index)), pool.status.demand_nodes, pool.status.startable_nodes)
    return next((blocker for nodes, blocker in limits if nodes <= 0), None)

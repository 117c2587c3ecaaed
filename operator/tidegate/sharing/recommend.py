"""What a pool with `mode: Recommend` would do: everything is decided as if it were done, and nothing is done.

The nodes that would be Slurm's are listed in the pool's status. For each decision a world is imagined in which they
are lent (loan, fence, slurmd, an idle record in Slurm) and the pool enforces. What is decided there changes the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

from tidegate.api import (
    LEND_STEPS,
    MOST_RECOMMENDED,
    BatchPool,
    CapacityClaim,
    Condition,
    Metadata,
    NodeLoan,
    NodeLoanStatus,
    Recommended,
    RecommendedNode,
)
from tidegate.api.names import API_VERSION, FENCE_TAINT, LOAN_LABEL, RETURN_FINALIZER
from tidegate.sharing.commands import Advice, Command, CreateLoan, HoldNode, RecallLoan, WriteClaimStatus
from tidegate.sharing.explanation import listed
from tidegate.sharing.fit import could_run
from tidegate.sharing.idleness import free_nodes, kubernetes_blocker
from tidegate.sharing.index import Index, extra_of
from tidegate.sharing.lend_steps import offer
from tidegate.sharing.lending import new_loan, obtainable, wanted
from tidegate.sharing.needs import coming_loans, held_nodes, lacking
from tidegate.sharing.snapshot import Node, Owner, Pod, SlurmNode, Snapshot, Taint

COUNT_SECONDS = 60
"""How often the node-seconds are brought up to date while nothing else changes: each time is a write."""

C = TypeVar("C")


def recommends(pool: BatchPool) -> bool:
    """Whether the pool shall touch nothing."""
    return pool.spec.mode == "Recommend"


def has_begun(claim: CapacityClaim, index: Index) -> bool:
    """Whether the claim has nodes or gets them: then it is seen through to its end."""
    return bool(held_nodes(claim, index) or coming_loans(claim, index))


def may_begin(commands: Iterable[C], index: Index) -> list[C]:
    """The commands without those of pools that only recommend."""
    return [command for command in commands if not _is_recommended(command, index)]


def _is_recommended(command: Any, index: Index) -> bool:
    """By whatever the command names: a pool, a loan, a claim, a specification, a node, a claim's UID."""
    owner = getattr(command, "loan", None) or getattr(command, "claim", None) or command
    spec, node = getattr(owner, "spec", None), getattr(command, "node", None)
    if pool := getattr(command, "pool", None):
        name: str | None = pool.metadata.name
    elif spec is not None:
        name = spec.pool_name
    elif node is not None:
        name = index.pool_of_node.get(node.name)
    else:
        claim = index.live_claims.get(getattr(command, "claim_uid", ""))
        name = claim.spec.pool_name if claim else None
    found = index.pools.get(name) if name else None
    return found is not None and recommends(found)


@dataclass(frozen=True, slots=True)
class Shadow:
    """What is left of the nodes that a pool would have lent, before anything new is decided."""

    pool: BatchPool
    nodes: tuple[RecommendedNode, ...]
    loans: tuple[NodeLoan, ...]
    """The imagined loans of these nodes."""
    gone: tuple[Advice, ...]
    """Those that cannot be lent any more by what really happened."""


def imagine(index: Index) -> tuple[Snapshot, list[Shadow]]:
    """The world as it would be if the pools that recommend had done so, and what of it they remember."""
    world = replace(index.snapshot, pools=tuple(_enforcing(pool) for pool in index.snapshot.pools))
    shadows = []
    for pool in filter(recommends, index.pools.values()):
        nodes, gone = _still_there(pool, index)
        loans = tuple(_imagined_loan(node, pool, index) for node in nodes)
        world = _lent(world, pool, loans, index)
        shadows.append(Shadow(pool, nodes, loans, gone))
    imagined = Index(world, index.now)
    shadows = [_with_use(shadow, imagined) for shadow in shadows]
    for shadow in shadows:
        world = _idling(world, shadow)
    return world, shadows


def _enforcing(pool: BatchPool) -> BatchPool:
    if not recommends(pool):
        return pool
    finalizers = (*pool.metadata.finalizers, RETURN_FINALIZER)
    return pool.model_copy(
        update={
            "spec": pool.spec.model_copy(update={"mode": "Enforce"}),
            "metadata": pool.metadata.model_copy(update={"finalizers": finalizers}),
        }
    )


def _still_there(pool: BatchPool, index: Index) -> tuple[tuple[RecommendedNode, ...], tuple[Advice, ...]]:
    """Nodes that may go on being thought lent, and the end of the others.

    kube-scheduler does not know of our thoughts: a pod may come onto a node that would be fenced although others are
    free. It would have taken one of these then, and so the thought moves there.
    """
    listed_nodes = pool.status.recommended.nodes if pool.status.recommended else ()
    names = {one.name for one in listed_nodes}
    here = {node.name: node for node in index.nodes_of_pool[pool.metadata.name]}
    others = [n for n in free_nodes(pool, index) if n.name not in names and not kubernetes_blocker(n, pool, index)]
    nodes, gone = [], []
    for one in listed_nodes:
        node = here.get(one.name)
        if node is None:
            gone.append(Advice("Recall", one.name, "NodeLost", f"node {one.name} left the pool"))
        elif node.fence is not None or node.name in index.active_loans:
            gone.append(Advice("Recall", one.name, "NodeTaken", f"node {one.name} is on loan or held"))
        elif pods := index.foreign_gpu_pods(one.name, pool):
            other = next((n for n in others if all(could_run(pod, n, index) for pod in pods)), None)
            if other is None:
                gone.append(Advice("Recall", one.name, "PodCame", f"pod {pods[0].key} came onto it"))
            else:
                others.remove(other)
                nodes.append(one.model_copy(update={"name": other.name}))
        else:
            nodes.append(one)
    return tuple(nodes), tuple(gone)


def _imagined_loan(one: RecommendedNode, pool: BatchPool, index: Index) -> NodeLoan:
    wish = new_loan(index.snapshot.nodes[one.name], pool, index)
    done = tuple(
        Condition(type=step, status="True", reason="Imagined", last_transition_time=one.since) for step in LEND_STEPS
    )
    return NodeLoan(
        metadata=Metadata(name=wish.name, uid=wish.name, creation_timestamp=one.since, finalizers=(RETURN_FINALIZER,)),
        spec=wish.spec,
        status=NodeLoanStatus(state=LEND_STEPS[-1], conditions=done),
    )


def _lent(world: Snapshot, pool: BatchPool, loans: Sequence[NodeLoan], index: Index) -> Snapshot:
    """The world with these loans, each with its fence and its slurmd, and an idle record of it in Slurm."""
    nodes = {loan.spec.node_name: _fenced(world.nodes[loan.spec.node_name], loan.metadata.name) for loan in loans}
    world = replace(
        world,
        nodes={**world.nodes, **nodes},
        pods=(*world.pods, *(_slurmd(loan, index) for loan in loans)),
        loans=(*world.loans, *loans),
    )
    name = pool.spec.slurm_cluster_name
    state = world.slurm.get(name)
    if state is None:
        return world
    records = {loan.spec.slurm_node_name: _record(loan, pool, index) for loan in loans}
    return replace(world, slurm={**world.slurm, name: replace(state, nodes={**state.nodes, **records})})


def _fenced(node: Node, loan_name: str) -> Node:
    taints = (*node.taints, Taint(FENCE_TAINT, loan_name, "NoSchedule"))
    return replace(node, taints=taints, labels={**node.labels, LOAN_LABEL: loan_name})


def _slurmd(loan: NodeLoan, index: Index) -> Pod:
    name = f"slurmd-{loan.metadata.name}"
    return Pod(
        namespace="",
        name=name,
        uid=name,
        node=loan.spec.node_name,
        phase="Running",
        gpus={loan.spec.gpu_resource_name: loan.spec.gpus},
        cpu_millis=0,
        memory_mib=0,
        priority=0,
        priority_class_name="",
        owner=Owner(API_VERSION, "NodeLoan", loan.metadata.name, loan.metadata.uid),
        labels={LOAN_LABEL: loan.metadata.name},
        annotations={},
        tolerations=(),
        node_selector={},
        required_affinity=(),
        unschedulable=False,
        gated=False,
        created=index.now,
        deleting=False,
    )


def _record(loan: NodeLoan, pool: BatchPool, index: Index) -> SlurmNode:
    cpus, memory_mib = offer(index.snapshot.nodes[loan.spec.node_name], index)
    return SlurmNode(
        name=loan.spec.slurm_node_name,
        states=frozenset({"IDLE", "DYNAMIC_NORM"}),
        extra=extra_of(loan.metadata.name),
        features=pool.spec.features,
        partitions=(pool.spec.partition,),
        gpus=loan.spec.gpus,
        cpus=cpus,
        memory_mib=memory_mib,
        last_busy=index.now,
    )


def _with_use(shadow: Shadow, imagined: Index) -> Shadow:
    """The shadow with a mark on each node that no pending job could use; unchanged while Slurm cannot be seen."""
    pool, count = imagined.pools[shadow.pool.metadata.name], len(shadow.loans)
    slurm, terms = imagined.slurm_of(pool.metadata.name), imagined.terms(pool)
    if slurm is None or not count:
        return shadow
    useful = count
    if terms.policy == "DemandDriven":
        most = count + obtainable(pool, slurm, imagined, soon=True)
        useful = max(wanted(pool, slurm, imagined, most, but_for=shadow.loans), terms.floor)
    by_name = sorted(shadow.nodes, key=lambda one: one.name)
    kept = {one.name for one in by_name[:useful]}
    nodes = tuple(
        one.model_copy(update={"useless_since": None if one.name in kept else one.useless_since or imagined.now})
        for one in shadow.nodes
    )
    return replace(shadow, nodes=nodes)


def _idling(world: Snapshot, shadow: Shadow) -> Snapshot:
    name = shadow.pool.spec.slurm_cluster_name
    state = world.slurm.get(name)
    if state is None:
        return world
    records = dict(state.nodes)
    for one, loan in zip(shadow.nodes, shadow.loans, strict=True):
        if one.useless_since:
            record = records[loan.spec.slurm_node_name]
            records[record.name] = replace(record, last_busy=one.useless_since)
    return replace(world, slurm={**world.slurm, name: replace(state, nodes=records)})


def advise(shadow: Shadow, as_if: Iterable[Command], index: Index) -> tuple[Recommended, tuple[Advice, ...]]:
    """The pool's next list, and what changes in it, by what was decided in the imagined world."""
    pool, before = shadow.pool, shadow.pool.status.recommended
    known = {loan.metadata.name for loan in shadow.loans}
    recalls, lends = list(shadow.gone), []
    for command in as_if:
        if isinstance(command, RecallLoan) and command.loan.metadata.name in known:
            back = command.back
            recalls.append(Advice("Recall", command.loan.spec.node_name, back.reason, back.message))
        if isinstance(command, CreateLoan) and command.spec.pool_name == pool.metadata.name:
            node = command.spec.node_name
            # One with pods on it would be emptied first, which is nothing that can be imagined from here on.
            if not index.foreign_gpu_pods(node, pool):
                lends.append(Advice("Lend", node, *_why_lent(pool, index)))
    left = {advice.node for advice in recalls}
    staying = [one for one in shadow.nodes if one.name not in left]
    lends = lends[: MOST_RECOMMENDED - len(staying)]
    nodes = (*staying, *(RecommendedNode(name=advice.node, since=index.now) for advice in lends))
    nodes = tuple(sorted(nodes, key=lambda one: one.name))
    if before is None:
        before = Recommended(since=index.now, counted_until=index.now)
    totals = {"lends": before.lends + len(lends), "recalls": before.recalls + len(recalls)}
    after = before.model_copy(update={"nodes": nodes, **totals})
    passed = index.now - before.counted_until
    if lends or recalls or (before.nodes and passed >= timedelta(seconds=COUNT_SECONDS)):
        seconds = round(len(before.nodes) * max(passed.total_seconds(), 0))
        after = after.model_copy(update={"node_seconds": before.node_seconds + seconds, "counted_until": index.now})
    return after, (*recalls, *lends)


def _why_lent(pool: BatchPool, index: Index) -> tuple[str, str]:
    if index.terms(pool).policy == "Eager":
        return "Idle", f"it is idle, and pool {pool.metadata.name} is Eager"
    return "Demand", f"pending jobs of partition {pool.spec.partition} could use it"


def words_for_claims(as_if: Iterable[Command], index: Index) -> dict[str, str]:
    """What would be done for each claim on a pool that recommends, by UID; nothing of those that lack nothing."""
    holds: dict[str, list[str]] = {}
    recalls: dict[str, list[str]] = {}
    said: dict[str, str] = {}
    for command in as_if:
        if isinstance(command, HoldNode):
            holds.setdefault(command.claim_uid, []).append(command.node.name)
        elif isinstance(command, RecallLoan) and command.back.claim:
            recalls.setdefault(command.back.claim.uid, []).append(command.loan.spec.node_name)
        elif isinstance(command, WriteClaimStatus) and (condition := command.status.condition("Satisfied")):
            said[command.claim.metadata.uid] = condition.message
    words = {}
    for uid, claim in index.live_claims.items():
        pool = index.pools.get(claim.spec.pool_name)
        if pool is None or not recommends(pool) or _gets_all(claim, pool, index):
            continue
        deeds = [f"hold {listed(holds[uid])}"] if uid in holds else []
        deeds += [f"take back {listed(recalls[uid])}"] if uid in recalls else []
        would = f"would {' and '.join(deeds)} for it" if deeds else f"could do nothing for it: {said.get(uid, '')}"
        words[uid] = f"pool {pool.metadata.name} has mode Recommend and touches nothing; it {would}"
    return words


def _gets_all(claim: CapacityClaim, pool: BatchPool, index: Index) -> bool:
    return has_begun(claim, index) and (bool(coming_loans(claim, index)) or lacking(claim, pool, index) <= 0)

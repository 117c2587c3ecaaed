"""How a pool and a Slurm cluster stand: the status that people and the other decisions read."""

from __future__ import annotations

from typing import Literal

from tidegate.api import (
    MOST_QUARANTINED,
    BatchPool,
    BatchPoolStatus,
    NodeCounts,
    NodeLoan,
    Quarantine,
    Recommended,
    SlurmCluster,
    SlurmClusterStatus,
)
from tidegate.api.names import claim_of_fence
from tidegate.sharing.budgets import counted_loans, quarantined_until
from tidegate.sharing.commands import Advice, Command, WriteClusterStatus, WritePoolStatus
from tidegate.sharing.idleness import Blocker
from tidegate.sharing.index import Index
from tidegate.sharing.lending import demand, startable
from tidegate.sharing.windows import unreadable

URGENT = "UrgentServed"
"""Condition of a pool with `lending.preemption`: whether no job that may take nodes lacks any."""


def write_pool_status(
    pool: BatchPool,
    index: Index,
    urgent: Blocker | None = None,
    recommended: Recommended | None = None,
    advice: tuple[Advice, ...] = (),
) -> list[Command]:
    """Nodes by owner, demand, and whether the pool can work, said in one sentence; what it would do if it only says.

    `urgent` tells of the most important job that may take nodes and lacks some.
    """
    slurm = index.slurm_of(pool.metadata.name)
    ready, reason, message = _pool_ready(pool, index)
    generation = pool.metadata.generation or None
    quarantined = _quarantined(pool, index)
    status = BatchPoolStatus(
        observed_generation=generation,
        conditions=pool.status.conditions,
        nodes=_count(pool, {one.node for one in quarantined}, index),
        quarantined=quarantined[:MOST_QUARANTINED],
        demand_nodes=demand(pool, slurm, index) if slurm else 0,
        startable_nodes=startable(pool, index) if slurm else 0,
        window=index.open_windows[pool.metadata.name],
        recommended=recommended,
    ).with_condition(index.now, "Ready", ready, reason, message, generation)
    overlap = index.overlap(pool)
    others = ", ".join(f"{node} ({owner})" for node, owner in sorted(overlap.items())[:8])
    words = (
        f"older pools have these nodes: {others}; make the nodeSelectors differ"
        if overlap
        else "no other pool selects its nodes"
    )
    status = status.with_condition(
        index.now, "Exclusive", not overlap, "NodesOfOtherPool" if overlap else "NoOverlap", words, generation
    )
    if pool.spec.lending.windows or status.condition("WindowsReadable"):
        wrong = unreadable(pool.spec.lending.windows, index.now)
        words = f"{'; '.join(wrong)}: until then the window does not open" if wrong else ""
        reason = "WindowUnreadable" if wrong else "Readable"
        status = status.with_condition(index.now, "WindowsReadable", not wrong, reason, words, generation)
    if index.terms(pool).preemption == "Never" or pool.spec.mode == "Recommend":
        kept = tuple(one for one in status.conditions if one.type != URGENT)
        status = status.model_copy(update={"conditions": kept})
    elif slurm:
        said = urgent or Blocker("NoneWaits", "no job that may take nodes lacks any")
        status = status.with_condition(index.now, URGENT, urgent is None, said.reason, said.message, generation)
    return [WritePoolStatus(pool, status, advice)] if status != pool.status else []


def _pool_ready(pool: BatchPool, index: Index) -> tuple[bool, str, str]:
    name = pool.spec.slurm_cluster_name
    cluster = index.snapshot.clusters.get(name)
    if cluster is None:
        known = ", ".join(sorted(index.snapshot.clusters)) or "(there is none yet)"
        return (
            False,
            "SlurmClusterNotFound",
            f"SlurmCluster {name} does not exist; set slurmClusterName to one of {known}",
        )
    slurm = index.slurm_of(pool.metadata.name)
    if slurm is None:
        state = index.snapshot.slurm.get(name)
        words = state.error if state and state.error else f"SlurmCluster {name} has not answered lately"
        return False, "SlurmNotReady", words
    if pool.spec.partition not in slurm.partitions:
        known = ", ".join(sorted(slurm.partitions))
        return False, "PartitionNotFound", f"Slurm {name} has no partition {pool.spec.partition}; it has {known}"
    selector = ",".join(f"{k}={v}" for k, v in sorted(pool.spec.node_selector.items()))
    selected = [n for n, p in index.pool_of_node.items() if p == pool.metadata.name]
    if not selected and not index.overlap(pool):
        return False, "NoNodes", f"no node has the labels {selector}; label nodes or change nodeSelector"
    if not index.nodes_of_pool[pool.metadata.name]:
        wanted = ", ".join(pool.spec.gpu_resource_names)
        return False, "NoGpus", f"no node of the pool has any of {wanted}; check the device plugin or gpuResourceNames"
    if problem := index.snapshot.template_problems.get(pool.metadata.name):
        return False, "TemplateUnusable", problem
    if pool.spec.stop_policy != "None":
        return True, "Stopped", f"stopPolicy is {pool.spec.stop_policy}"
    if pool.spec.mode == "Recommend":
        return True, "Recommending", "mode is Recommend: nothing is touched, see status.recommended and the events"
    return True, "Working", ""


def _quarantined(pool: BatchPool, index: Index) -> tuple[Quarantine, ...]:
    """Nodes that are not on loan and may not be lent again so soon, by name."""
    found: list[Quarantine] = []
    for node in index.nodes_of_pool[pool.metadata.name]:
        if node.name in index.active_loans or (until := quarantined_until(node.name, pool, index)) is None:
            continue
        recalled = counted_loans(node.name, pool, index)[-1].status.condition("Recalled")
        found.append(Quarantine(node=node.name, until=until, reason=recalled.reason if recalled else "Unknown"))
    return tuple(found)


def _count(pool: BatchPool, quarantined: set[str], index: Index) -> NodeCounts:
    counts = dict.fromkeys(NodeCounts.model_fields, 0)
    for node in index.nodes_of_pool[pool.metadata.name]:
        loan = index.active_loans.get(node.name)
        if loan is None:
            held = node.fence and claim_of_fence(node.fence)
            counts["claimed" if held else "quarantined" if node.name in quarantined else "kubernetes"] += 1
        else:
            counts[stage(loan)] += 1
    return NodeCounts(**counts)


def stage(loan: NodeLoan) -> Literal["joining", "lent", "returning"]:
    """Where a loan that is not over is on its trip."""
    if loan.is_wanted_back:
        return "returning"
    return "lent" if loan.status.is_true("Lent") else "joining"


def write_cluster_status(cluster: SlurmCluster, index: Index) -> list[Command]:
    """Whether Slurm answers, and what it can do."""
    state = index.snapshot.slurm.get(cluster.metadata.name)
    if state is None or (state.observed is None and not state.error):
        return []
    generation = cluster.metadata.generation or None
    status = SlurmClusterStatus(
        observed_generation=generation,
        conditions=cluster.status.conditions,
        release=state.release or cluster.status.release,
        data_parser=state.data_parser or cluster.status.data_parser,
        capabilities=tuple(sorted(state.capabilities)) or cluster.status.capabilities,
    )
    if state.error:
        status = status.with_condition(
            index.now, "Ready", False, state.reason or "Unreachable", state.error, generation
        )
    else:
        words = f"Slurm {state.release} answers by {state.data_parser}"
        status = status.with_condition(index.now, "Ready", True, "Answering", words, generation)
    return [WriteClusterStatus(cluster, status)] if status != cluster.status else []

"""Crowded worlds for property tests: nodes full of pods, urgent jobs that want them, and takings half done."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.sharing.build import (
    FENCED,
    LENT,
    VACATED,
    ago,
    back_for,
    budget,
    claim,
    cluster,
    job,
    lent_node,
    loan,
    node,
    pod,
    pool,
    slurm,
    slurm_node,
    slurmd,
    snapshot,
)
from tidegate.api import TakenFor
from tidegate.sharing.snapshot import Snapshot

OWNERS = ("web", "api")
PRIORITIES = (
    {"qos": "urgent", "priority": 5000},
    {"qos": "high", "priority": 2000},
    {"partition": "express", "priority": 9},
)
rarely = st.integers(0, 9).map(lambda n: n == 0)


@st.composite
def crowds(draw: st.DrawFn) -> Snapshot:
    """Five nodes at most of a pool that lets them be taken; jobs of mapped priorities wait."""
    lending = {
        "preemption": "LowerPriority",
        "evictionSeconds": draw(st.sampled_from([40, 300])),
        "cap": draw(st.sampled_from([None, None, 2])),
        "maxJoining": draw(st.sampled_from([2, 10])),
        "headroom": {"high": draw(st.integers(0, 1))},
        "kubernetes": {"floor": draw(st.sampled_from([0, 0, 2]))},
    }
    things: list[Any] = [cluster(priorities=PRIORITIES), pool(lending=lending)]
    records: list[Any] = []
    for number in range(draw(st.integers(1, 5))):
        things += draw(_nodes(f"gpu-{number}", records))
    things += [budget(owner, allowed=draw(st.integers(0, 2)), app=owner) for owner in OWNERS if draw(st.booleans())]
    if draw(rarely):
        things.append(pod("waits", priority=draw(st.sampled_from([0, 9000]))))
    if draw(rarely):
        things.append(claim("c1", priority_class_name=draw(st.sampled_from(["low", "top"]))))
    records += [draw(_jobs(number)) for number in range(1, draw(st.integers(2, 4)))]
    idle = {thing.name: ago(draw(st.sampled_from([1, 5000]))) for thing in things if hasattr(thing, "taints")}
    state = slurm(*records, node_sets={"lent": "lent", "express": "lent"})
    return snapshot(*things, state, idle_since=idle, priority_classes={"top": 8000})


@st.composite
def _nodes(draw: st.DrawFn, name: str, records: list[Any]) -> list[Any]:
    """A node as it is at home, or at any point of a trip for a job."""
    protected = {"karpenter.sh/do-not-disrupt": "true"} if draw(rarely) else {}
    done = draw(st.sampled_from([None, None, None, (), FENCED, FENCED, VACATED, LENT]))
    there: list[Any] = [
        draw(_pods(f"p-{name}-{number}", name)) for number in range(draw(st.sampled_from([0, 1, 1, 2])))
    ]
    if done is None:
        return [node(name, annotations=protected), *there]
    taken = TakenFor(job_id=draw(st.integers(1, 3)), priority=draw(st.sampled_from([5000, 2000])),
                     nodes=draw(st.sampled_from([1, 1, 2])))  # fmt: skip
    back = back_for(reason="EvictionRefused") if draw(rarely) else None
    trip = loan(
        name, done=done, taken_for=taken, created=ago(100), since=ago(draw(st.sampled_from([5, 50]))), back=back
    )
    if done == LENT:
        records.append(slurm_node(name))
    home = node(name) if done == () else lent_node(name, annotations=protected)
    return [home, trip, *([slurmd(trip.metadata.name, on=name)] if done == LENT else there)]


@st.composite
def _pods(draw: st.DrawFn, name: str, on: str) -> Any:
    owner = draw(st.sampled_from(OWNERS))
    return pod(
        name,
        on=on,
        gpus=4,
        owner=owner,
        owner_kind="DaemonSet" if draw(rarely) else "ReplicaSet",
        labels={"app": owner},
        priority=draw(st.sampled_from([0, 0, 1000, 2000, 5000])),
        annotations={"karpenter.sh/do-not-disrupt": "true"} if draw(rarely) else {},
        deleting=draw(rarely),
        grace_seconds=draw(st.sampled_from([30, 30, 60])),
        created=ago(draw(st.sampled_from([60, 600]))),
    )


@st.composite
def _jobs(draw: st.DrawFn, job_id: int) -> Any:
    nodes = draw(st.sampled_from([1, 1, 2, 3]))
    return job(
        job_id,
        gpus=8 * nodes,
        node_count=nodes,
        qos=draw(st.sampled_from(["urgent", "urgent", "high", "normal"])),
        partitions=draw(st.sampled_from([("lent",), ("lent",), ("express",)])),
        reason=draw(st.sampled_from(["Resources", "Resources", "Priority", "JobHeldUser"])),
        eligible_time=draw(st.sampled_from([None, ago(2), ago(500)])),
        array_tasks=draw(st.sampled_from([1, 1, 3])),
    )

"""Worlds of all kinds for property tests: what the operator may meet, the unlikely and the half-done included."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from tests.sharing.build import (
    CLEAN,
    DRAINED,
    FENCED,
    LEFT,
    LENT,
    NOW,
    RECALLED,
    RETURNED,
    VACATED,
    ago,
    back_for,
    budget,
    claim,
    cluster,
    job,
    loan,
    node,
    pod,
    pool,
    slurm,
    slurm_node,
    slurmd,
    snapshot,
)
from tests.sharing.services import served
from tidegate.api import CapacityClaimStatus, Condition, Recommended, RecommendedNode, TakenFor, TouchedJob
from tidegate.api.names import AUTOMATIC_LABEL, claim_fence
from tidegate.sharing.snapshot import Owner, Part, PodsNearby, SlurmReservation, SlurmState, Snapshot, Spread, Taint

NODE_NAMES = ("gpu-1", "gpu-2", "gpu-3", "gpu-4")
CLAIM_NAMES = ("c1", "c2", "auto-web", "auto-api")
OWNERS = ("web", "api")
PRIORITIES = (
    (),
    ({"qos": "urgent", "priority": 500}, {"partition": "express", "priority": 2000}),
    ({"qos": "urgent", "priority": -300},),
)
TAKERS = st.builds(
    TakenFor, job_id=st.integers(1, 4), priority=st.sampled_from([500, 2000]), nodes=st.sampled_from([1, 1, 2])
)
SECONDS = st.sampled_from([0, 1, 29, 30, 31, 60, 95, 130, 400, 4000])
BACK_STEPS = (
    (*VACATED, "Recalled"),
    ("Recalled",),
    (*FENCED, "Recalled"),
    RECALLED,
    DRAINED,
    LEFT,
    CLEAN,
)
EACH_ALONE = PodsNearby("zone", (), ("team",))
SITE = Owner("apps/v1", "Deployment", "site", "uid-site")
sometimes = st.integers(0, 7).map(lambda n: n == 0)


@st.composite
def worlds(draw: st.DrawFn) -> Snapshot:
    """Four nodes at most, each at any point of any trip, with pods, claims, jobs and troubles."""
    things: list[Any] = [draw(_pools())]
    if draw(sometimes):
        things.append(draw(_pools("young")))
    priorities = draw(st.sampled_from(PRIORITIES))
    things.append(cluster("other" if draw(sometimes) else "slurm", priorities=priorities))
    things += [budget(owner, allowed=draw(st.integers(0, 2)), app=owner) for owner in OWNERS if draw(sometimes)]
    records: list[Any] = []
    for name in NODE_NAMES[: draw(st.integers(0, 4))]:
        things += draw(_node_with_trip(name, records))
    for number in range(draw(st.integers(0, 4))):
        things.append(draw(_pending_pod(number)))
    for name in CLAIM_NAMES:
        if draw(st.integers(0, 2)) == 0:
            things.append(draw(_claims(name)))
    parts: dict[str, Part] = {}
    if draw(sometimes):
        more, parts = draw(served())
        things += more
    records += [draw(_jobs(number + 1)) for number in range(draw(st.integers(0, 4)))]
    if draw(sometimes):
        records.append(draw(_reservations()))
    things.append(draw(_slurm(records)))
    nodes = [thing.name for thing in things if hasattr(thing, "taints")]
    idle = {name: ago(draw(SECONDS)) for name in nodes if not draw(sometimes)}
    owners = {"uid-web": draw(st.sampled_from([(), (), (SITE,)])), "uid-api": draw(st.sampled_from([(), (SITE,)]))}
    said = draw(st.sampled_from([{}, {}, {AUTOMATIC_LABEL: "false"}]))
    waiting = {f"uid-w{number}": ago(draw(st.sampled_from([0, 0.1, 1, 60]))) for number in range(4)}
    return snapshot(
        *things, idle_since=idle, owners=owners, namespaces={"team": said}, waiting_since=waiting, parts=parts
    )


@st.composite
def _pools(draw: st.DrawFn, name: str = "batch") -> Any:
    low = draw(st.integers(0, 2))
    return pool(
        name,
        lending={
            "policy": draw(st.sampled_from(["Eager", "DemandDriven"])),
            "idleSeconds": 30,
            "floor": 0,
            "cap": draw(st.sampled_from([None, 0, 1, 2, 3])),
            "headroom": {"low": low, "high": low + draw(st.integers(0, 1))},
            "maxJoining": draw(st.integers(1, 3)),
            "joinSeconds": 100,
            "flapBudget": {"loans": draw(st.integers(1, 3)), "windowSeconds": 600},
            "kubernetes": draw(_kubernetes_sides()),
            "windows": draw(st.lists(_windows(), max_size=2)) if draw(sometimes) else [],
            "preemption": draw(st.sampled_from(["Never", "LowerPriority"])),
            "evictionSeconds": draw(st.sampled_from([30, 100])),
        },
        recall={
            "automaticClass": draw(st.sampled_from(["graceful", "quick", "fast"])),
            "nonRequeueableJobs": draw(st.sampled_from(["Protect", "Cancel"])),
            "nonRequeueableSeconds": draw(st.sampled_from([50, 5000])),
            "fast": {"minimumPriority": draw(st.sampled_from([-1000, 1001]))},
            "victimPolicy": draw(st.sampled_from(["LeastLostWork", "NewestFirst", "LowestPriority", "Spread"])),
            "protection": {
                "minimumRunSeconds": draw(st.sampled_from([0, 0, 60])),
                "afterRestarts": draw(st.sampled_from([1, 3])),
                "protectedSeconds": draw(st.sampled_from([0, 100, 14400])),
            },
        },
        claims={
            "automatic": draw(st.sampled_from(["OptOut", "OptOut", "OptIn"])),
            "quotas": draw(st.sampled_from([[], [], [{"nodes": 2}], [{"namespace": "team", "nodes": 3}]])),
        },
        guarded=not draw(sometimes),
        mode="Recommend" if (recommends := draw(sometimes)) else "Enforce",
        recommended=draw(_thoughts()) if recommends else None,
        deleted=NOW if draw(sometimes) else None,
        created=ago(100_000 if name == "batch" else 50_000),
        stopPolicy=draw(st.sampled_from(["None", "None", "None", "Hold", "HoldAndDrain"])),
        historyLimit=draw(st.sampled_from([0, 1, 50])),
        slurmClusterName=draw(st.sampled_from(["slurm", "slurm", "slurm", "slurm", "other"])),
    )


@st.composite
def _thoughts(draw: st.DrawFn) -> Recommended:
    """Nodes that would be lent; some of them are not there or not free any more."""
    names = draw(st.sets(st.sampled_from((*NODE_NAMES, "gone")), max_size=3))
    useless = {name: draw(st.sampled_from([None, 0, 59, 400])) for name in sorted(names)}
    nodes = tuple(
        RecommendedNode(name=name, since=ago(4000), useless_since=None if since is None else ago(since))
        for name, since in useless.items()
    )
    return Recommended(since=ago(9000), nodes=nodes, counted_until=ago(draw(SECONDS)))


@st.composite
def _kubernetes_sides(draw: st.DrawFn) -> dict[str, int]:
    floor = draw(st.sampled_from([0, 0, 1, 2]))
    return {"floor": floor, **draw(st.sampled_from([{}, {}, {"cap": floor}, {"cap": floor + 1}]))}


@st.composite
def _windows(draw: st.DrawFn) -> dict[str, Any]:
    """One that is open now, one that is not, or one that nobody can read."""
    replaced: dict[str, Any] = draw(
        st.sampled_from(
            [{"cap": 1}, {"policy": "Eager"}, {"headroom": {"low": 1, "high": 2}}, {"kubernetes": {"floor": 1}}]
        )
    )
    schedule = draw(st.sampled_from(["0 12 * * *", "0 12 * * *", "0 8 * * *", "0 25 * * *"]))
    return {"schedule": schedule, "durationSeconds": draw(st.sampled_from([60, 3600])), **replaced}


@st.composite
def _node_with_trip(draw: st.DrawFn, name: str, records: list[Any]) -> list[Any]:
    """A node with what its last loans left on it, in Kubernetes and in Slurm, not always in step with each other."""
    things: list[Any] = []
    gpus = draw(st.sampled_from([8, 8, 8, 4]))
    for number in range(draw(st.integers(0, 2))):
        past = loan(name, name=f"{name}-{number + 1}", done=RETURNED, created=ago(draw(SECONDS) + 700 * number))
        things.append(past)
    current = f"{name}-{len(things) + 1}"
    fence = label = None
    if draw(st.booleans()):
        back = draw(st.booleans())
        done = draw(st.sampled_from(BACK_STEPS if back else ((), FENCED, VACATED, LENT)))
        target = draw(st.sampled_from(["", "", *CLAIM_NAMES]))
        turning = back or draw(sometimes)
        things.append(
            loan(
                name,
                name=current,
                done=done,
                since=ago(draw(SECONDS)),
                created=ago(4000),
                gpus=gpus,
                back=back_for(target, recall_class=draw(st.sampled_from(["graceful", "quick", "fast"])))
                if turning
                else None,
                priority=draw(st.sampled_from([-100, -100, 0, 1000])),
                taken_for=draw(st.none() | TAKERS),
                deleted=NOW if draw(sometimes) else None,
                jobs=draw(_touched()) if back else (),
            )
        )
        if len(done) > 0 and not draw(sometimes):
            fence, label = current, current if not set(done) & {"Left", "Clean"} else None
        if "Vacated" in done and not set(done) & {"Left", "Clean"} and not draw(sometimes):
            things.append(slurmd(current, on=name, deleting=draw(sometimes)))
        if "Vacated" in done and not draw(sometimes):
            records.append(draw(_records(name, current)))
    if draw(st.integers(0, 3)) == 0:
        claimed = [claim_fence(f"uid-{one}") for one in ("c1", "c1", "c2", "gone")]
        fence = draw(st.sampled_from([*claimed, f"{name}-1", current]))
    if draw(sometimes):
        records.append(draw(_records(name, f"{name}-1")))
    if draw(st.integers(0, 2)) == 0:
        owner, mine = draw(st.sampled_from(["web", "api", ""])), draw(st.sampled_from(["", "c1"]))
        things.append(
            pod(
                f"p-{name}",
                on=name,
                gpus=draw(st.integers(0, 8)),
                owner=owner,
                owner_kind=draw(st.sampled_from(["ReplicaSet", "ReplicaSet", "ReplicaSet", "DaemonSet"])),
                claim=mine,
                labels={"app": owner},
                priority=draw(st.sampled_from([-400, 0, 0, 1000, 2_000_000_000])),
                annotations=draw(st.sampled_from([{}, {}, {}, {"karpenter.sh/do-not-disrupt": "true"}])),
                deleting=draw(sometimes),
                grace_seconds=draw(st.sampled_from([30, 60])),
            )
        )
    if draw(st.integers(0, 15)) != 0:
        things.append(
            node(
                name,
                gpus=gpus,
                fence=fence,
                label=label,
                ready=not draw(sometimes),
                unschedulable=draw(sometimes),
                deleting=draw(sometimes) and draw(sometimes),
                taints=[Taint("site/bad", "", "NoSchedule")] if draw(sometimes) else [],
                annotations=draw(_annotations()),
                labels={"zone": draw(st.sampled_from(["a", "b"]))},
            )
        )
    return things


@st.composite
def _annotations(draw: st.DrawFn) -> dict[str, str]:
    found = {"karpenter.sh/do-not-disrupt": "true"} if draw(sometimes) else {}
    moments = st.sampled_from(
        ["", "soon", ago(-60).isoformat(), *(ago(seconds).isoformat() for seconds in (1, 60, 400))]
    )
    return found | ({"tidegate.dev/released": draw(moments)} if draw(sometimes) else {})


@st.composite
def _touched(draw: st.DrawFn) -> tuple[TouchedJob, ...]:
    actions = draw(
        st.dictionaries(
            st.integers(1, 4),
            st.sampled_from(["Waited", "Signalled", "Requeued", "Cancelled", "EndedByDown"]),
            max_size=3,
        )
    )
    return tuple(
        TouchedJob.model_validate(
            {
                "job_id": one,
                "action": action,
                "time": ago(draw(SECONDS)),
                "requeueable": action != "Cancelled",
                "user": draw(st.sampled_from(["", "ada", "bob"])),
            }
        )
        for one, action in actions.items()
    )


@st.composite
def _records(draw: st.DrawFn, name: str, owner: str) -> Any:
    states = draw(
        st.sampled_from(
            [
                ("IDLE",),
                ("IDLE",),
                ("IDLE", "DRAIN"),
                ("MIXED",),
                ("ALLOCATED", "DRAIN"),
                ("IDLE", "COMPLETING", "DRAIN"),
                ("DOWN",),
                ("DOWN", "DRAIN"),
                ("IDLE", "INVALID_REG"),
                ("IDLE", "NOT_RESPONDING"),
            ]
        )
    )
    return slurm_node(
        name,
        *states,
        loan=owner,
        extra="theirs" if draw(sometimes) else None,
        reason=draw(st.sampled_from(["tidegate: Claimed", "tidegate: Claimed", "bad fan"]))
        if "DRAIN" in states
        else "",
        gpus=draw(st.sampled_from([8, 8, 8, 4])),
        last_busy=ago(draw(SECONDS)),
    )


@st.composite
def _jobs(draw: st.DrawFn, job_id: int) -> Any:
    on = draw(st.sampled_from(["", ("gpu-1",), ("gpu-2",), ("gpu-1", "gpu-2"), ("gpu-3",), ("gpu-4",)]))
    return job(
        job_id,
        on=on,
        states=draw(st.sampled_from([(), (), ("COMPLETING",), ("SUSPENDED",)])) if on else (),
        gpus=draw(st.sampled_from([1, 8, 16])),
        started=ago(draw(SECONDS)) if on else None,
        requeueable=draw(st.booleans()),
        comment=draw(st.sampled_from(["", "tidegate:signal=USR1", "tidegate:checkpoint=2026-11-21T11:59:30Z"])),
        restarts=draw(st.sampled_from([0, 0, 1, 3])),
        user=draw(st.sampled_from(["ada", "bob"])),
        reason=draw(st.sampled_from(["", "Resources", "JobHeldUser"])),
        exclusive=draw(st.booleans()),
        time_limit_seconds=draw(st.sampled_from([None, 60, 2000])),
        qos=draw(st.sampled_from(["normal", "urgent"])),
        partitions=draw(st.sampled_from([("lent",), ("lent",), ("express",), ("lent", "express")])),
        node_count=1 if on else draw(st.sampled_from([1, 1, 2])),
        eligible_time=draw(st.sampled_from([None, ago(2), ago(500)])),
        array_tasks=1 if on else draw(st.sampled_from([1, 3])),
        end_time=ago(draw(SECONDS)) if draw(sometimes) else None,
    )


@st.composite
def _reservations(draw: st.DrawFn) -> SlurmReservation:
    return SlurmReservation(
        draw(st.sampled_from(["tidegate-uid-c1", "tidegate-uid-gone"])),
        tuple(sorted(draw(st.sets(st.sampled_from(NODE_NAMES), min_size=1)))),
        ago(draw(st.sampled_from([-900, -30, 30]))),
        ago(-4000),
    )


@st.composite
def _pending_pod(draw: st.DrawFn, number: int) -> Any:
    return pod(
        f"w{number}",
        owner=draw(st.sampled_from(["web", "api", "", "other"])),
        gpus=draw(st.sampled_from([0, 1, 4, 8, 9])),
        unschedulable=draw(st.booleans()),
        gated=draw(sometimes),
        deleting=draw(sometimes),
        claim=draw(st.sampled_from(["", "", "c1"])),
        node_selector=draw(st.sampled_from([{}, {}, {"zone": "a"}])),
        labels=draw(st.sampled_from([{}, {}, {}, {AUTOMATIC_LABEL: "true"}, {AUTOMATIC_LABEL: "false"}])),
        apart=(EACH_ALONE,) if draw(sometimes) else (),
        spread=(Spread(EACH_ALONE, 1),) if draw(sometimes) else (),
    )


@st.composite
def _claims(draw: st.DrawFn, name: str) -> Any:
    holder = name.removeprefix("auto-") if name.startswith("auto-") else ""
    start = None if holder else draw(st.sampled_from([None, None, None, -5000, -60, 10, 600]))
    status = draw(
        st.sampled_from(
            [
                *(None, None, None, None),
                ("Satisfied", "Served"),
                ("Expired", "TimeToLive"),
                ("Satisfied", "Held"),
                ("Gathering", "NodesMissing"),
            ]
        )
    )
    conditions = (
        (Condition(type=status[0], status="True", reason=status[1], last_transition_time=ago(draw(SECONDS))),)
        if status
        else ()
    )
    return claim(
        name,
        nodes=draw(st.integers(1, 5)),
        gpus=None if holder else draw(st.sampled_from([None, None, 1, 12, 16])),
        node_selector={} if holder else draw(st.sampled_from([{}, {}, {"zone": "a"}])),
        gang=not holder and draw(st.booleans()),
        gather_seconds=draw(st.sampled_from([30, 900])),
        duration_seconds=draw(st.sampled_from([None, None, 60])) if start is None else 500,
        pool_name=draw(st.sampled_from(["batch", "batch", "batch", "nosuch"])),
        priority_class_name=draw(st.sampled_from(["high", "high", "low", None, "nosuch"])),
        recall_class=draw(st.sampled_from(["graceful", "quick", "fast"])),
        ttl_seconds=draw(st.sampled_from([None, None, 10, 1000])) if start is None else None,
        start_time=None if start is None else ago(start),
        holder=holder,
        automatic=bool(holder),
        created=ago(draw(SECONDS)),
        deleted=NOW if draw(sometimes) else None,
        status=CapacityClaimStatus(
            conditions=conditions, started=ago(draw(SECONDS)) if status and status[0] != "Gathering" else None
        ),
    )


@st.composite
def _slurm(draw: st.DrawFn, parts: list[Any]) -> SlurmState:
    state = slurm(
        *parts,
        capabilities=draw(st.sampled_from([("requeue", "reservation"), ("requeue",), ()])),
        partitions=draw(st.sampled_from([("lent",), ("lent",), ("lent",), ("cpu",)])),
        node_sets={"lent": "lent", "express": "lent"},
        observed=draw(st.sampled_from([NOW, NOW, NOW, NOW, ago(300), None])),
    )
    return replace(state, error="no route to host", reason="Unreachable") if draw(sometimes) else state

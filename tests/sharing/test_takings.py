"""Urgent jobs take nodes from less important pods: which, how many, and when not; and what becomes of those loans."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.sharing.build import (
    FENCED,
    NOW,
    VACATED,
    ago,
    back_for,
    budget,
    claim,
    claimed_node,
    cluster,
    decided,
    index,
    job,
    lent_node,
    loan,
    node,
    one,
    only,
    pod,
    pool,
    slurm,
    slurm_node,
    slurmd,
)
from tidegate.api import BatchPool, TakenFor
from tidegate.sharing.commands import (
    ConfirmVacated,
    CreateLoan,
    EvictPod,
    RecallLoan,
    WriteLoanStatus,
    WritePoolStatus,
)
from tidegate.sharing.explain import explain
from tidegate.sharing.takings import LOWEST, handover_gain

PRIORITIES = ({"qos": "urgent", "priority": 5000}, {"partition": "express", "priority": 3000})
SITE = cluster(priorities=PRIORITIES)


def taking(lending: dict[str, Any] | None = None, **spec: Any) -> BatchPool:
    """A pool whose nodes may be taken."""
    return pool(lending={"preemption": "LowerPriority", "idleSeconds": 600, **(lending or {})}, **spec)


def urgent(job_id: int = 7, **more: Any) -> Any:
    """A job that may take nodes and has waited for a while."""
    return job(job_id, **{"qos": "urgent", "reason": "Resources", "eligible_time": ago(60), **more})


def busy(*numbers: int, **more: Any) -> list[Any]:
    """Nodes with a pod each that takes all GPUs."""
    return [
        thing
        for n in numbers
        for thing in (node(f"gpu-{n}"), pod(f"web-{n}", on=f"gpu-{n}", gpus=8, owner="web", labels={"a": "b"}, **more))
    ]


def taken(*things: Any, **more: Any) -> list[str]:
    """The nodes that are taken in that world, in the order of the loans."""
    loans = only(decided(SITE, *things, **more), CreateLoan)
    return [one.spec.node_name for one in loans if one.spec.taken_for]


def said(*things: Any) -> tuple[str, str, str]:
    """What the pool says of urgent jobs."""
    condition = one(decided(SITE, *things), WritePoolStatus).status.condition("UrgentServed")
    assert condition is not None
    return condition.status, condition.reason, condition.message


def test_a_pending_urgent_job_takes_the_node_of_a_less_important_pod() -> None:
    (create,) = only(decided(SITE, taking(), *busy(1), slurm(urgent())), CreateLoan)
    assert create.spec.taken_for == TakenFor(job_id=7, priority=5000, nodes=1)
    assert (create.name, create.spec.priority) == ("gpu-1-1", -100)


@pytest.mark.parametrize(
    ("world", "why"),
    [
        ([pool(), *busy(1), slurm(urgent())], "the pool does not allow it"),
        ([taking(), *busy(1), slurm(urgent(qos="normal"))], "its QOS is not on the line"),
        ([taking(), *busy(1), slurm(urgent(eligible_time=ago(1)))], "Slurm may start it by its own means"),
        ([taking(), *busy(1), slurm(urgent(reason="JobHeldUser"))], "it does not wait for nodes"),
        ([taking(), *busy(1), slurm(urgent(gpus=9))], "it fits no node"),
        ([taking(), *busy(1), slurm(urgent(), observed=ago(300))], "Slurm is silent"),
        ([taking(), *busy(1), slurm(urgent(), slurm_node("other"))], "a node is free in Slurm"),
        ([taking(guarded=False), *busy(1), slurm(urgent())], "the pool has no finalizer yet"),
        ([taking(stopPolicy="Hold"), *busy(1), slurm(urgent())], "the pool is stopped"),
        ([taking({"cap": 0}), *busy(1), slurm(urgent())], "the cap"),
        ([taking({"maxJoining": 1}), *busy(1, 2), slurm(urgent(gpus=16, node_count=2))], "maxJoining"),
        ([taking(), *busy(1, priority=5000), slurm(urgent())], "the pod is as important"),
        ([taking(), *busy(1, annotations={"karpenter.sh/do-not-disrupt": "true"}), slurm(urgent())], "protected pod"),
        ([taking(), *busy(1, grace_seconds=301), slurm(urgent())], "it ends too slowly"),
        ([taking(), *busy(1), budget(a="b"), slurm(urgent())], "a budget"),
        (
            [taking(), *busy(1, 2), budget(allowed=1, a="b"), slurm(urgent(gpus=16, node_count=2))],
            "a budget over both nodes",
        ),
        ([taking(), *busy(1), slurm(urgent(gpus=16, node_count=2))], "half of its nodes are not enough"),
        ([taking(), node(annotations={"karpenter.sh/do-not-disrupt": "true"}), slurm(urgent())], "protected node"),
        ([taking(), claimed_node(), claim(), slurm(urgent())], "it is held for a claim"),
        ([taking(), *busy(1), pod("w", priority=5000), slurm(urgent())], "an important pod waits for it"),
        ([taking(), *busy(1), claim(priority_class_name="top"), slurm(urgent())], "an important claim waits for it"),
        (
            [taking({"flapBudget": {"loans": 1}}), *busy(1), loan(done=("Fenced", "Returned"), created=ago(100)),
             slurm(urgent())],
            "its flap budget is spent",
        ),
        ([taking({"headroom": {"high": 1}}), node(), slurm(urgent())], "the only free node is headroom"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_no_node_is_taken(world: list[Any], why: str) -> None:
    idle = {"gpu-1": ago(5)}
    assert taken(*world, priority_classes={"top": 5000}, idle_since=idle) == [], why


@pytest.mark.parametrize(
    "also",
    [
        [pod("w", priority=4999)],
        [pod("w", priority=9000, gpus=9)],
        [pod("w", priority=9000, gpus=0)],
        [claim(priority_class_name="high")],
        [budget(allowed=1, a="b")],
        [budget(allowed=0, a="c")],
    ],
)
def test_what_is_less_important_or_could_not_use_the_node_is_not_in_the_way(also: list[Any]) -> None:
    world = [taking(), *busy(1), slurm(urgent()), *also]
    assert taken(*world, priority_classes={"top": 5000}) == ["gpu-1"]


def test_a_free_node_that_has_not_idled_for_long_is_taken_before_one_with_pods() -> None:
    world = [taking(), *busy(1), node("gpu-2"), slurm(urgent())]
    assert taken(*world, idle_since={"gpu-2": ago(5)}) == ["gpu-2"]
    assert taken(*world, idle_since={"gpu-2": ago(5000)}) == [], "it is lent like any idle node"


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        ({"priority": 10}, {"priority": 20}, "gpu-1"),
        ({"priority": 20}, {"priority": 10}, "gpu-2"),
        ({"created": ago(50)}, {"created": ago(900)}, "gpu-1"),
        ({"created": ago(900)}, {"created": ago(50)}, "gpu-2"),
        ({}, {}, "gpu-1"),
    ],
)
def test_the_least_important_then_the_youngest_pod_loses_its_node(first: Any, second: Any, chosen: str) -> None:
    assert taken(taking(), *busy(1, **first), *busy(2, **second), slurm(urgent())) == [chosen]


def test_a_node_that_failed_to_join_is_taken_last() -> None:
    failed = loan("gpu-1", done=("Fenced", "Vacated", "Recalled", "Returned"), created=ago(400))
    assert taken(taking(), *busy(1, priority=10), *busy(2, priority=20), failed, slurm(urgent())) == ["gpu-2"]
    assert taken(taking(), *busy(1, priority=10), failed, slurm(urgent())) == ["gpu-1"]


def test_one_pod_loses_its_node_rather_than_two() -> None:
    two = [node("gpu-1"), *(pod(f"a-{n}", on="gpu-1", gpus=4) for n in range(2))]
    assert taken(taking(), *two, *busy(2), slurm(urgent())) == ["gpu-2"]


def test_the_more_important_job_gets_the_node_and_the_other_says_what_it_lacks() -> None:
    world = [taking(), *busy(1, priority=100), slurm(urgent(7), urgent(9, partitions=("lent", "express"), qos=""))]
    (create,) = only(decided(SITE, *world), CreateLoan)
    assert create.spec.taken_for == TakenFor(job_id=7, priority=5000, nodes=1)
    assert said(*world) == ("False", "Taking", "taking gpu-1 for job 7 of priority 5000")


def test_jobs_of_a_mapped_partition_over_the_same_node_sets_take_nodes_too() -> None:
    express = urgent(partitions=("express",), qos="normal")
    world = [taking(), *busy(1)]
    assert taken(*world, slurm(express, node_sets={"lent": "lent", "express": "lent,more"})) == ["gpu-1"]
    assert taken(*world, slurm(express, node_sets={"lent": "lent", "express": "cpu"})) == []
    assert taken(*world, slurm(express)) == []


def test_a_gang_takes_what_it_lacks_beside_what_is_lent_anyway() -> None:
    world = [taking(), *busy(1, 2, 3), node("gpu-4"), slurm(urgent(gpus=24, node_count=3))]
    assert taken(*world) == ["gpu-1", "gpu-2"]
    for create in only(decided(SITE, *world), CreateLoan):
        assert create.spec.taken_for is None or create.spec.taken_for.nodes == 2


def test_an_array_takes_the_nodes_of_one_task_at_a_time() -> None:
    assert len(taken(taking(), *busy(1, 2, 3), slurm(urgent(array_tasks=3)))) == 1


FOR_7 = TakenFor(job_id=7, priority=5000, nodes=1)
PAIR = TakenFor(job_id=7, priority=5000, nodes=2)


@pytest.mark.parametrize(
    ("standing", "reason"),
    [
        ([lent_node(), loan(done=FENCED, taken_for=FOR_7)], "NoneWaits"),
        # Another job was faster: job 7 has its node, and takes no second one.
        (
            [lent_node(), slurmd(), loan(taken_for=FOR_7), slurm_node("gpu-1", "ALLOCATED", gpus_used=8),
             job(8, on="gpu-1")],
            "Taken",
        ),
        (
            [node(), loan(done=("Recalled", "Returned"), taken_for=FOR_7, created=ago(400),
                          back=back_for(reason="EvictionRefused")), pod("p", on="gpu-1", priority=9000)],
            "EvictionRefused",
        ),
    ],
)  # fmt: skip
def test_a_job_takes_no_more_nodes_than_it_needs(standing: list[Any], reason: str) -> None:
    parts = [thing for thing in standing if type(thing).__name__ in ("SlurmNode", "SlurmJob")]
    world = [taking(), *busy(2), *(thing for thing in standing if thing not in parts), slurm(urgent(), *parts)]
    assert taken(*world) == []
    assert said(*world)[1] == reason


def test_the_pool_says_what_is_in_the_way() -> None:
    world = [taking(), *busy(1, priority=9000), *busy(2), budget(a="b"), slurm(urgent())]
    assert said(*world) == (
        "False",
        "TooFewToTake",
        "job 7 of priority 5000 lacks 1 nodes and could take 0: pod team/web-1 has priority 9000, which is not below "
        "5000 (on node gpu-1); PodDisruptionBudget team/web does not allow the eviction of pod team/web-2 now",
    )
    assert said(taking(), *busy(1), slurm()) == ("True", "NoneWaits", "no job that may take nodes lacks any")
    quiet = one(decided(SITE, pool(), *busy(1), slurm(urgent())), WritePoolStatus)
    assert quiet.status.condition("UrgentServed") is None


# --- from the fence to the last pod


def on_its_way(*numbers: int, job: TakenFor = FOR_7, done: tuple[str, ...] = FENCED, **pods: Any) -> list[Any]:
    """Nodes that were taken for job 7, fenced, with their pods."""
    return [
        thing
        for n in numbers
        for thing in (
            lent_node(f"gpu-{n}"),
            loan(f"gpu-{n}", done=done, taken_for=job, shown=5000, created=ago(20)),
            pod(f"web-{n}", on=f"gpu-{n}", gpus=8, owner="web", labels={"a": "b"}, **pods),
        )
    ]


def test_the_pod_of_a_fenced_node_is_evicted_and_the_loan_says_so() -> None:
    commands = decided(SITE, taking(), *on_its_way(1), slurm(urgent()))
    evict = one(commands, EvictPod)
    assert (evict.pod.name, evict.gang, evict.others) == ("web-1", ("gpu-1-1",), ())
    status = one(commands, WriteLoanStatus).status
    assert status.message == "evicting team/web-1 for job 7 of priority 5000"
    assert status.deadline == ago(10) + timedelta(seconds=300)


def test_when_the_pods_are_gone_the_loan_goes_on_like_any_other() -> None:
    things = [thing for thing in on_its_way(1) if getattr(thing, "name", "") != "web-1"]
    commands = decided(SITE, taking(), *things, slurm(urgent()))
    assert one(commands, ConfirmVacated).loan.metadata.name == "gpu-1-1"


def test_a_pod_that_is_ending_is_waited_for() -> None:
    commands = decided(SITE, taking(), *on_its_way(1, deleting=True), slurm(urgent()))
    assert not only(commands, EvictPod)
    assert not only(commands, RecallLoan)


def test_the_first_pod_of_a_gang_goes_alone_and_the_others_when_it_is_ending() -> None:
    pair = urgent(gpus=16, node_count=2)
    commands = decided(SITE, taking(), *on_its_way(1, 2, job=PAIR), slurm(pair))
    evict = one(commands, EvictPod)
    assert (evict.pod.name, [pod.name for pod in evict.others]) == ("web-1", ["web-2"])
    first_goes = [*on_its_way(1, job=PAIR, deleting=True), *on_its_way(2, job=PAIR)]
    evict = one(decided(SITE, taking(), *first_goes, slurm(pair)), EvictPod)
    assert (evict.pod.name, evict.others) == ("web-2", ())


@pytest.mark.parametrize(
    "second",
    [
        [node("gpu-2"), loan("gpu-2", done=(), taken_for=PAIR, created=ago(20))],
        on_its_way(2, job=PAIR, priority=9000),
        [*on_its_way(2, job=PAIR), budget(allowed=1, a="b")],
    ],
    ids=["not fenced", "not evictable", "beyond the budget"],
)
def test_no_pod_of_a_gang_goes_before_all_may(second: list[Any]) -> None:
    pair = urgent(gpus=16, node_count=2)
    assert not only(decided(SITE, taking(), *on_its_way(1, job=PAIR), *second, slurm(pair)), EvictPod)


def test_nobody_is_evicted_while_slurm_is_silent() -> None:
    commands = decided(SITE, taking(), *on_its_way(1), slurm(urgent(), observed=ago(300)))
    assert not only(commands, EvictPod)
    assert "Slurm slurm does not answer" in one(commands, WriteLoanStatus).status.message


@pytest.mark.parametrize(
    ("world", "reason"),
    [
        ([taking(), *on_its_way(1), slurm()], "NotNeeded"),
        ([taking(), *on_its_way(1), slurm(urgent(reason="JobHeldUser"))], "NotNeeded"),
        ([taking(), *on_its_way(1), slurm(job(7, on="gpu-9", qos="urgent"))], "NotNeeded"),
        ([taking(), *on_its_way(1), slurm(urgent(qos="", partitions=("lent", "express")))], "NotNeeded"),
        ([pool(), *on_its_way(1), slurm(urgent())], "NotNeeded"),
        ([taking(), *on_its_way(1, job=PAIR), slurm(urgent(gpus=16, node_count=2))], "GangBroken"),
        ([taking(), *on_its_way(1, priority=9000), slurm(urgent())], "NotEvictable"),
        ([taking({"evictionSeconds": 9}), *on_its_way(1), budget(a="b"), slurm(urgent())], "EvictionRefused"),
        ([taking({"evictionSeconds": 9}), *on_its_way(1), slurm(urgent())], "EvictionRefused"),
        ([taking({"evictionSeconds": 5}), *on_its_way(1, deleting=True), slurm(urgent())], "EvictionRefused"),
    ],
    ids=["gone", "held", "elsewhere", "demoted", "forbidden", "alone", "risen", "budget", "late", "does not end"],
)
def test_the_node_turns_back(world: list[Any], reason: str) -> None:
    commands = decided(SITE, *world)
    assert one(commands, RecallLoan).back.reason == reason
    assert not only(commands, EvictPod)


def test_of_two_operators_choices_the_younger_turns_back() -> None:
    older, younger = on_its_way(1), on_its_way(2)
    younger[1] = loan("gpu-2", done=FENCED, taken_for=FOR_7, created=ago(15))
    assert one(decided(SITE, taking(), *older, *younger, slurm(urgent())), RecallLoan).loan.spec.node_name == "gpu-2"


@pytest.mark.parametrize(
    "world",
    [
        [*on_its_way(1)[:2], slurm(urgent(), observed=ago(21))],
        [lent_node(), loan(done=VACATED, taken_for=FOR_7), slurmd(), slurm(slurm_node(), job(7, on="gpu-1"))],
        [lent_node(), loan(taken_for=FOR_7), slurmd(), slurm(slurm_node())],
    ],
    ids=["not asked since", "started at once", "lent"],
)
def test_a_loan_is_not_turned_back_for_its_job(world: list[Any]) -> None:
    assert not only(decided(SITE, taking(), *world), RecallLoan)


def test_explain_tells_for_whom_a_node_is_taken_and_what_is_in_the_way() -> None:
    seen = index(SITE, taking(), *on_its_way(1), slurm(urgent()))
    node_said = explain("node", "gpu-1", "", seen)
    assert node_said.because == "pool batch lends it to Slurm for job 7 of priority 5000"
    assert dict(node_said.facts)["taken"] == "for job 7 of priority 5000"
    world = [taking(), *busy(1, priority=9000), slurm(urgent())]
    status = one(decided(SITE, *world), WritePoolStatus).status
    told = index(SITE, world[0].model_copy(update={"status": status}), *world[1:])
    assert dict(explain("pool", "batch", "", told).facts)["UrgentServed"].startswith(
        "False, TooFewToTake: job 7 of priority 5000 lacks 1 nodes and could take 0: pod team/web-1 has priority 9000"
    )


# --- both directions together


def test_those_who_had_to_go_cannot_recall_the_node_before_the_job_is_over() -> None:
    waiting = [pod("w", owner="web", gpus=8, priority=1000, priority_class_name="high"), claim(holder="web",
               automatic=True, name="auto-web")]  # fmt: skip
    there = [lent_node(), slurmd(), loan(taken_for=FOR_7, shown=5000)]
    runs = slurm(slurm_node("gpu-1", "ALLOCATED", gpus_used=8), job(7, on="gpu-1", qos="urgent"))
    assert not only(decided(SITE, taking(), *there, *waiting, runs), RecallLoan)
    over = slurm(slurm_node("gpu-1", last_busy=NOW))
    assert one(decided(SITE, taking(), *there, *waiting, over), RecallLoan).back.reason == "Claimed"


def test_headroom_takes_no_node_back_from_an_urgent_job() -> None:
    lending = {"headroom": {"low": 1, "high": 1}}
    there = [lent_node(), slurmd(), loan()]
    runs = slurm(slurm_node("gpu-1", "ALLOCATED", gpus_used=8), urgent(on="gpu-1"))
    assert not only(decided(SITE, taking(lending), *there, runs), RecallLoan)
    assert one(decided(SITE, pool(lending=lending), *there, runs), RecallLoan).back.reason == "HeadroomLow"


def test_each_hand_over_puts_more_important_work_in_the_place_of_less() -> None:
    seen = index(SITE, taking(), *busy(1, priority=4000), slurm(urgent()))
    (create,) = only(decided(SITE, taking(), *busy(1, priority=4000), slurm(urgent())), CreateLoan)
    assert handover_gain(create, seen) == 1000
    empty = index(SITE, taking(), node(), slurm(urgent()))
    assert handover_gain(create, empty) == 5000 - LOWEST
    world = [lent_node(), slurmd(), loan(), slurm(slurm_node()), claim()]
    assert handover_gain(one(decided(*world), RecallLoan), index(*world)) == 1100
    plain = only(decided(node(), slurm(job())), CreateLoan)
    assert [handover_gain(create, index(node())) for create in plain] == [None]

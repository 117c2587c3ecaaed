"""What a pool says that it would do, and that it does nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.sharing.build import (
    NOW,
    RECALLED,
    ago,
    back_for,
    claim,
    claimed_node,
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
from tidegate.api import BatchPool, BatchPoolStatus, Recommended, RecommendedNode
from tidegate.api.names import RETURN_FINALIZER
from tidegate.sharing.commands import (
    Advice,
    Command,
    CreateClaim,
    CreateLoan,
    FreeNode,
    GuardPool,
    HoldNode,
    RecallLoan,
    TolerateFence,
    WriteClaimStatus,
    WriteClusterStatus,
    WritePoolStatus,
)
from tidegate.sharing.explain import explain

FOUR = [node(f"gpu-{n}") for n in range(1, 5)]


def advisor(*names: str, since: datetime | None = None, useless: datetime | None = None, **spec: Any) -> BatchPool:
    """A pool that recommends, with these nodes lent in its thoughts."""
    nodes = tuple(RecommendedNode(name=name, since=since or ago(500), useless_since=useless) for name in names)
    thoughts = Recommended(since=ago(9000), nodes=nodes, lends=len(names), counted_until=ago(10))
    given = pool(mode="Recommend", guarded=False, **spec)
    return given.model_copy(update={"status": BatchPoolStatus(recommended=thoughts)})


def jobs(count: int, **more: Any) -> Any:
    return slurm(*[job(n) for n in range(1, count + 1)], **more)


def thoughts(commands: Sequence[Command]) -> Recommended:
    status = one(commands, WritePoolStatus).status
    assert status.recommended is not None
    return status.recommended


def names(commands: Sequence[Command]) -> list[str]:
    return [one.name for one in thoughts(commands).nodes]


def advice(commands: Sequence[Command]) -> list[tuple[str, str, str]]:
    return [(one.would, one.node, one.reason) for one in one(commands, WritePoolStatus).advice]


def nothing_but_statuses(commands: Sequence[Command]) -> bool:
    return all(isinstance(c, WritePoolStatus | WriteClaimStatus | WriteClusterStatus) for c in commands)


# --- lending


@pytest.mark.parametrize(
    ("lending", "count"),
    [
        ({}, 2),
        ({"policy": "Eager"}, 4),
        ({"policy": "Eager", "maxJoining": 3}, 3),
        ({"cap": 1}, 1),
        ({"headroom": {"low": 0, "high": 3}}, 1),
        ({"kubernetes": {"floor": 4}}, 0),
        ({"windows": [{"schedule": "0 12 * * *", "durationSeconds": 60, "cap": 0}]}, 0),
        ({"idleSeconds": 86400}, 0),
    ],
)
def test_it_would_lend_what_an_enforcing_pool_lends(lending: dict[str, Any], count: int) -> None:
    commands = decided(*FOUR, jobs(2), pool(mode="Recommend", guarded=False, lending=lending))
    assert len(names(commands)) == thoughts(commands).lends == count
    assert nothing_but_statuses(commands), "no loan, and not even the finalizer"


def test_it_says_which_nodes_and_why() -> None:
    commands = decided(*FOUR, jobs(1), pool(mode="Recommend"))
    assert one(commands, WritePoolStatus).advice == (
        Advice("Lend", "gpu-1", "Demand", "pending jobs of partition lent could use it"),
    )
    commands = decided(node(), pool(mode="Recommend", lending={"policy": "Eager"}))
    assert one(commands, WritePoolStatus).advice[0].message == "it is idle, and pool batch is Eager"


def test_what_it_has_recommended_counts_as_coming() -> None:
    assert names(decided(*FOUR, jobs(2), advisor("gpu-1", "gpu-2"))) == ["gpu-1", "gpu-2"]
    assert names(decided(*FOUR, jobs(3), advisor("gpu-1", "gpu-2"))) == ["gpu-1", "gpu-2", "gpu-3"]


def test_it_stays_silent_while_nothing_changes() -> None:
    said = one(decided(*FOUR, jobs(2), advisor("gpu-1", "gpu-2")), WritePoolStatus).status
    again = advisor().model_copy(update={"status": said})
    assert not only(decided(*FOUR, jobs(2), again), WritePoolStatus)


@pytest.mark.parametrize(("stop", "count"), [("Hold", 1), ("HoldAndDrain", 0)])
def test_a_stopped_pool_would_lend_nothing(stop: str, count: int) -> None:
    commands = decided(*FOUR, jobs(3), advisor("gpu-1", stopPolicy=stop))
    assert len(names(commands)) == count


def test_a_slurm_that_was_not_seen_changes_nothing() -> None:
    silent = slurm(job(1), observed=ago(300))
    assert names(decided(*FOUR, silent, advisor("gpu-1", since=ago(9000)))) == ["gpu-1"]


# --- taking back


def idle_for(seconds: int) -> BatchPool:
    return advisor("gpu-1", "gpu-2", since=ago(9000), useless=ago(seconds))


def test_a_node_that_no_job_could_use_any_more_would_go_home_after_its_time() -> None:
    commands = decided(*FOUR, advisor("gpu-1", "gpu-2", since=ago(9000)))
    assert [one.useless_since for one in thoughts(commands).nodes] == [NOW, NOW]
    assert names(decided(*FOUR, idle_for(59))) == ["gpu-1", "gpu-2"]
    commands = decided(*FOUR, idle_for(60))
    assert names(commands) == []
    assert thoughts(commands).recalls == 2
    assert advice(commands) == [("Recall", "gpu-1", "IdleInSlurm"), ("Recall", "gpu-2", "IdleInSlurm")]


def test_a_job_that_comes_in_time_keeps_its_node() -> None:
    commands = decided(*FOUR, jobs(1), idle_for(59))
    assert [one.useless_since for one in thoughts(commands).nodes] == [None, ago(59)]


def test_its_floor_would_stay() -> None:
    terms = advisor("gpu-1", "gpu-2", since=ago(9000), useless=ago(900), lending={"floor": 1})
    assert names(decided(*FOUR, terms)) == ["gpu-1"]


@pytest.mark.parametrize(
    ("lending", "reason"),
    [
        ({"cap": 1}, "CapLowered"),
        ({"headroom": {"low": 3, "high": 3}}, "HeadroomLow"),
        ({"kubernetes": {"floor": 3}}, "KubernetesFloor"),
        ({"windows": [{"schedule": "0 12 * * *", "durationSeconds": 60, "cap": 1}]}, "CapLowered"),
    ],
)
def test_terms_would_take_nodes_back(lending: dict[str, Any], reason: str) -> None:
    commands = decided(*FOUR, jobs(2), advisor("gpu-1", "gpu-2", lending=lending))
    assert advice(commands) == [("Recall", "gpu-1", reason)]
    assert names(commands) == ["gpu-2"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (node("gpu-1", unschedulable=True), "Cordoned"),
        (node("gpu-1", ready=False), "NotReady"),
        (node("gpu-1", fence="claim_theirs"), "NodeTaken"),
        (node("gpu-1", gpus=0), "NodeLost"),
    ],
)
def test_a_node_that_is_not_there_for_it_any_more_leaves_its_thoughts(changed: Any, reason: str) -> None:
    commands = decided(changed, jobs(1), advisor("gpu-1"))
    assert advice(commands)[:1] == [("Recall", "gpu-1", reason)]
    assert names(commands) == []


def test_a_pod_that_comes_onto_its_last_node_would_have_recalled_it() -> None:
    commands = decided(node("gpu-1"), pod("web", on="gpu-1"), jobs(1), advisor("gpu-1"))
    assert one(commands, WritePoolStatus).advice == (Advice("Recall", "gpu-1", "PodCame", "pod team/web came onto it"),)


def test_a_pod_would_have_taken_a_free_node_so_the_thought_moves_there() -> None:
    commands = decided(node("gpu-1"), node("gpu-2"), pod("web", on="gpu-1"), jobs(1), advisor("gpu-1"))
    assert (names(commands), advice(commands)) == (["gpu-2"], [])
    assert thoughts(commands).nodes[0].since == ago(500)
    small = node("gpu-2", gpus=1)
    assert names(decided(node("gpu-1"), small, pod("web", on="gpu-1", gpus=8), jobs(1), advisor("gpu-1"))) == []


def test_two_pods_need_two_free_nodes() -> None:
    pods = [pod("a", on="gpu-1", gpus=8), pod("b", on="gpu-2", gpus=8)]
    commands = decided(*FOUR[:3], *pods, jobs(2), advisor("gpu-1", "gpu-2"))
    assert (names(commands), advice(commands)) == (["gpu-3"], [("Recall", "gpu-2", "PodCame")])


def test_node_seconds_are_counted_now_and_then_and_with_each_change() -> None:
    later = NOW + timedelta(seconds=49)
    fresh = jobs(2, observed=later)
    assert thoughts(decided(*FOUR, fresh, advisor("gpu-1", "gpu-2"), now=later)).node_seconds == 0
    later = NOW + timedelta(seconds=50)
    found = thoughts(decided(*FOUR, jobs(2, observed=later), advisor("gpu-1", "gpu-2"), now=later))
    assert (found.node_seconds, found.counted_until) == (120, later)
    assert thoughts(decided(*FOUR, jobs(3), advisor("gpu-1", "gpu-2"))).node_seconds == 20


def test_without_a_node_no_time_is_counted() -> None:
    first = one(decided(*FOUR, advisor()), WritePoolStatus).status
    later = NOW + timedelta(seconds=4000)
    again = advisor().model_copy(update={"status": first})
    assert not only(decided(*FOUR, slurm(observed=later), again, now=later), WritePoolStatus)


# --- claims


def said_of_claim(commands: Sequence[Command]) -> tuple[str, str]:
    condition = one(commands, WriteClaimStatus).status.condition("Satisfied")
    assert condition is not None
    return condition.reason, condition.message


PREFIX = "pool batch has mode Recommend and touches nothing; it "


def test_a_claim_is_told_what_would_be_done_for_it() -> None:
    wish = claim(nodes=3)
    commands = decided(*FOUR[:3], jobs(2), advisor("gpu-1", "gpu-2"), wish)
    assert said_of_claim(commands) == ("Recommended", PREFIX + "would hold gpu-3 and take back gpu-1, gpu-2 for it")
    assert advice(commands) == [("Recall", "gpu-1", "Claimed"), ("Recall", "gpu-2", "Claimed")]
    assert nothing_but_statuses(commands)
    after = advisor().model_copy(update={"status": one(commands, WritePoolStatus).status})
    commands = decided(*FOUR[:3], jobs(2), after, wish)
    assert said_of_claim(commands)[1] == PREFIX + "would hold gpu-1, gpu-2, gpu-3 for it"
    assert not only(commands, WritePoolStatus), "what would be held for the claim is not recommended again"


def test_a_claim_of_too_low_a_priority_would_get_nothing() -> None:
    commands = decided(node("gpu-1"), jobs(1), advisor("gpu-1"), claim(priority_class_name="low"))
    words = "could do nothing for it: no loan of pool batch has a priority below -200"
    assert said_of_claim(commands) == ("Recommended", PREFIX + words)
    assert names(commands) == ["gpu-1"]


def test_a_claim_still_expires() -> None:
    commands = decided(*FOUR, advisor(), claim(ttl_seconds=10))
    assert one(commands, WriteClaimStatus).status.is_true("Expired")


def test_pending_pods_get_no_claim_and_no_toleration() -> None:
    waiting = pod("web-1", owner="web", gpus=8)
    commands = decided(lent_node(), loan(), slurmd(), slurm(slurm_node()), waiting, pool(mode="Recommend"))
    assert not only(commands, CreateClaim)
    assert one(commands, RecallLoan).back.claim is None
    named = claim()
    theirs = pod("web-1", claim="c1")
    assert not only(decided(*FOUR, theirs, named, advisor()), TolerateFence)


# --- changing the mode


def test_loans_that_are_out_come_home_by_the_mildest_class() -> None:
    there = [lent_node(), loan(), slurmd(), slurm(slurm_node("gpu-1", "ALLOCATED"), job(1, on="gpu-1"))]
    recall = one(decided(*there, pool(mode="Recommend"), claim()), RecallLoan)
    assert recall.back.to_json() == {
        "reason": "PoolRecommends",
        "message": "pool batch has mode Recommend, so that nothing stays lent",
        "recallClass": "graceful",
    }


def test_the_finalizer_goes_when_the_last_loan_is_home() -> None:
    away = [lent_node(), loan(done=RECALLED), slurmd(), slurm(slurm_node("gpu-1", "IDLE", "DRAIN"))]
    assert not only(decided(*away, pool(mode="Recommend")), GuardPool)
    guard = one(decided(*FOUR, pool(mode="Recommend")), GuardPool)
    assert RETURN_FINALIZER in guard.pool.metadata.finalizers
    assert not guard.guarded


def test_a_claim_that_had_begun_is_seen_through_and_gets_nothing_new() -> None:
    there = [claimed_node("gpu-1"), node("gpu-2"), claim(nodes=2), pod("web-1", claim="c1")]
    commands = decided(*there, pool(mode="Recommend"))
    assert not only(commands, HoldNode)
    assert not only(commands, FreeNode), "promise 2: what is held stays held until the claim is over"
    assert one(commands, TolerateFence).claim_uid == "uid-c1"
    assert said_of_claim(commands) == ("Recommended", PREFIX + "would hold gpu-2 for it")


def test_a_loan_that_was_on_its_way_for_a_claim_still_goes_to_it() -> None:
    there = [
        lent_node(),
        loan(done=RECALLED, back=back_for("c1")),
        slurmd(),
        slurm(slurm_node("gpu-1", "IDLE", "DRAIN")),
    ]
    commands = decided(*there, pool(mode="Recommend"), claim())
    assert said_of_claim(commands) == ("Recalling", "waiting for gpu-1 to come back from Slurm")


def test_enforcing_again_starts_from_nothing() -> None:
    before = advisor("gpu-1").model_copy(update={"spec": pool().spec})
    assert one(decided(*FOUR, before), WritePoolStatus).status.recommended is None


def test_one_pool_recommends_and_the_other_acts() -> None:
    mine = pool("mine", nodeSelector={"rack": "1"})
    theirs = pool("theirs", nodeSelector={"rack": "2"}, mode="Recommend", guarded=False)
    racks = [node("gpu-1", labels={"rack": "1"}), node("gpu-2", labels={"rack": "2"})]
    commands = decided(*racks, mine, theirs, jobs(4))
    assert one(commands, CreateLoan).spec.pool_name == "mine"
    found = {c.pool.metadata.name: c.status.recommended for c in only(commands, WritePoolStatus)}
    assert found["mine"] is None
    assert found["theirs"] is not None
    assert [one.name for one in found["theirs"].nodes] == ["gpu-2"]


# --- explain


def test_explain_says_what_would_be() -> None:
    world = index(*FOUR, jobs(2), advisor("gpu-1", "gpu-2"))
    facts = dict(explain("pool", "batch", "", world).facts)
    assert facts["would be lent"] == "gpu-1, gpu-2"
    assert facts["would have been done"] == "2 lends, 0 recalls and 0.0 node-hours in Slurm since 2026-11-21T09:30:00Z"
    assert explain("pool", "batch", "", world).blocked_by.startswith("Recommending: pool batch has mode Recommend")
    facts = dict(explain("node", "gpu-1", "", world).facts)
    assert facts["would be in Slurm"] == "since 2026-11-21T11:51:40Z, if the pool did not only recommend"
    assert "would be in Slurm" not in dict(explain("node", "gpu-3", "", world).facts)

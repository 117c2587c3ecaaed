"""Which loans turn around, and for whom."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sharing.build import (
    DRAINED,
    FENCED,
    LENT,
    RECALLED,
    VACATED,
    ago,
    back_for,
    claim,
    claimed_node,
    decided,
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
from tidegate.sharing.commands import HoldNode, RecallLoan


def lent(number: int, *, done: tuple[str, ...] = LENT, **more: Any) -> list[Any]:
    name = f"gpu-{number}"
    labels = more.pop("labels", None)
    return [lent_node(name, labels=labels), loan(name, done=done, **more), slurmd(f"{name}-1", on=name)]


def running(*numbers: int, seconds: int = 500) -> Any:
    """A Slurm in which these nodes run a job each."""
    nodes = [slurm_node(f"gpu-{n}", "ALLOCATED", gpus_used=8) for n in numbers]
    return slurm(*nodes, *[job(n, on=f"gpu-{n}", started=ago(seconds + n)) for n in numbers])


def recalled(*things: Any, **more: Any) -> dict[str, str]:
    """Reason of the recall by node."""
    return {c.loan.spec.node_name: c.back.reason for c in only(decided(*things, **more), RecallLoan)}


TWO = [*lent(1), *lent(2), running(1, 2)]


def test_a_claim_recalls_what_it_lacks_and_says_for_whom() -> None:
    command = one(decided(*TWO, claim(recall_class="fast")), RecallLoan)
    assert command.loan.spec.node_name == "gpu-1"
    assert command.back.to_json() == {
        "reason": "Claimed",
        "message": "claim team/c1 needs the node; its recall ends 1 job, and loses at most 4008 GPU-seconds",
        "recallClass": "fast",
        "claim": {"namespace": "team", "name": "c1", "uid": "uid-c1"},
    }


@pytest.mark.parametrize(("priority", "count"), [(-101, 0), (-100, 0), (-99, 1), (0, 1), (1000, 1)])
def test_only_loans_of_strictly_lower_priority_are_recalled(priority: int, count: int) -> None:
    wish = claim(priority_class_name="mine")
    assert len(recalled(*TWO, wish, priority_classes={"mine": priority})) == count


def test_the_priority_that_counts_is_the_one_of_the_loan() -> None:
    assert recalled(*lent(1, priority=5000), running(1), claim()) == {}


def test_a_claim_without_a_class_has_the_clusters_default() -> None:
    wish = claim(priority_class_name=None)
    assert len(recalled(*TWO, wish)) == 1, "0 is above -100"
    assert recalled(*TWO, wish, default_priority_class="low") == {}


def test_a_class_that_does_not_exist_recalls_nothing() -> None:
    assert recalled(*TWO, claim(priority_class_name="nosuch")) == {}


def test_a_claim_on_another_pool_recalls_nothing_here() -> None:
    assert recalled(*TWO, claim(pool_name="nosuch")) == {}


def test_free_nodes_are_held_before_a_loan_is_recalled() -> None:
    commands = decided(*TWO, node("gpu-9"), claim(nodes=1))
    assert one(commands, HoldNode).node.name == "gpu-9"
    assert not only(commands, RecallLoan)
    commands = decided(*TWO, node("gpu-9"), claim(nodes=2))
    assert one(commands, HoldNode).node.name == "gpu-9"
    assert len(only(commands, RecallLoan)) == 1


def test_two_claims_are_not_given_the_same_free_node() -> None:
    commands = decided(*TWO, node("gpu-9"), claim("a"), claim("b", created=ago(5)))
    hold = one(commands, HoldNode)
    assert (hold.node.name, hold.claim_uid) == ("gpu-9", "uid-a")
    back = one(commands, RecallLoan).back
    assert back.claim is not None
    assert back.claim.name == "b"


def test_a_claim_keeps_what_it_holds_and_what_is_on_its_way() -> None:
    coming = lent(2, done=RECALLED, back=back_for("c1"))
    assert recalled(*lent(1), *coming, claimed_node("gpu-8"), running(1, 2), claim(nodes=2)) == {}
    assert len(recalled(*lent(1), *coming, claimed_node("gpu-8"), running(1, 2), claim(nodes=3))) == 1


def test_a_loan_that_returns_for_nobody_is_given_first_at_the_faster_of_the_two_classes() -> None:
    coming = lent(2, done=DRAINED, back=back_for(reason="IdleInSlurm", recall_class="graceful"))
    command = one(decided(*lent(1), *coming, running(1), claim(recall_class="fast")), RecallLoan)
    assert command.loan.spec.node_name == "gpu-2"
    assert (command.back.reason, command.back.recall_class) == ("IdleInSlurm", "fast")
    assert command.back.claim is not None
    assert command.back.claim.name == "c1"


def test_a_loan_that_returns_for_a_claim_that_is_over_is_given_on() -> None:
    coming = lent(2, done=RECALLED, back=back_for("gone"))
    command = one(decided(*lent(1), *coming, running(1, 2), claim()), RecallLoan)
    assert command.loan.spec.node_name == "gpu-2"


def test_a_returning_loan_of_any_priority_may_be_given() -> None:
    coming = lent(2, done=DRAINED, back=back_for(reason="IdleInSlurm"), priority=9999)
    assert list(recalled(*coming, slurm(), claim())) == ["gpu-2"]


def test_a_loan_that_returns_for_a_live_claim_is_not_taken_from_it() -> None:
    coming = lent(2, done=RECALLED, back=back_for("first"))
    more = claim("second", priority_class_name="high")
    assert recalled(*coming, running(2), claim("first", priority_class_name="low"), more) == {}


def test_the_more_important_claim_then_the_older_one_chooses_first() -> None:
    things = [*lent(1), *lent(2), running(1, 2)]
    claims = [
        claim("young", created=ago(1)),
        claim("old", created=ago(99)),
        claim("urgent", created=ago(1), priority_class_name="top"),
    ]
    commands = only(decided(*things, *claims, priority_classes={"top": 5000}), RecallLoan)
    given = {c.loan.spec.node_name: c.back.claim.name for c in commands if c.back.claim}
    assert given == {"gpu-1": "urgent", "gpu-2": "old"}


def test_an_automatic_claim_recalls_only_nodes_that_its_pods_can_use() -> None:
    west = lent(2, labels={"zone": "west"})
    wish = claim("a-1", holder="web", automatic=True)
    waiting = pod(owner="web", node_selector={"zone": "west"})
    assert list(recalled(*lent(1), *west, running(1, 2), wish, waiting)) == ["gpu-2"]


def test_no_claim_waits_for_a_node_that_is_gone() -> None:
    ghost = loan("gpu-2", done=RECALLED, back=back_for(reason="NodeLost"))
    assert list(recalled(*lent(1), ghost, running(1), claim())) == ["gpu-1"]


# --- by the terms of the pool


def test_a_lowered_cap_recalls_what_is_above_it() -> None:
    assert recalled(*TWO, pool(lending={"cap": 1})) == {"gpu-1": "CapLowered"}
    assert recalled(*TWO, pool(lending={"cap": 2})) == {}
    assert len(recalled(*TWO, pool(lending={"cap": 0}))) == 2


PROTECTED = [
    *lent(1),
    *lent(2),
    slurm(
        *(slurm_node(f"gpu-{n}", "ALLOCATED", gpus_used=8) for n in (1, 2)),
        job(1, on="gpu-1", requeueable=False),
        job(2, on="gpu-2", restarts=3),
    ),
]


def test_a_protected_job_keeps_its_node_from_claims_and_from_headroom_but_not_from_the_cap() -> None:
    assert recalled(*PROTECTED, claim(nodes=2)) == {}
    assert recalled(*PROTECTED, pool(lending={"headroom": {"low": 2, "high": 9}})) == {}
    assert recalled(*PROTECTED, pool(lending={"cap": 1})) == {"gpu-2": "CapLowered"}
    assert recalled(*PROTECTED, pool(lending={"cap": 1, "headroom": {"low": 2, "high": 9}})) == {"gpu-2": "CapLowered"}
    freed = pool(recall={"nonRequeueableJobs": "Cancel", "protection": {"protectedSeconds": 0}})
    assert len(recalled(*PROTECTED, claim(nodes=2), freed)) == 2


def test_headroom_takes_no_loan_of_a_slurm_that_cannot_be_seen() -> None:
    silent = slurm(*(slurm_node(f"gpu-{n}") for n in (1, 2)), observed=None)
    short = pool(lending={"headroom": {"low": 1, "high": 9}})
    assert recalled(*lent(1), *lent(2), silent, short) == {}
    assert recalled(*lent(1), *lent(2, done=FENCED), silent, short) == {"gpu-2": "HeadroomLow"}


def test_a_claim_gets_what_nothing_protects() -> None:
    assert recalled(*PROTECTED, pool(recall={"protection": {"afterRestarts": 4}}), claim(nodes=2)) == {
        "gpu-2": "Claimed"
    }


def test_joining_loans_count_against_the_cap_and_go_first() -> None:
    things = [*lent(1), *lent(2, done=VACATED), running(1)]
    assert recalled(*things, pool(lending={"cap": 1})) == {"gpu-2": "CapLowered"}


def test_a_node_on_its_way_back_does_not_count_against_the_cap() -> None:
    coming = lent(2, done=RECALLED, back=back_for())
    assert recalled(*lent(1), *coming, running(1, 2), pool(lending={"cap": 1})) == {}


@pytest.mark.parametrize(("low", "free", "count"), [(0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 2), (3, 1, 2), (9, 0, 2)])
def test_too_few_free_nodes_for_kubernetes_recall_loans(low: int, free: int, count: int) -> None:
    spare = [node(f"gpu-{n}") for n in range(20, 20 + free)]
    found = recalled(*TWO, *spare, pool(lending={"headroom": {"low": low, "high": 9}}))
    assert list(found.values()) == ["HeadroomLow"] * count


def test_nodes_on_their_way_back_count_as_headroom_to_come() -> None:
    coming = lent(2, done=RECALLED, back=back_for())
    terms = pool(lending={"headroom": {"low": 1, "high": 1}})
    assert recalled(*lent(1), *coming, running(1, 2), terms) == {}


def idle(*numbers: int, jobs: Any = (), busy_at: float = 100) -> Any:
    return slurm(*[slurm_node(f"gpu-{n}", last_busy=ago(busy_at)) for n in numbers], *jobs)


LONG: dict[str, Any] = {"since": ago(500)}


def test_a_node_that_slurm_has_no_use_for_goes_home() -> None:
    assert recalled(*lent(1, **LONG), idle(1)) == {"gpu-1": "IdleInSlurm"}


@pytest.mark.parametrize(
    "things",
    [
        [*lent(1, **LONG), idle(1, busy_at=59)],
        [*lent(1, since=ago(59)), idle(1)],
        [*lent(1, **LONG), idle(1, jobs=[job()])],
        [*lent(1, **LONG), idle(1), pool(lending={"policy": "Eager"})],
        [*lent(1, **LONG), idle(1), pool(lending={"floor": 1})],
        [*lent(1, **LONG), running(1)],
        [*lent(1, **LONG), slurm(slurm_node(last_busy=ago(900)), observed=ago(60))],
        [*lent(1, **LONG), slurm(slurm_node(last_busy=ago(900)), error="down", reason="Unreachable")],
        [*lent(1, **LONG), slurm(slurm_node("gpu-1", "IDLE", "DRAIN", reason="fan", last_busy=ago(900)))],
        [*lent(1, **LONG), slurm(slurm_node("gpu-1", "COMPLETING", last_busy=ago(900)))],
        [lent_node("gpu-1", gpus=0), *lent(1, **LONG)[1:], idle(1)],
        [*lent(1, **LONG), slurm(slurm_node(), job(1, on="gpu-1", states=["COMPLETING"]))],
    ],
)
def test_a_node_that_may_be_of_use_stays(things: list[Any]) -> None:
    assert recalled(*things) == {}


def test_only_as_many_idle_nodes_stay_as_pending_jobs_could_use() -> None:
    assert len(recalled(*lent(1, **LONG), *lent(2, **LONG), *lent(3, **LONG), idle(1, 2, 3, jobs=[job()]))) == 2


def test_nodes_wait_for_the_rest_of_a_job_that_needs_several() -> None:
    three = job(gpus=24, cpus=24, node_count=3)
    first = [*lent(1, **LONG), *lent(2, since=ago(10)), idle(1, 2, jobs=[three])]
    assert recalled(*first, lent_node("gpu-3"), loan("gpu-3", done=RECALLED)) == {}
    assert recalled(*first, node("gpu-3")) == {}
    assert recalled(*first, node("gpu-3"), idle_since={"gpu-3": ago(1)}) == {}
    assert recalled(*first, node("gpu-3", unschedulable=True)) == {"gpu-1": "IdleInSlurm"}


def test_the_floor_stays_lent() -> None:
    things = [*lent(1, **LONG), *lent(2, **LONG), *lent(3, **LONG), idle(1, 2, 3)]
    assert len(recalled(*things, pool(lending={"floor": 2}))) == 1


def test_held_jobs_keep_no_node() -> None:
    assert len(recalled(*lent(1, **LONG), idle(1, jobs=[job(reason="JobHeldUser")]))) == 1


def test_a_loan_is_turned_around_once_in_a_decision() -> None:
    commands = only(decided(*TWO, claim(), pool(lending={"cap": 1})), RecallLoan)
    assert [c.loan.spec.node_name for c in commands] == ["gpu-1"]
    assert commands[0].back.claim is not None

"""Claims that start later: until when nothing happens for them, what they were promised, and what they got."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.sharing.build import (
    CLEAN,
    LENT,
    NOW,
    RECALLED,
    ago,
    back_for,
    claim,
    claimed_node,
    cluster,
    decided,
    job,
    lent_node,
    loan,
    node,
    only,
    pod,
    pool,
    slurm,
    slurm_node,
    slurmd,
    snapshot,
)
from tidegate.api import CapacityClaim, CapacityClaimStatus, Condition
from tidegate.sharing.commands import CreateLoan, FreeNode, HoldNode, RecallLoan, TolerateFence, WriteClaimStatus
from tidegate.sharing.decide import decide
from tidegate.sharing.index import Index
from tidegate.sharing.lead_time import lead
from tidegate.sharing.reservations import promise

TERMS = pool(recall={"quick": {"drainSeconds": 0, "checkpointSeconds": 60, "requeueSeconds": 30}})
LEAD = lead(TERMS, "quick", Index(snapshot(TERMS), NOW)).total_seconds()


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def reserved(start: float, nodes: int = 1, *, duration: int = 600, **more: Any) -> CapacityClaim:
    """A claim whose start is so many seconds away."""
    return claim(nodes=nodes, start_time=later(start), duration_seconds=duration, **more)


def lent(number: int) -> list[Any]:
    """A node on loan that runs a job."""
    return [
        lent_node(f"gpu-{number}"),
        loan(f"gpu-{number}", done=LENT),
        slurmd(f"gpu-{number}-1", on=f"gpu-{number}"),
        slurm_node(f"gpu-{number}", "MIXED", loan=f"gpu-{number}-1", gpus_used=8),
        job(number, on=f"gpu-{number}"),
    ]


def world(*things: Any) -> list[Any]:
    """These things, with records and jobs as what Slurm says, and the pool."""
    records = [thing for thing in things if type(thing).__module__.endswith("snapshot") and hasattr(thing, "states")]
    return [TERMS, slurm(*records), *(thing for thing in things if thing not in records)]


def status(*things: Any) -> CapacityClaimStatus:
    """The claim's status as it is written now."""
    writes = only(decided(*world(*things)), WriteClaimStatus)
    assert len(writes) == 1
    return writes[0].status


# -- before the nodes are needed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "acts"), [(LEAD + 1, False), (LEAD, True), (1, True), (-100, True)])
def test_nodes_are_held_and_recalled_a_lead_before_the_start(start: float, acts: bool) -> None:
    commands = decided(*world(node("gpu-9"), *lent(1), reserved(start, 2)))
    assert bool(only(commands, HoldNode)) == acts
    assert bool(only(commands, RecallLoan)) == acts


def test_pods_of_a_claim_that_is_not_due_do_not_pass_a_fence() -> None:
    waiting = pod(claim="c1", gpus=8)
    assert not only(decided(*world(claimed_node("gpu-9", claim="c2"), waiting, reserved(LEAD + 1))), TolerateFence)
    assert only(decided(*world(claimed_node("gpu-9"), waiting, reserved(LEAD - 1))), TolerateFence)


def test_what_has_begun_goes_on_however_fast_recalls_became() -> None:
    """A claim that holds a node, or for which one is on its way, stays due."""
    recalled = [*lent(1)[2:], lent_node("gpu-1"), loan("gpu-1", done=RECALLED, back=back_for("c1"))]
    for begun in ([claimed_node("gpu-1")], recalled):
        commands = decided(*world(*begun, node("gpu-9"), reserved(LEAD + 50, 2)))
        assert [hold.node.name for hold in only(commands, HoldNode)] == ["gpu-9"]


def test_a_claim_that_waits_for_its_start_says_until_when() -> None:
    said = status(node(), reserved(3600))
    condition = said.condition("Satisfied")
    assert condition
    assert (condition.status, condition.reason) == ("False", "Reserved")
    assert "starts at 2026-11-21T13:00:00Z" in condition.message
    assert said.promised_start == later(3600)
    assert said.started is None


def test_a_claim_that_can_never_be_served_is_promised_nothing() -> None:
    said = status(node(), reserved(3600, 2))
    assert said.promised_start is None
    assert (c := said.condition("Satisfied"))
    assert c.reason == "MoreThanPool"


def test_what_starts_too_soon_is_promised_for_as_soon_as_nodes_can_be_back() -> None:
    index = Index(snapshot(TERMS), NOW)
    assert promise(reserved(10), index) == later(LEAD)
    assert promise(reserved(-50), index) == later(LEAD)
    assert promise(reserved(LEAD + 10), index) == later(LEAD + 10)


def test_a_promise_is_made_once() -> None:
    given = CapacityClaimStatus(promised_start=later(77))
    assert status(node(), reserved(3600, status=given)).promised_start == later(77)


# -- the start ----------------------------------------------------------------------------------------------------


def held_since(seconds_ago: float, promised: float) -> CapacityClaimStatus:
    held = Condition(type="Satisfied", status="True", reason="Held", last_transition_time=ago(seconds_ago))
    return CapacityClaimStatus(conditions=(held,), promised_start=later(promised))


@pytest.mark.parametrize(
    ("start", "satisfied_ago", "promised", "started", "late"),
    [
        (5, 10, 5, None, None),
        (-1, 10, -1, -1, ("False", "OnTime", "started as promised")),
        (-60, 20, -60, -20, ("True", "Late", "started 40.0s later than promised")),
        (-60, 20, -20, -20, ("False", "OnTime", "started as promised")),
    ],
)
def test_the_start_is_the_moment_when_all_is_held_and_not_before_it_was_wanted(
    start: float, satisfied_ago: float, promised: float, started: float | None, late: tuple[str, ...] | None
) -> None:
    said = status(claimed_node(), reserved(start, status=held_since(satisfied_ago, promised)))
    assert said.started == (None if started is None else later(started))
    condition = said.condition("StartedLate")
    assert (condition and (condition.status, condition.reason, condition.message)) == late


def test_a_reservation_that_is_late_says_so_before_it_starts() -> None:
    said = status(claimed_node(), *lent(1), reserved(-5, 2, status=CapacityClaimStatus(promised_start=later(-5))))
    late = said.condition("StartedLate")
    assert late
    assert (late.status, late.reason) == ("True", "NotYet")
    assert "not all of its nodes are there yet" in late.message


def test_a_reservation_ends_when_it_was_to_end_even_if_it_started_late() -> None:
    commands = decided(*world(claimed_node(), reserved(-600, duration=600, status=held_since(100, -600))))
    assert [free.node.name for free in only(commands, FreeNode)] == ["gpu-1"]
    expired = only(commands, WriteClaimStatus)[0].status.condition("Expired")
    assert expired
    assert expired.reason == "Ended"


# -- what lending leaves alone ------------------------------------------------------------------------------------

NODES = [node(f"gpu-{n}") for n in range(1, 5)]
HOUR = 3600


@pytest.mark.parametrize(
    ("reservations", "limits", "count"),
    [
        ([], [None] * 4, 4),
        ([(HOUR, 3)], [None] * 4, 1),
        ([(HOUR, 3)], [HOUR] * 4, 1),
        ([(HOUR, 3)], [600] * 4, 4),
        ([(HOUR, 3)], [HOUR - int(LEAD)] * 4, 4),
        ([(HOUR, 3)], [HOUR - int(LEAD) + 1] * 4, 1),
        ([(HOUR, 3)], [None, None, 600, 600], 3),
        ([(HOUR, 1), (2 * HOUR, 2)], [None] * 4, 1),
        ([(HOUR, 1), (2 * HOUR, 2)], [HOUR] * 4, 3),
        ([(HOUR, 4)], [None] * 4, 0),
    ],
)
def test_jobs_that_would_run_into_a_reservation_get_no_node_that_it_needs(
    reservations: list[tuple[int, int]], limits: list[int | None], count: int
) -> None:
    jobs = [job(n, time_limit_seconds=limit) for n, limit in enumerate(limits, 1)]
    claims = [
        claim(f"r{n}", nodes=nodes, start_time=later(start), duration_seconds=60)
        for n, (start, nodes) in enumerate(reservations)
    ]
    assert len(only(decided(TERMS, *NODES, slurm(*jobs), *claims), CreateLoan)) == count


@pytest.mark.parametrize(
    ("terms", "count"), [({"cap": 1}, 1), ({"headroom": {"low": 0, "high": 1}}, 2), ({"maxJoining": 1}, 1)]
)
def test_nodes_that_stay_for_other_reasons_are_there_for_reservations_too(terms: dict[str, Any], count: int) -> None:
    jobs = [job(n) for n in range(1, 5)]
    assert len(only(decided(pool(lending=terms), *NODES, slurm(*jobs), reserved(HOUR, 2)), CreateLoan)) == count


def test_nodes_that_are_lent_already_may_take_long_jobs() -> None:
    """Which of them the reservation needs is Slurm's to be told, and in the end the recall's."""
    here: list[Any] = [lent_node("gpu-1"), loan("gpu-1")]
    waiting: list[Any] = [slurm_node("gpu-1", loan="gpu-1-1"), job(1), job(2)]
    commands = decided(TERMS, *here, *NODES[1:], slurm(*waiting), reserved(HOUR, 2))
    assert len(only(commands, CreateLoan)) == 1
    commands = decided(TERMS, *here, *NODES[1:], slurm(*waiting), reserved(HOUR, 3))
    assert not only(commands, CreateLoan)


def test_the_reservation_of_another_pool_keeps_nothing() -> None:
    elsewhere = claim("r", nodes=4, pool_name="nosuch", start_time=later(HOUR), duration_seconds=60)
    assert len(only(decided(TERMS, *NODES, slurm(job(1)), elsewhere), CreateLoan)) == 1


def test_a_node_behind_its_last_step_is_still_given_to_the_claim_that_is_due() -> None:
    home: list[Any] = [lent_node("gpu-1"), loan("gpu-1", done=CLEAN, back=back_for())]
    commands = decide(snapshot(TERMS, cluster(), slurm(), *home, reserved(LEAD - 1)), NOW)
    assert [recall.back.claim.name for recall in only(commands, RecallLoan) if recall.back.claim] == ["c1"]

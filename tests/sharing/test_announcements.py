"""What Slurm is told of reservations, and which of its nodes are kept for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.sharing.build import (
    LENT,
    NOW,
    RECALLED,
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
    pool,
    slurm,
    slurm_node,
    slurmd,
    snapshot,
)
from tidegate.api import CapacityClaim, CapacityClaimStatus, Condition
from tidegate.sharing.commands import AnnounceReservation, Command, WithdrawReservation, WriteClaimStatus
from tidegate.sharing.index import Index
from tidegate.sharing.lead_time import lead
from tidegate.sharing.snapshot import SlurmReservation

TERMS = pool()
LEAD = lead(TERMS, "quick", Index(snapshot(TERMS), NOW))
HOUR = NOW + timedelta(hours=1)
BEGINS, ENDS = HOUR - LEAD, HOUR + timedelta(minutes=10)
NAME = "tidegate-uid-c1"


def reserved(nodes: int = 1, name: str = "c1", start: datetime = HOUR, **more: Any) -> CapacityClaim:
    return claim(name, nodes=nodes, start_time=start, duration_seconds=600, **more)


def told(nodes: Iterable[str], name: str = NAME, start: datetime = BEGINS) -> SlurmReservation:
    return SlurmReservation(name, tuple(nodes), start, ENDS)


def lent(
    number: int, *, ends_in: float | None = -1, back: str = "", worth: int = -100, states: tuple[str, ...] = ()
) -> list[Any]:
    """A node on loan with a job that ends so many seconds from now; -1 is an idle one, None a job without limit."""
    name, idle = f"gpu-{number}", ends_in == -1
    record = slurm_node(name, *(states or (("IDLE",) if idle else ("MIXED",))), loan=f"{name}-1")
    end = NOW + timedelta(seconds=ends_in) if ends_in is not None else None
    jobs = [] if idle else [job(number, on=name, end_time=end)]
    trip = loan(name, done=RECALLED, back=back_for(back)) if back else loan(name, done=LENT, priority=worth)
    return [lent_node(name), trip, slurmd(f"{name}-1", on=name), record, *jobs]


def world(*things: Any, capabilities: tuple[str, ...] = ("requeue", "reservation")) -> list[Any]:
    records = [t for t in things if isinstance(t, SlurmReservation) or hasattr(t, "states")]
    others = [thing for thing in things if thing not in records]
    return [TERMS, slurm(*records, capabilities=capabilities), *others]


def announced(*things: Any) -> SlurmReservation | None:
    """The reservation that Slurm is asked for."""
    found = only(decided(*world(*things)), AnnounceReservation)
    return found[0].reservation if found else None


def condition(commands: list[Command]) -> Condition:
    found = one(commands, WriteClaimStatus).status.condition("SlurmTold")
    assert found
    return found


def test_slurm_is_told_the_time_from_the_recall_to_the_end() -> None:
    assert announced(*lent(1), reserved()) == told(["gpu-1"])


@pytest.mark.parametrize(
    ("trips", "count", "nodes"),
    [
        ([(1, None), (2, 600), (3, 60)], 1, ["gpu-3"]),
        ([(1, None), (2, 600), (3, 60)], 2, ["gpu-2", "gpu-3"]),
        ([(1, None), (2, 7000), (3, 60)], 2, ["gpu-2", "gpu-3"]),
        ([(1, -1), (2, 600)], 1, ["gpu-2"]),
        ([(1, -1), (2, 7000)], 1, ["gpu-1"]),
        ([(1, -1), (2, -1)], 1, ["gpu-1"]),
    ],
)
def test_those_nodes_are_kept_whose_jobs_end_first(
    trips: list[tuple[int, float | None]], count: int, nodes: list[str]
) -> None:
    """Of those that are free in time the busy ones: idle ones can take longer jobs."""
    things = [thing for number, ends in trips for thing in lent(number, ends_in=ends)]
    found = announced(*things, reserved(count))
    assert found
    assert list(found.nodes) == nodes


def test_what_was_said_is_not_said_again_nor_changed_without_need() -> None:
    assert announced(*lent(1), *lent(2), reserved(), told(["gpu-2"])) is None
    busier = [*lent(1), *lent(2, ends_in=7000)]
    assert announced(*busier, reserved(), told(["gpu-2"])) == told(["gpu-1"])


def test_free_nodes_at_home_need_no_reservation_in_slurm() -> None:
    assert announced(node("gpu-9"), *lent(1), reserved(1)) is None
    assert announced(node("gpu-9"), *lent(1), *lent(2), reserved(2)) == told(["gpu-1"])
    commands = decided(*world(node("gpu-9"), *lent(1), reserved(1)))
    assert (condition(commands).status, condition(commands).reason) == ("True", "NothingToTell")


def test_two_reservations_keep_different_nodes_and_the_earlier_one_comes_first() -> None:
    second = reserved(1, "c2", HOUR + timedelta(minutes=5))
    found = only(decided(*world(*lent(1, ends_in=60), *lent(2, ends_in=600), reserved(), second)), AnnounceReservation)
    assert {c.claim.metadata.name: c.reservation.nodes for c in found} == {"c1": ("gpu-1",), "c2": ("gpu-2",)}


def test_nodes_that_the_claim_may_not_have_are_not_kept_for_it() -> None:
    assert announced(*lent(1, worth=5000), reserved()) is None
    assert announced(*lent(1, states=("IDLE", "DRAIN")), reserved()) is None
    assert announced(*lent(1), reserved(node_selector={"zone": "b"})) is None
    assert announced(*lent(1, back="c2"), claim("c2"), reserved()) is None


def test_the_beginning_of_a_reservation_that_has_begun_is_left_as_it_is() -> None:
    earlier = told(["gpu-1"], start=NOW - timedelta(seconds=1))
    assert announced(*lent(1), *lent(2), reserved(2), earlier) == replace(earlier, nodes=("gpu-1", "gpu-2"))


def test_a_node_leaves_the_reservation_once_the_recall_has_drained_it() -> None:
    start = NOW + timedelta(seconds=5)
    due = reserved(2, start=start)
    begun = SlurmReservation(NAME, ("gpu-1", "gpu-2"), NOW - timedelta(seconds=9), start + timedelta(seconds=600))
    both = [*lent(1, back="c1"), *lent(2, back="c1")]
    assert announced(*both, due, begun) is None, "jobs may still start there"
    one_drained = [*lent(1, back="c1", states=("MIXED", "DRAIN")), *lent(2, back="c1")]
    assert announced(*one_drained, due, begun).nodes == ("gpu-2",)  # type: ignore[union-attr]
    drained = [*lent(1, back="c1", states=("MIXED", "DRAIN")), *lent(2, back="c1", states=("IDLE", "DRAIN"))]
    commands = decided(*world(*drained, due, begun))
    assert one(commands, WithdrawReservation).reservation_name == NAME
    assert condition(commands).reason == "Recalling"


def test_a_claim_that_is_due_keeps_no_new_nodes() -> None:
    assert announced(*lent(1), reserved(start=NOW + timedelta(seconds=5))) is None


def test_a_reservation_of_nobody_is_withdrawn() -> None:
    gone = decided(*world(*lent(1), told(["gpu-1"])))
    assert one(gone, WithdrawReservation).reservation_name == NAME
    assert one(gone, WithdrawReservation).cluster_name == "slurm"


def test_a_reservation_over_nodes_of_another_tidegate_stays() -> None:
    assert not only(decided(*world(*lent(1), told(["elsewhere-1"]))), WithdrawReservation)


def test_nothing_is_said_to_a_slurm_that_is_not_seen() -> None:
    things = [*lent(1), told(["gpu-1"])]
    records = [t for t in things if isinstance(t, SlurmReservation) or hasattr(t, "states")]
    silent = slurm(*records, capabilities=("reservation",), error="down", reason="Unreachable")
    commands = decided(TERMS, silent, *[t for t in things if t not in records])
    assert not only(commands, WithdrawReservation)


def test_a_slurm_that_takes_no_reservations_is_not_asked_and_the_claim_says_so() -> None:
    commands = decided(*world(*lent(1), reserved(), capabilities=()))
    assert not only(commands, AnnounceReservation)
    assert (condition(commands).status, condition(commands).reason) == ("False", "NotSupported")
    assert "Slurm 24.11.5 takes no reservation by REST" in condition(commands).message


def test_the_condition_is_true_once_slurm_has_it() -> None:
    before = condition(decided(*world(*lent(1), reserved())))
    assert (before.status, before.reason) == ("False", "Telling")
    after = condition(decided(*world(*lent(1), reserved(), told(["gpu-1"]))))
    assert (after.status, after.reason) == ("True", "Reserved")
    assert f"reservation {NAME} keeps jobs" in after.message


def test_the_condition_is_over_when_the_nodes_are_held() -> None:
    said = Condition(type="SlurmTold", status="True", reason="Reserved", last_transition_time=NOW)
    held = reserved(start=NOW, status=CapacityClaimStatus(conditions=(said,)))
    over = condition(decided(*world(claimed_node("gpu-1"), held)))
    assert (over.status, over.reason) == ("False", "Withdrawn")

"""Decisions, done at once, over hours of changing demand: what hysteresis, floors and windows come to.

Loans start and end without delay here, so that only the policy shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.sharing.build import job, lent_node, loan, node, pod, pool, slurm, slurm_node, slurmd, snapshot
from tidegate.sharing.commands import CreateLoan, RecallLoan
from tidegate.sharing.decide import decide

START = datetime(2026, 11, 20, 0, 0, tzinfo=UTC)
NODES = 10


@dataclass
class Loop:
    """Ten nodes, of which Kubernetes uses some, and a Slurm that could use all of them."""

    terms: dict[str, Any]
    now: datetime = START
    lent: dict[str, datetime] = field(default_factory=dict)
    used: list[str] = field(default_factory=list)
    moves: list[tuple[datetime, str, str]] = field(default_factory=list)
    """When, which way, and why."""
    unmet: int = 0
    """Pods that found no free node, over all steps."""

    @property
    def free(self) -> int:
        return NODES - len(self.lent) - len(self.used)

    def step(self, wanted: int, minutes: int = 15) -> None:
        """Kubernetes wants that many nodes now; then decisions until nothing moves."""
        self.now += timedelta(minutes=minutes)
        idle = [name for name in self._names() if name not in self.lent and name not in self.used]
        while len(self.used) > wanted:
            self.used.pop()
        while len(self.used) < wanted and idle:
            self.used.append(idle.pop())
        self.unmet += wanted - len(self.used)
        for _ in range(5):
            if not self._decide():
                return
        raise AssertionError(f"still moving: {self.moves[-6:]}")

    def _decide(self) -> int:
        moved = 0
        for command in decide(self._snapshot(), self.now):
            if isinstance(command, CreateLoan):
                self.lent[command.spec.node_name] = self.now
                self.moves.append((self.now, "lend", ""))
                moved += 1
            if isinstance(command, RecallLoan):
                del self.lent[command.loan.spec.node_name]
                self.moves.append((self.now, "recall", command.back.reason))
                moved += 1
        return moved

    @staticmethod
    def _names() -> list[str]:
        return [f"gpu-{number}" for number in range(NODES)]

    def _snapshot(self) -> Any:
        things: list[Any] = []
        for name in self._names():
            if name in self.lent:
                since = self.lent[name]
                things += [lent_node(name), loan(name, since=since, created=since), slurmd(f"{name}-1", on=name)]
            else:
                things.append(node(name))
        things += [pod(f"web-{name}", on=name, gpus=8) for name in self.used]
        records = [slurm_node(name, "ALLOCATED", gpus_used=8, last_busy=self.now) for name in self.lent]
        running = [job(n + 100, on=name, started=self.lent[name]) for n, name in enumerate(self.lent)]
        state = slurm(*records, *running, *[job(n) for n in range(1, NODES + 1)], observed=self.now)
        long_ago = dict.fromkeys(self._names(), self.now - timedelta(hours=9))
        return snapshot(*things, state, pool(lending=self.terms), idle_since=long_ago)


def count(loop: Loop, way: str, reason: str = "") -> int:
    return sum(move == way and why == reason for _, move, why in loop.moves)


@pytest.mark.parametrize("low", [1, 2, 3])
def test_a_demand_that_wiggles_by_one_moves_nothing_between_two_marks(low: int) -> None:
    loop = Loop({"headroom": {"low": low, "high": low + 1}})
    for wanted in (4, 5, 4):  # come to rest; the first wiggle may cost one recall
        loop.step(wanted)
    before = len(loop.moves)
    for number in range(40):
        loop.step(4 + number % 2)
    assert len(loop.moves) == before
    assert loop.unmet == 0


def test_a_single_mark_moves_a_node_with_every_wiggle() -> None:
    loop = Loop({"headroom": {"low": 2, "high": 2}})
    for number in range(40):
        loop.step(4 + number % 2)
    assert count(loop, "recall", "HeadroomLow") >= 19


def test_a_recall_brings_free_back_to_the_low_mark_and_no_further() -> None:
    loop = Loop({"headroom": {"low": 2, "high": 4}})
    loop.step(0)
    assert loop.free == 4, "lent down to the high mark"
    for wanted, free, recalls in ((1, 3, 0), (2, 2, 0), (3, 2, 1), (5, 2, 3), (4, 3, 3), (3, 4, 3), (2, 4, 3)):
        loop.step(wanted)
        assert (loop.free, count(loop, "recall", "HeadroomLow")) == (free, recalls)


def test_headroom_comes_ahead_of_any_pod() -> None:
    """A burst of `low` pods starts at once each time: what it takes is recalled for the next one, not for it."""
    warm, cold = Loop({"headroom": {"low": 3, "high": 4}}), Loop({})
    for loop in (warm, cold):
        for wanted in (0, 2, 5, 7, 2, 5):
            loop.step(wanted)
    assert warm.unmet == 0
    assert cold.unmet > 0


def office(hour: float) -> int:
    """Nodes that Kubernetes uses: few at night, more from 8 to 18, with a burst at 8:30."""
    return 1 if not 8 <= hour < 18 else 6 if 8.5 <= hour < 9 else 4


def day(terms: dict[str, Any], wanted: Callable[[float], int], days: int = 1) -> tuple[Loop, list[tuple[float, int]]]:
    """The loop after some days in steps of a quarter of an hour, and how many nodes were lent at each hour of them."""
    loop, lent = Loop(terms), []
    for number in range(days * 24 * 4):
        loop.step(wanted((number + 1) / 4 % 24))
        lent.append(((number + 1) / 4, len(loop.lent)))
    return loop, lent


WARM = {"schedule": "45 7 * * 1-5", "durationSeconds": 37800, "headroom": {"low": 3, "high": 4}}
"""From 7:45 to 18:15 of working days; 20 November 2026 is a Friday."""


def test_a_day_with_a_window_keeps_nodes_warm_before_the_burst_and_lends_them_at_night() -> None:
    loop, lent = day({"windows": [WARM]}, office, days=2)
    by_hour = dict(lent)
    assert by_hour[3.0] == 9, "at night all that is free is lent"
    assert by_hour[7.75] == 6, "the window recalls up to its low mark before anybody comes"
    assert by_hour[12.0] == 2, "after the burst what is above the high mark is lent"
    assert by_hour[19.0] == 9, "after the window they are lent again"
    assert by_hour[24 + 7.75] == 9, "on Saturday it does not open"
    friday = [move for move in loop.moves if move[0] < START + timedelta(days=1)]
    assert [why for moment, _, why in friday if moment < START + timedelta(hours=8)] == [
        *[""] * 9,
        *["HeadroomLow"] * 3,
    ]


def test_a_window_serves_the_burst_that_finds_no_node_without_it() -> None:
    assert day({"windows": [WARM]}, office)[0].unmet == 0
    assert day({}, office)[0].unmet > 0


def test_floors_of_both_sides_hold_over_a_day() -> None:
    terms = {"floor": 2, "kubernetes": {"floor": 3}, "policy": "Eager"}
    _, lent = day(terms, lambda hour: 1 + int(hour) % 2)
    assert max(count for _, count in lent) == NODES - 3
    assert min(count for _, count in lent) >= 2


def test_each_opening_and_closing_moves_each_node_once() -> None:
    loop, _ = day({"windows": [{"schedule": "0 8 * * *", "durationSeconds": 36000, "cap": 2}]}, lambda _: 1, days=2)
    assert count(loop, "lend") == 9 + 2 * 7, "all at first, and those above the cap after each window"
    assert count(loop, "recall", "CapLowered") == 2 * 7
    times = sorted({moment for moment, _, _ in loop.moves})
    assert all(later - earlier >= timedelta(hours=7) for earlier, later in pairwise(times))

"""A decision grows with the site hardly faster than the site itself, counted in calls: a clock would lie."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from benchmarks.big_world import LATER, after, big_world
from tests.sharing.build import NOW
from tidegate.sharing.commands import HoldNode, RecallLoan
from tidegate.sharing.decide import decide
from tidegate.sharing.snapshot import Snapshot


def calls(world: Snapshot, later: bool) -> int:
    """How many functions are called, those that are written in C included."""
    count = 0

    def note(_: Any, event: str, __: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        decide(world, LATER if later else NOW)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("later", [False, True])
def test_four_times_the_site_takes_about_four_times_the_work(later: bool) -> None:
    worlds = [big_world(size) for size in (60, 240)]
    if later:
        worlds = [after(world, decide(world, NOW)) for world in worlds]
    small, large = (calls(world, later) for world in worlds)
    assert large <= 5.5 * small, "n log n would be 5.4 times"


def test_the_big_world_has_much_to_decide() -> None:
    commands = decide(big_world(60), NOW)
    assert sum(isinstance(command, HoldNode | RecallLoan) for command in commands) >= 30

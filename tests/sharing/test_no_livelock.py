"""No livelock: what somebody takes from somebody else grows one measure each time, so that it comes to an end.

The measure is in docs/explanation/why-no-livelock.md: what each node is worth, the most important first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sharing.build import ago, claim
from tests.sharing.swift_world import CLASSES, QOS, Job, Move, Replica, SwiftWorld
from tidegate.api import CapacityClaim
from tidegate.sharing import supply
from tidegate.sharing.decide import decide

Wave = Sequence[Job | Replica | CapacityClaim]

QUIET_STEPS = 5
"""Longer than every idle time of the pool: what has not moved by then does not move."""
MOST_STEPS = 120
BUDGET = 6


@st.composite
def waves(draw: st.DrawFn) -> tuple[SwiftWorld, list[Wave]]:
    """An empty pool of up to four nodes, and work of all kinds that comes in waves, more than the nodes can hold."""
    names = tuple(f"gpu-{number + 1}" for number in range(draw(st.integers(1, 4))))
    low = draw(st.integers(0, 1))
    lending: dict[str, Any] = {
        "policy": draw(st.sampled_from(["Eager", "DemandDriven", "DemandDriven"])),
        "preemption": draw(st.sampled_from(["Never", "LowerPriority", "LowerPriority"])),
        "idleSeconds": 1,
        "idleReturnSeconds": 20,
        "headroom": {"low": low, "high": low + draw(st.integers(0, 1))} if draw(st.booleans()) else {},
        "flapBudget": {"loans": BUDGET, "windowSeconds": 86400},
    }
    world = SwiftWorld(
        names=names, lending=lending, decide=decide, pool_priority=draw(st.sampled_from([-100, 100, 300]))
    )
    kinds = draw(st.lists(st.sampled_from(["pods", "jobs", "claim"]), min_size=3, max_size=6))
    return world, [draw(_wave(kind, number + 1, len(names))) for number, kind in enumerate(kinds)]


@st.composite
def _wave(draw: st.DrawFn, kind: str, number: int, nodes: int) -> Wave:
    wanted, worth = draw(st.integers(1, nodes)), draw(st.sampled_from(sorted(CLASSES)))
    if kind == "jobs":
        qos = draw(st.sampled_from(["urgent", "soon", ""]))
        sizes = draw(st.lists(st.integers(1, nodes), min_size=1, max_size=3))
        return [Job(10 * number + one, size, qos, draw(st.integers(0, 2))) for one, size in enumerate(sizes)]
    if kind == "pods":
        return [Replica(f"web{number}", one, worth) for one in range(wanted)]
    return [
        claim(f"c{number}", nodes=wanted, priority_class_name=worth, gang=draw(st.booleans()), created=ago(-number))
    ]


def run(world: SwiftWorld) -> list[Move]:
    """Until nothing changes hands any more. Each taking has to make the nodes worth more than they were."""
    moves: list[Move] = []
    quiet = 0
    for _ in range(MOST_STEPS):
        before = world.measure()
        new = world.step()
        takings = [move for move in new if move.takes]
        if takings and len(takings) == len(new):
            assert world.measure() > before, f"{new} made {before} into {world.measure()}"
        moves += new
        quiet = 0 if new else quiet + 1
        if quiet == QUIET_STEPS:
            return moves
    raise AssertionError(f"still moving after {MOST_STEPS} steps: {moves[-12:]}")


def longest_climb(world: SwiftWorld) -> int:
    """How often the measure can grow before it cannot any more: as many words as there are, but for the first."""
    values = {world.pool_priority, *CLASSES.values(), *QOS.values()}
    return comb(len(world.names) + len(values), len(values)) - 1


@given(waves())
@settings(max_examples=30)
def test_after_each_wave_everything_comes_to_rest(waves: tuple[SwiftWorld, list[Wave]]) -> None:
    world, coming = waves
    for wave in coming:
        for thing in wave:
            world.add(thing)
        moves = run(world)
        takings = sum(move.takes for move in moves)
        assert takings <= longest_climb(world) * (1 + len(moves) - takings)
        # It came to rest because all is well, and not because a budget was used up.
        lent = Counter(move.node for move in moves if move.why in ("lend", "job"))
        assert max(lent.values(), default=0) < BUDGET
        world.pass_window()
        for one in world.claims.values():
            has = sum(uid == one.metadata.uid for uid in world.held.values())
            weaker = [name for name in world.loans if world.worth(name) < world.priority_of(one)]
            satisfied = one.is_over or has >= (one.spec.nodes or 1)
            assert satisfied or one.spec.gang or not weaker, f"{one.metadata.name} waits for {weaker}"


def test_a_chain_of_takings_climbs_and_ends_where_nobody_is_more_important() -> None:
    lending = {"preemption": "LowerPriority", "idleSeconds": 1, "idleReturnSeconds": 20}
    world = SwiftWorld(names=("gpu-1",), lending=lending, decide=decide)
    chain: list[tuple[Job | Replica | CapacityClaim, str, int]] = [
        (Job(1, 1, ""), "lend", -100),
        (Replica("weak", 1, "low"), "claim", 100),
        (Job(2, 1, "soon"), "job", 200),
        (Replica("middling", 1, "mid"), "claim", 300),
        (Job(3, 1, "urgent"), "job", 500),
        (claim("strong", priority_class_name="high"), "claim", 600),
    ]
    for thing, why, worth in chain:
        world.add(thing)
        assert [move.why for move in run(world) if move.why != "free"] == [why]
        assert world.measure() == (worth,)
    for again in (Job(4, 1, "urgent"), Replica("late", 1, "high")):
        world.add(again)
        assert run(world) == []


def test_the_measure_catches_claims_that_take_whatever_they_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supply, "of_loan", lambda loan, index: -(10**6))
    world = SwiftWorld(names=("gpu-1",), lending={"idleSeconds": 1}, decide=decide)
    world.add(Job(1, 1, "urgent"))
    run(world)
    assert world.jobs[0].on == ("gpu-1",)
    world.add(claim("weak", priority_class_name="low"))
    with pytest.raises(AssertionError, match=r"Move\(node='gpu-1', why='claim'\)\] made"):
        run(world)

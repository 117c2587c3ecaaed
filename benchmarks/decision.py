"""How long decisions take, and how good the choice of victims is. Needs no lab: `python -m benchmarks.decision`.

CPU time of one core, without the writing of what was decided. Each figure is the best of several rounds, since
whatever else a machine does only adds to it. The page has those of the interpreter that sites run, which is that of the
operator's image.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.big_world import LATER, after, all_busy, big_world
from benchmarks.figures import HEAD, Figure
from tests.sharing.build import NOW
from tests.sharing.unions import Instance, brute_force, tangled
from tidegate.sharing import min_union
from tidegate.sharing.commands import HoldNode, RecallLoan
from tidegate.sharing.decide import decide
from tidegate.sharing.index import Index
from tidegate.sharing.min_union import cheapest_union, union_cost
from tidegate.sharing.snapshot import Snapshot
from tidegate.sharing.victims import cheapest

if TYPE_CHECKING:
    from e2e.lab.engine import Engine

REPOSITORY = Path(__file__).resolve().parents[1]
SIZES = (100, 300, 1000, 3000, 10_000)
AIM_SIZE = 1000
AIM_MS = 100
AIM_DECISIONS = 430
"""Nodes held or recalled in a second: ten times the admissions that Kueue publishes for itself."""
VICTIMS_AIM_MS = 50
GAP_AIM_PERCENT = 5
INSTANCES = 400


@dataclass(frozen=True)
class Row:
    """Decisions on one size of world."""

    nodes: int
    jobs: int
    claims: int
    loans: int
    burst_ms: float
    """All claims are new: what can be held is held, what can be recalled is recalled, every status is written."""
    waiting_ms: float
    """Later, while half of the claims wait for nodes that are on their way and the others for nodes that may come."""
    moved: int
    """Nodes that the first of them holds or recalls."""

    @property
    def per_second(self) -> float:
        """Nodes held or recalled in a second of such decisions."""
        return self.moved / self.burst_ms * 1000


@dataclass(frozen=True)
class Decisions:
    """All that was measured."""

    python: str
    rows: list[Row]
    victims_ms: float
    gaps: list[float]
    """In percent, one for each instance."""

    @classmethod
    def from_json(cls, text: str) -> Decisions:
        """What `python -m benchmarks.decision --json FILE` wrote."""
        found = json.loads(text)
        return cls(**found | {"rows": [Row(**row) for row in found["rows"]]})

    def figures(self) -> list[Figure]:
        """The rows of the table of figures."""
        aimed = next(row for row in self.rows if row.nodes == AIM_SIZE)
        what = f"{aimed.nodes:,} nodes, {aimed.jobs:,} jobs, {aimed.claims:,} claims"
        least, most = (f(self.rows, key=lambda row: row.nodes) for f in (min, max))
        grown, gaps = (
            f"growth of a decision from {least.nodes:,} to {most.nodes:,} nodes, in parts of n log n",
            self.gaps,
        )
        moved = "nodes held or recalled by decisions in a second"
        return [
            Figure(f"one decision: {what}", aimed.waiting_ms, "ms", AIM_MS),
            Figure("the same in the moment when all these claims are new", aimed.burst_ms, "ms", AIM_MS),
            Figure(grown, _growth(least, most), "", 1),
            Figure(moved, aimed.per_second, "/s", AIM_DECISIONS, at_least=True),
            Figure("choice of victims, 1,000 nodes and 10,000 running jobs", self.victims_ms, "ms", VICTIMS_AIM_MS),
            Figure(
                "cost of greedily chosen victims above the least, on average", statistics.fmean(gaps), "%",
                GAP_AIM_PERCENT, len(gaps),
            ),
            Figure("cost of greedily chosen victims above the least, at worst", max(gaps), "%", None, len(gaps)),
        ]  # fmt: skip

    def table(self) -> str:
        """How the time grows, in Markdown."""
        head = "| nodes | jobs | claims | loans | ms | all claims new, ms | nodes held or recalled in a second |"
        lines = [
            f"| {row.nodes:,} | {row.jobs:,} | {row.claims:,} | {row.loans:,} | {row.waiting_ms:.1f} | "
            f"{row.burst_ms:.1f} | {row.per_second:,.0f} |"
            for row in self.rows
        ]
        return "\n".join([head, "|---:|---:|---:|---:|---:|---:|---:|", *lines])

    def section(self) -> str:
        """The rows as a section of the page."""
        return f"""\
## How decisions grow

CPU time of one core and Python {self.python}, which is what the operator's image has. Half of the nodes are lent and
nearly all of them busy, and together the claims want more than there is. `python -m benchmarks.decision` measures the
same with any other Python.

{self.table()}"""


def measure() -> Decisions:
    """With the interpreter that this runs in."""
    return Decisions(platform.python_version(), _rows(SIZES), _victims_ms(), _gaps())


def measure_in_image(engine: Engine, image: str) -> Decisions:
    """With the interpreter of an image of the operator, and the code as it lies here."""
    with tempfile.TemporaryDirectory() as folder:
        engine.client.containers.run(
            image,
            entrypoint=["python", "-m", "benchmarks.decision", "--json", "/out/decisions.json"],
            volumes={str(REPOSITORY): {"bind": "/src", "mode": "ro"}, folder: {"bind": "/out", "mode": "rw"}},
            working_dir="/src",
            environment={"PYTHONPATH": "/src/operator:/src", "PYTHONDONTWRITEBYTECODE": "1"},
            network_mode="none",
            user="0",
            remove=True,
        )
        return Decisions.from_json((Path(folder) / "decisions.json").read_text())


def _rows(sizes: Sequence[int]) -> list[Row]:
    rows = []
    for size in sizes:
        world = big_world(size)
        waiting = after(world, decide(world, NOW))
        waiting = after(waiting, decide(waiting, LATER))
        rounds = 5 if size <= AIM_SIZE else 3
        moved = sum(isinstance(command, HoldNode | RecallLoan) for command in decide(world, NOW))
        jobs = sum(len(state.jobs) for state in world.slurm.values())
        loans = sum(not loan.is_over for loan in world.loans)
        times = _decided(world, NOW, rounds), _decided(waiting, LATER, rounds)
        rows.append(Row(len(world.nodes), jobs, len(world.claims), loans, times[0], times[1], moved))
    return rows


def _victims_ms(nodes: int = AIM_SIZE, jobs: int = 10 * AIM_SIZE) -> float:
    """The choice of one, ten, a hundred and half of all nodes, none looked at before; the slowest counts."""
    world, loans = all_busy(nodes, jobs)

    def choose(count: int) -> None:
        cheapest(loans, count, "quick", Index(world, NOW))

    return max(_best_ms(lambda count=count: choose(count), 5) for count in (1, 10, 100, nodes // 2))  # type: ignore[misc]


def _decided(world: Snapshot, now: datetime, rounds: int) -> float:
    return _best_ms(lambda: decide(world, now), rounds)


def _best_ms(work: Callable[[], object], rounds: int) -> float:
    gc.collect()
    times = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times) * 1000


def _growth(least: Row, most: Row) -> float:
    grown = (most.burst_ms + most.waiting_ms) / (least.burst_ms + least.waiting_ms)
    return grown / (most.nodes * math.log(most.nodes) / (least.nodes * math.log(least.nodes)))


def _gaps() -> list[float]:
    """In percent: random instances that hang together, searched nowhere, against brute force."""
    chance, effort = random.Random(4), min_union.EFFORT  # noqa: S311 - no secret
    min_union.EFFORT = 0
    try:
        return [100 * _gap(chance) for _ in range(INSTANCES)]
    finally:
        min_union.EFFORT = effort


def _gap(chance: random.Random) -> float:
    size = chance.randint(10, 13)
    instance: Instance = tangled(chance, size, chance.randint(6, 26), chance.choice((3, 4, 5, 8)))
    count = chance.randint(1, size - 1)
    return union_cost(cheapest_union(*instance, count), *instance) / max(brute_force(instance, count), 1) - 1


def main() -> int:
    """Print the figures and the table, or with --json write all of it for a program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decision", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where all that was measured is written")
    options = parser.parse_args()
    measured = measure()
    if options.json:
        options.json.write_text(json.dumps(asdict(measured)))
        return 0
    sys.stdout.write("\n".join([HEAD, *(figure.row for figure in measured.figures()), "", measured.table(), ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The burst as a picture: who owned which node, and below it replicas, queues, latency and errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table

from e2e.demo.panels import Curve, Panel
from e2e.demo.picture import bars, svg
from e2e.scenarios.burst.record import by_second, quantile
from e2e.scenarios.burst.story import Played
from e2e.witness import Span

BLUE, GREEN, GREY, RED, ORANGE = "#326ce5", "#2e8b57", "#8a94a6", "#c0392b", "#d98c1f"
BLOCKS = " ▁▂▃▄▅▆▇█"


def picture(nodes: Mapping[str, Sequence[Span]], told: Sequence[tuple[datetime, str]], played: Played) -> str:
    """SVG."""
    seconds, samples = by_second(played.outcomes), played.samples
    # A word for each step is in the terminal; the picture has room for the turns of the story.
    panels = [
        Panel(
            "replicas",
            "",
            [
                Curve("wanted", GREY, [(one.time, one.wanted) for one in samples], steps=True),
                Curve("ready", BLUE, [(one.time, one.ready) for one in samples], steps=True),
            ],
        ),
        Panel(
            "requests",
            "",
            [
                Curve("begun in a second", GREY, [(one.time, one.count) for one in seconds]),
                Curve("in flight", BLUE, [(one.time, one.in_flight) for one in samples]),
                Curve("failed", RED, [(one.time, one.failed) for one in seconds]),
            ],
        ),
        Panel(
            "Slurm jobs that wait", "", [Curve("pending", GREEN, [(s.time, s.pending) for s in samples], steps=True)]
        ),
        Panel(
            "latency",
            " s",
            [
                Curve("median", BLUE, [(one.time, one.median) for one in seconds]),
                Curve("worst of the second", ORANGE, [(one.time, one.worst) for one in seconds]),
            ],
        ),
    ]
    return svg(nodes, told, "A burst: who owned which node, and what the users of the service met", panels)


def show(console: Console, nodes: Mapping[str, Sequence[Span]], played: Played) -> None:
    """The same for a terminal."""
    console.rule("time line")
    console.print(bars(nodes, console.width))
    start = min(spans[0].start for spans in nodes.values())
    total = (max(spans[-1].end for spans in nodes.values()) - start).total_seconds()
    label = max(map(len, nodes)) + 2
    seconds, samples = by_second(played.outcomes), played.samples
    rows: dict[str, list[tuple[datetime, float]]] = {
        "ready": [(one.time, one.ready) for one in samples],
        "in flight": [(one.time, one.in_flight) for one in samples],
        "pending": [(one.time, one.pending) for one in samples],
        "latency": [(one.time, one.median) for one in seconds],
        "failed": [(one.time, one.failed) for one in seconds],
    }
    for name, points in rows.items():
        console.print(f"{name:{label}}{_blocks(points, start, total, console.width - label)}", highlight=False)
    table = Table(title="requests", title_justify="left")
    for column in ("all", "failed", "median", "99 %", "worst"):
        table.add_column(column, justify="right")
    outcomes = played.outcomes
    latencies = [f"{quantile(outcomes, share):.2f} s" for share in (0.5, 0.99, 1)]
    table.add_row(str(len(outcomes)), str(sum(bool(one.problem) for one in outcomes)), *latencies)
    console.print(table)


def _blocks(points: Sequence[tuple[datetime, float]], start: datetime, total: float, cells: int) -> str:
    """The largest value of each cell's time as a block; the largest of all, at the end, as a number."""
    most = max((value for _, value in points), default=0)
    largest = [0.0] * cells
    for moment, value in points:
        cell = int((moment - start).total_seconds() / total * cells)
        if 0 <= cell < cells - 6:
            largest[cell] = max(largest[cell], value)
    line = "".join(BLOCKS[round(value / most * (len(BLOCKS) - 1))] if most else " " for value in largest)
    return f"{line[: cells - 6]}{most:6.3g}"

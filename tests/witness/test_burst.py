"""The burst's autoscaler counts as Kubernetes' own does, and its picture has every curve."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest
from rich.console import Console

from e2e.clients import Outcome
from e2e.scenarios.burst.record import Sample, by_second, quantile
from e2e.scenarios.burst.report import picture, show
from e2e.scenarios.burst.scaler import desired
from e2e.scenarios.burst.story import Played
from e2e.witness import Span

START = datetime(2026, 1, 1, tzinfo=UTC)
NAME = "{http://www.w3.org/2000/svg}"


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


@pytest.mark.parametrize(
    ("present", "load", "wanted"),
    [(1, 0, 0), (1, 3, 1), (1, 3.2, 1), (1, 3.4, 2), (2, 12, 4), (4, 5, 2), (0, 2, 1)],
)
def test_replicas_follow_the_load_but_not_each_wobble(present: int, load: float, wanted: int) -> None:
    assert desired(present, load, target=3) == wanted


def test_outcomes_are_told_second_by_second() -> None:
    began = START.timestamp()
    outcomes = [Outcome(began + 0.1, 1), Outcome(began + 0.9, 3), Outcome(began + 2, 2, "502")]
    first, second = by_second(outcomes)
    assert (first.time, first.count, first.failed, first.median, first.worst) == (at(0), 2, 0, 2, 3)
    assert (second.time, second.count, second.failed) == (at(2), 1, 1)
    assert [quantile(outcomes, share) for share in (0, 0.5, 0.99, 1)] == [1, 2, 3, 3]


def played() -> tuple[dict[str, list[Span]], Played]:
    nodes = {"gpu-1": [Span(at(0), at(5), "Slurm"), Span(at(5), at(10), "Kubernetes")]}
    samples = [Sample(at(n), wanted=1 + n // 5, ready=1, in_flight=n, pending=2) for n in range(10)]
    outcomes = [Outcome(at(n).timestamp(), 0.5) for n in range(10)]
    return nodes, Played(samples, outcomes)


def test_the_picture_has_every_curve_within_its_panel() -> None:
    nodes, all_of_it = played()
    drawing = ElementTree.fromstring(picture(nodes, [(at(5), "more")], all_of_it))  # noqa: S314 - ours
    curves = list(drawing.iter(f"{NAME}polyline"))
    assert len(curves) == 8
    height = float(drawing.get("height", "0"))
    points = [point.split(",") for curve in curves for point in curve.get("points", "").split()]
    assert all(0 <= float(x) <= float(drawing.get("width", "0")) and 0 < float(y) < height for x, y in points)
    words = {text.text for text in drawing.iter(f"{NAME}text")}
    assert {"replicas", "requests", "Slurm jobs that wait", "latency", "failed", "2", "0.5 s"} <= words


def test_a_terminal_gets_the_same_in_blocks() -> None:
    console = Console(width=100, record=True, color_system=None)
    show(console, *played())
    lines = console.export_text().splitlines()
    (ready,) = [line for line in lines if line.startswith("ready")]
    assert ready.endswith("     1")
    assert max(map(len, lines)) <= 100

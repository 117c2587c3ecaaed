"""The demo's picture of a time line is well-formed, has every span, and keeps its words inside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

from e2e.demo.picture import COLOURS, LEFT, RIGHT, WIDTH, WORDS, svg
from e2e.witness import Span
from e2e.witness.timeline import OWNERS

START = datetime(2026, 1, 1, tzinfo=UTC)
NAME = "{http://www.w3.org/2000/svg}"


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def test_every_owner_has_a_colour_and_a_word() -> None:
    assert set(COLOURS) == set(WORDS) == set(OWNERS)


def test_a_time_line_becomes_bars_of_its_lengths() -> None:
    spans = [Span(at(0), at(25), "Kubernetes"), Span(at(25), at(30), "none"), Span(at(30), at(100), "Slurm")]
    drawing = ElementTree.fromstring(svg({"gpu-1": spans}, [(at(26), "a <lend> & more")], "title"))  # noqa: S314 - ours
    bars = [one for one in drawing.iter(f"{NAME}rect") if one.find(f"{NAME}title") is not None]
    whole = WIDTH - LEFT - RIGHT
    assert [round(float(bar.get("width", "0")) / whole, 2) for bar in bars] == [0.25, 0.05, 0.7]
    assert [bar.get("fill") for bar in bars] == [COLOURS["Kubernetes"], COLOURS["none"], COLOURS["Slurm"]]
    assert "a <lend> & more" in [text.text for text in drawing.iter(f"{NAME}text")]


def test_words_near_the_right_edge_stand_to_the_left_of_their_line() -> None:
    marks = [(at(1), "early"), (at(99), "late"), (at(50), "x" * 100)]
    drawing = ElementTree.fromstring(svg({"n": [Span(at(0), at(100), "Slurm")]}, marks, "title"))  # noqa: S314 - ours
    anchors = {text.text: text.get("text-anchor") for text in drawing.iter(f"{NAME}text")}
    assert (anchors["early"], anchors["late"], anchors["x" * 100]) == ("start", "end", "end")

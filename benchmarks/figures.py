"""Figures, their aims, and the tables that show both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured quantity. `aim` is what it shall not exceed (or fall below, if `at_least`), in the same unit; None
    when nothing was promised."""

    what: str
    value: float
    unit: str
    aim: float | None = None
    of: int = 1
    """How many measurements it sums up."""
    at_least: bool = False

    @property
    def missed(self) -> bool:
        """Whether it is worse than its aim."""
        return self.aim is not None and (self.value < self.aim if self.at_least else self.value > self.aim)

    @property
    def is_close(self) -> bool:
        """Whether it meets its aim with less than a fifth to spare."""
        if self.aim is None or self.missed:
            return False
        return self.value < 1.2 * self.aim if self.at_least else 0.8 * self.aim < self.value

    @property
    def told(self) -> str:
        """The figure with its unit."""
        return f"{_short(self.value)} {self.unit}".rstrip()

    @property
    def row(self) -> str:
        """A row of the table of figures."""
        words = "at least " if self.at_least else ""
        aim = "" if self.aim is None else f"{words}{_short(self.aim)} {self.unit}".rstrip()
        verdict = "" if self.aim is None else "missed" if self.missed else "met"
        return f"| {self.what} | {self.of} | {self.told} | {aim} | {verdict} |"


HEAD = "| what | measurements | figure | aim | |\n|---|---:|---:|---:|---|"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all values does not exceed. Raises `ValueError` without values."""
    if not values:
        raise ValueError("there is no percentile of nothing")
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def p50_p95(what: str, seconds: Sequence[float], aim_p95: float) -> list[Figure]:
    """Median and 95th percentile of durations, the latter with its aim."""
    return [
        Figure(f"{what}, p50", percentile(seconds, 0.5), "s", None, len(seconds)),
        Figure(f"{what}, p95", percentile(seconds, 0.95), "s", aim_p95, len(seconds)),
    ]


def steps_table(steps: Mapping[str, Sequence[float]]) -> str:
    """A table of durations by step, in the order given."""
    rows = [
        f"| {name} | {len(seconds)} | {percentile(seconds, 0.5):.2f} | {percentile(seconds, 0.95):.2f} |"
        for name, seconds in steps.items()
        if seconds
    ]
    return "\n".join(["| step | measurements | p50 in s | p95 in s |", "|---|---:|---:|---:|", *rows])


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}".rstrip("0").rstrip(".")

"""What was so in each second of the burst, on both sides and for the clients."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from e2e.background import Background
from e2e.clients import Outcome


@dataclass(frozen=True)
class Sample:
    """One look."""

    time: datetime
    wanted: int
    """Replicas that the scaler asked for."""
    ready: int
    in_flight: int
    """Requests without an answer."""
    pending: int
    """Jobs that wait in Slurm."""


@dataclass(frozen=True)
class Second:
    """The requests that began within one second."""

    time: datetime
    count: int
    failed: int
    median: float
    worst: float
    """Seconds to the answer."""


class Record(Background):
    """Looks once a second; use it as a context."""

    def __init__(self, look: Callable[[datetime], Sample]) -> None:
        super().__init__("record")
        self.samples: list[Sample] = []
        self._look = look

    def work(self) -> None:
        while not self.end.wait(1.0):
            self.samples.append(self._look(datetime.now(UTC)))


def by_second(outcomes: Sequence[Outcome]) -> list[Second]:
    """What the clients met, second by second."""
    groups: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(int(outcome.began), []).append(outcome)
    return [
        Second(
            time=datetime.fromtimestamp(second, UTC),
            count=len(group),
            failed=sum(bool(one.problem) for one in group),
            median=statistics.median(one.seconds for one in group),
            worst=max(one.seconds for one in group),
        )
        for second, group in sorted(groups.items())
    ]


def quantile(outcomes: Sequence[Outcome], share: float) -> float:
    """The latency that this share of the requests stays below."""
    seconds = sorted(one.seconds for one in outcomes)
    return seconds[min(int(len(seconds) * share), len(seconds) - 1)]

"""What was so in each second of the burst, on both sides and for the clients."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

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


class Record:
    """Looks once a second; use it as a context."""

    def __init__(self, look: Callable[[datetime], Sample]) -> None:
        self.samples: list[Sample] = []
        self._look = look
        self._error: BaseException | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(timeout=30)
        if self._error is not None and error is None:
            raise RuntimeError("the record died") from self._error

    def _run(self) -> None:
        try:
            while not self._end.wait(1.0):
                self.samples.append(self._look(datetime.now(UTC)))
        except Exception as error:  # noqa: BLE001 - told at the end, which fails the test
            self._error = error


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

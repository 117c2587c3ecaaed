"""Keeps a dead slurmrestd from being asked more often than does any good, and its last error visible."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from tidegate.slurm.errors import SlurmError

FAILURES = 3
"""So many failures in a row open the circuit."""
FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(seconds=10)


class Circuit:
    """Closed: everything passes. Open: nothing does until a pause is over. Half open: one request passes and decides.

    Each failed trial doubles the pause.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._open_until: datetime | None = None
        self._last: SlurmError | None = None

    def enter(self) -> None:
        """Ask to make a request; say afterwards what came of it. Raises the last error while the circuit is open."""
        if self._open_until is None or self._last is None:
            return
        now = self._clock()
        if now < self._open_until:
            raise self._last
        # half open: whoever comes while this trial runs finds the circuit open
        self._open_until = now + self._pause

    def succeeded(self) -> None:
        """Slurm answered, be it with a no."""
        self._failures, self._pause, self._open_until, self._last = 0, FIRST_PAUSE, None, None

    def failed(self, error: SlurmError) -> None:
        """There was no answer, or our token was refused."""
        self._failures += 1
        self._last = error
        if self._failures >= FAILURES:
            if self._failures > FAILURES:
                self._pause = min(self._pause * 2, LONGEST_PAUSE)
            self._open_until = self._clock() + self._pause

"""Work that goes on beside a scenario."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

PATIENCE_SECONDS = 30
"""So long it may take from the end of the context to that of the work."""


class Background(ABC):
    """A thread that works while the context is open. What ended it before that is raised when the context ends."""

    def __init__(self, name: str, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.end = threading.Event()
        """Set when the work shall come to its end."""
        self._name, self._patience_seconds = name, patience_seconds
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end.set()
        self._thread.join(timeout=self._patience_seconds)
        if self._error is not None and error is None:
            raise RuntimeError(f"the {self._name} died") from self._error

    @abstractmethod
    def work(self) -> None:
        """All that the thread does, until `end`."""

    def _run(self) -> None:
        try:
            self.work()
        except Exception as error:  # noqa: BLE001 - told at the end, which fails the test
            self._error = error

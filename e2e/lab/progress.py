"""Tells the person who waits what is going on and how long each part took."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn


class Progress:
    """One spinner per running part, one line per finished part; safe to use from several threads."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        self._bars = Bars(*columns, console=self._console, transient=True)
        self._running = 0
        self._lock = threading.Lock()

    def note(self, text: str) -> None:
        """One line that stays."""
        self._console.print(f"  {text}", markup=False, soft_wrap=True)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Shows the part while it runs, and its duration when it ends."""
        started = time.monotonic()
        with self._lock:
            self._running += 1
            if self._running == 1 and self._console.is_terminal:
                self._bars.start()
            task = self._bars.add_task(text, total=None)
        mark = "[red]failed[/]"
        try:
            yield
            mark = "[green]ok[/]"
        finally:
            with self._lock:
                self._bars.remove_task(task)
                self._running -= 1
                if self._running == 0:
                    self._bars.stop()
            self._console.print(f"  {mark} {text} [dim]{time.monotonic() - started:.1f} s[/]", soft_wrap=True)

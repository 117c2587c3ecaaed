"""The process around the operator: its log, and how it is told to end."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

_ENDS = (signal.SIGTERM, signal.SIGINT)


class _OneLine(logging.Formatter):
    """A record with its stack trace is one line, so that log collectors keep it together."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", "\\n")


def log_lines(level: str) -> None:
    """Log to stderr from now on. `level` is for our own records; libraries only warn, as some print what they send."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("tidegate").setLevel(level.upper())


async def until_told(work: Coroutine[Any, Any, None]) -> None:
    """Await `work` until it ends, or cancel it when the process gets SIGTERM or SIGINT. Call it on the main thread."""
    task, loop, told = asyncio.ensure_future(work), asyncio.get_running_loop(), threading.Event()

    def wait() -> None:
        signal.sigwait(_ENDS)
        told.set()
        loop.call_soon_threadsafe(task.cancel)

    # kopf puts its own handlers on these signals, which would end the watches alone. Blocked signals reach no handler.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    threading.Thread(target=wait, name="signals", daemon=True).start()
    try:
        await task
    except asyncio.CancelledError:
        if not told.is_set():
            raise

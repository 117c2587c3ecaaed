"""Processes named so that a number used again by the kernel is never taken for the old process."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.lab.errors import LabError


@dataclass(frozen=True)
class ProcessId:
    """A pid with the clock tick at which it started."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "ProcessId | None":
        """The process that has this pid now, None if there is none or it is only waiting to be reaped."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]))

    @property
    def alive(self) -> bool:
        return ProcessId.of(self.pid) == self

    @property
    def program(self) -> str:
        """The name of the program that it runs; empty for a process that is gone."""
        try:
            return Path(f"/proc/{self.pid}/exe").readlink().name if self.alive else ""
        except OSError:
            return ""

    def end(self, patience: float) -> None:
        """Asks the process to end, and kills it when it has not after `patience` seconds."""
        for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
            self._send(number)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                if not self.alive:
                    return
                time.sleep(0.02)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        # the pidfd pins the process, so nothing can take its number between the look and the signal
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                if self.alive:
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)


def all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def spawn(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> ProcessId:
    """Starts a daemon that outlives this process: in a session of its own, with its words appended to `log`."""
    path = shutil.which(command[0])
    if path is None:
        raise LabError(f"the program {command[0]} is missing")
    with log.open("a") as out:
        pid = os.posix_spawn(
            path,
            list(command),
            os.environ | environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, out.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, out.fileno(), 2),
            ],
            setsid=True,
        )
    started = ProcessId.of(pid)
    if started is None:
        raise LabError(f"{command[0]} ended at once (its words are in {log})")
    return started

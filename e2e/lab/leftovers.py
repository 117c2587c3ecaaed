"""Finds and ends what a private engine can leave behind when it is killed instead of stopped."""

import contextlib
import ctypes
import os
import time
from pathlib import Path

from e2e.lab.processes import ProcessId, all_pids

MARK = "TIDEGATE_LAB_ENGINE"
"""Set in dockerd's environment and so in containerd's, the shims' and the port proxies'."""

CGROUP = "/tidegate-lab"
"""The cgroup above every container of ours."""

MNT_DETACH = 2


def sweep(run: Path, data: Path) -> None:
    """Ends our processes, then takes away our mounts (which hold the network namespaces) and cgroups."""
    end_processes(run)
    for mount in our_mounts(Path("/proc/self/mountinfo").read_text(), run, data):
        _unmount(mount)
    for folder in _cgroups():
        with contextlib.suppress(OSError):
            folder.rmdir()


def end_processes(run: Path) -> None:
    """Kills engine helpers and container processes until none is left."""
    deadline = time.monotonic() + 10
    while (ours := our_processes(run)) and time.monotonic() < deadline:
        for process in ours:
            process.kill()
        time.sleep(0.05)


def our_processes(run: Path) -> list[ProcessId]:
    """The engine's own processes by their environment, and all that runs in containers by their cgroup."""
    mark = f"{MARK}={run}".encode()
    found = []
    for pid in all_pids():
        process = ProcessId.of(pid)
        if process is None or pid == os.getpid():
            continue
        with contextlib.suppress(OSError):
            folder = Path(f"/proc/{pid}")
            in_container = any(
                line.partition(":")[2].partition(":")[2].startswith(f"{CGROUP}/")
                for line in (folder / "cgroup").read_text().splitlines()
            )
            if in_container or mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(process)
    return found


def our_mounts(mountinfo: str, *roots: Path) -> list[str]:
    """Mount points below our directories, innermost first."""
    points = [line.split()[4].encode().decode("unicode_escape") for line in mountinfo.splitlines()]
    ours = [point for point in points if any(Path(point).is_relative_to(root) for root in roots)]
    return ours[::-1]


def _unmount(point: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.umount2(point.encode(), MNT_DETACH)


def _cgroups() -> list[Path]:
    root = Path("/sys/fs/cgroup")
    tops = [root, *(path for path in root.iterdir() if path.is_dir())] if root.is_dir() else []
    ours = [top / CGROUP.lstrip("/") for top in tops]
    folders = [Path(folder) for top in ours for folder, _, _ in os.walk(top, topdown=False)]
    return folders

"""Checks that end in one clear sentence, before anything is built or changed."""

import os
import re
import shutil
import socket
import subprocess
import zlib
from pathlib import Path

from e2e.lab.errors import LabError
from e2e.lab.machine import Machine
from e2e.lab.paths import cache_dir

GO = (1, 26)
FREE_GIB = 10
FIRST_FREE_GIB = 25
"""Go's caches, the programs built, and all images."""
RELEASES = ("24.11", "26.05")


def check_name(name: str) -> None:
    # the name becomes part of host names and of Kubernetes node names
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,29}", name):
        raise LabError(f"{name!r} cannot name a lab: use up to 30 lower-case letters, digits and hyphens")


def check_site(name: str, release: str, machine: Machine) -> None:
    """What a Slurm site needs of the machine."""
    if release not in RELEASES:
        raise LabError(f"Slurm {release} is not known to the lab: choose one of {', '.join(RELEASES)}")
    check_engine(machine)
    check_disk(cache_dir(), FREE_GIB if (cache_dir() / "docker").exists() else FIRST_FREE_GIB)
    check_go()


def check_lab(name: str, release: str, machine: Machine) -> None:
    """What a whole lab needs of the machine."""
    check_site(name, release, machine)
    check_port(api_port(name), name)


def check_engine(machine: Machine) -> None:
    """Either an engine answers to this user, or this user can start one."""
    if machine.root or _answers():
        return
    sock = Path("/var/run/docker.sock")
    if sock.exists() and not os.access(sock, os.W_OK):
        raise LabError("Docker's socket is closed to you: join the group docker (and log in again), or run as root")
    raise LabError("no Docker engine answers and only root can start one: start Docker, or run as root")


def _answers() -> bool:
    if not shutil.which("docker"):
        return False
    asked = subprocess.run(["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, check=False)
    return asked.returncode == 0


def check_go() -> None:
    if not shutil.which("go"):
        raise LabError(f"Go is missing: install Go {GO[0]}.{GO[1]} or newer, the lab builds its tools with it")
    said = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    check_go_version(said.strip())


def check_go_version(version: str) -> None:
    match = re.match(r"go(\d+)\.(\d+)", version)
    if not match or (int(match[1]), int(match[2])) < GO:
        raise LabError(f"Go {GO[0]}.{GO[1]} or newer is needed, {version or 'an unknown version'} is installed")


def check_disk(folder: Path, gib: int) -> None:
    """The cache grows at the first start, and every lab writes some more while it runs."""
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free / 2**30
    if free < gib:
        raise LabError(
            f"{gib} GiB of free disk are needed in {there}, there are {free:.1f}: free some, or move"
            " the cache with XDG_CACHE_HOME"
        )


def api_port(name: str) -> int:
    """The port of 127.0.0.1 where the lab's API server listens: the same at every start, so that kubeconfigs last."""
    return 26000 + zlib.crc32(name.encode()) % 1000


def check_port(port: int, name: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise LabError(
                f"port {port} of 127.0.0.1 is in use and the lab {name} needs it for its API server:"
                " free it or give the lab another name"
            ) from None

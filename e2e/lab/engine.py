"""The container engine: one that is there already, or a private dockerd for as long as labs need it."""

import json
import os
import shutil
import socket
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException

from e2e.lab import leftovers
from e2e.lab.debian import install
from e2e.lab.errors import LabError
from e2e.lab.host_settings import make_room, restore_rules, restore_sysctls, save_rules, save_sysctls
from e2e.lab.machine import Machine
from e2e.lab.paths import cache_dir, only_maker
from e2e.lab.processes import ProcessId, spawn
from e2e.lab.progress import Progress
from e2e.lab.tools import OWN

RUN = Path("/run/tidegate-lab")
RECORD = RUN / "engine.json"
SOCKET = RUN / "docker.sock"
LOG = RUN / "dockerd.log"
DEFAULT_HOST = "unix:///var/run/docker.sock"

BRIDGE_PREFIX = "tglab"
"""How the names of our networks' links begin, by which their packet filter rules are known."""

SIDE_EFFECTS = ("/etc/docker", "/opt/containerd", "/run/docker", "/run/containerd", "/sys/fs/cgroup/systemd/docker")
"""Directories that dockerd and containerd make outside the places they were given."""

RUNTIME_WRAPPER = "without-resource"

_clients: dict[str, docker.DockerClient] = {}
_clients_lock = threading.Lock()


@dataclass
class Record:
    """What was there before the private engine, and who uses it: all that is needed to take it away again."""

    process: ProcessId | None = None
    users: list[str] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    data: str = ""

    @classmethod
    def load(cls) -> "Record | None":
        try:
            text = json.loads(RECORD.read_text())
        except FileNotFoundError:
            return None
        process = text.pop("process")
        return cls(process=ProcessId(**process) if process else None, **text)

    def save(self) -> None:
        RUN.mkdir(mode=0o755, exist_ok=True)
        fresh = RECORD.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self), indent=1))
        fresh.replace(RECORD)


@dataclass(frozen=True)
class Engine:
    """A reachable engine. `private` ones were started by the lab and end with its last user."""

    client: Any
    host: str
    private: bool

    @property
    def environment(self) -> dict[str, str]:
        """What makes `docker` and `kind` talk to this engine."""
        return {"DOCKER_HOST": self.host} if self.host else {}


def connect() -> Engine | None:
    """The engine that labs use now, if one answers."""
    record = Record.load()
    if record and record.process and record.process.alive:
        return _reach(f"unix://{SOCKET}", private=True)
    host = os.environ.get("DOCKER_HOST", "")
    return None if host == f"unix://{SOCKET}" else _reach(host, private=False)


def _reach(host: str, *, private: bool) -> Engine | None:
    """The engine at `host` if it answers; one client for each host serves the whole process."""
    if not _listens(host or DEFAULT_HOST):
        return None
    with _clients_lock:
        client = _clients.pop(host, None)
        try:
            client = client or _client(host)
            client.ping()
        except (DockerException, OSError):
            if client:
                client.close()
            return None
        _clients[host] = client
        return Engine(client, host, private)


def _listens(host: str) -> bool:
    """Whether somebody is behind a Unix socket; other kinds of address are for the client to try."""
    if not host.startswith("unix://"):
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(host.removeprefix("unix://")) == 0


def _client(host: str) -> docker.DockerClient:
    if host == os.environ.get("DOCKER_HOST", ""):
        return docker.from_env(timeout=600)
    return docker.DockerClient(base_url=host, timeout=600)


def acquire(user: str, machine: Machine, progress: Progress) -> Engine:
    """An engine for this lab; starts the private one where none is reached, also again after it died."""
    with only_maker(cache_dir() / "engine"):
        engine = connect()
        if engine is None:
            if not machine.root:
                raise LabError(
                    "no Docker engine answers and only root can start one:"
                    " start Docker and join its group, or run the lab as root"
                )
            progress.note("no Docker engine answers: a private one is started")
            with progress.step("Docker engine"):
                engine = _start(machine)
        if engine.private:
            record = Record.load() or Record()
            if user not in record.users:
                record.users.append(user)
                record.save()
        return engine


def release(user: str) -> None:
    """Says that this lab needs the engine no more; the last user's word ends a private one, whatever is left of it."""
    with only_maker(cache_dir() / "engine"):
        record = Record.load()
        if record is None:
            return
        record.users = [name for name in record.users if name != user]
        if record.users:
            record.save()
            return
        if client := _clients.pop(f"unix://{SOCKET}", None):
            client.close()
        if record.process:
            record.process.end(patience=20)
        leftovers.sweep(RUN, Path(record.data))
        restore_rules(record.rules, lambda rule: "DOCKER" in rule or BRIDGE_PREFIX in rule)
        restore_sysctls(record.sysctls)
        for path in record.absent:
            shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(RUN, ignore_errors=True)


def _start(machine: Machine) -> Engine:
    record = Record.load()
    if record is None:
        install(dockerd="docker.io", iptables="iptables", mmdebstrap="mmdebstrap")
        record = Record(
            sysctls=save_sysctls(),
            rules=save_rules(),
            absent=[path for path in SIDE_EFFECTS if not os.path.lexists(path)],
            data=str(cache_dir() / "docker"),
        )
        # saved before anything changes: a lab killed during its start can still be taken away
        record.save()
    make_room()
    Path(record.data).mkdir(parents=True, exist_ok=True)
    # The containerd of a killed engine may be dying still when the first dockerd finds it, and waits for it in vain.
    for _ in range(2):
        _drop_stale_files()
        record.process = spawn(_command(record, machine), LOG, {leftovers.MARK: str(RUN)})
        record.save()
        deadline = time.monotonic() + 60
        while record.process.alive and time.monotonic() < deadline:
            if engine := _reach(f"unix://{SOCKET}", private=True):
                return engine
            time.sleep(0.1)
    said = LOG.read_text().splitlines()[-1:] or ["no word"]
    raise LabError(f"dockerd did not start: {said[0]} (all of it in {LOG})")


def _drop_stale_files() -> None:
    """What a killed engine left: dockerd would take a number that only waits to be reaped for a living containerd."""
    containerd = RUN / "exec" / "containerd" / "containerd.pid"
    for file in (RUN / "docker.pid", containerd):
        if file.exists() and ProcessId.of(int(file.read_text() or 0)) is None:
            file.unlink()
    SOCKET.unlink(missing_ok=True)


def _command(record: Record, machine: Machine) -> list[str]:
    configuration = RUN / "daemon.json"
    settings: dict[str, Any] = {
        "data-root": record.data,
        "exec-root": str(RUN / "exec"),
        "pidfile": str(RUN / "docker.pid"),
        "hosts": [f"unix://{SOCKET}"],
        # every lab brings its own network; docker0 would outlive the engine
        "bridge": "none",
        "ip6tables": False,
        # one cgroup for all of ours: what escaped a crash is found there
        "cgroup-parent": leftovers.CGROUP,
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        # containers of other labs outlive an engine that was killed
        "live-restore": True,
        "log-driver": "json-file",
        "log-opts": {"max-size": "50m"},
    }
    if not machine.resource_capability:
        settings["oom-score-adjust"] = 0
        settings["default-runtime"] = RUNTIME_WRAPPER
        settings["runtimes"] = {RUNTIME_WRAPPER: {"path": str(OWN.build(LOG) / "runc-without-resource")}}
    configuration.write_text(json.dumps(settings, indent=1))
    return ["dockerd", "--config-file", str(configuration)]

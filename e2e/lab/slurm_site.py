"""A Slurm site in containers: controller, REST daemon, accounting, and compute nodes where they are wanted."""

import json
import secrets
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Self

from e2e.lab import engine as engines
from e2e.lab import slurm_conf
from e2e.lab.archives import Entry
from e2e.lab.containers import Containers, wait_until
from e2e.lab.engine import Engine
from e2e.lab.errors import LabError
from e2e.lab.images import Images
from e2e.lab.machine import Machine
from e2e.lab.network import Network
from e2e.lab.paths import state_dir
from e2e.lab.preflight import check_name, check_site
from e2e.lab.progress import Progress
from e2e.lab.record import Record
from e2e.lab.shell import run
from e2e.lab.tokens import slurm_token

SUITES = {"24.11": "trixie", "26.05": "sid"}
"""The Debian suite that carries each release."""

SLURM_UID = 64030
"""Debian's fixed number for the user slurm."""

REST_PORT = 6820
SHARED = "/shared"
API_VERSION = "v0.0.42"
"""The REST version that all releases have in common."""


class SlurmSite:
    """One running site. `up` makes it, `attach` finds it again, `down` takes it away."""

    kind: ClassVar = "Slurm site"
    started_by: ClassVar = "SlurmSite.up({name!r})"
    partition: ClassVar = slurm_conf.PARTITION

    def __init__(self, name: str, engine: Engine, record: Record) -> None:
        self.name = name
        self.slurm_release = record.release
        self._record = record
        self.directory = state_dir(name)
        self.shared_dir = self.directory / "shared"
        self.logs_dir = self.directory / "logs"
        self.keys_dir = self.directory / "keys"
        self.engine = engine
        self.network = Network(engine, name)
        self.containers = Containers(engine, name, self.network)
        self.images = Images(engine, Progress(), self.logs_dir)

    # -- life ---------------------------------------------------------------------------------------------------

    @classmethod
    def up(cls, name: str = "slurm", slurm: str = "24.11", workers: int = 0) -> Self:
        """One that answers, with `workers` compute nodes; the one that runs already if it was made the same way."""
        check_name(name)
        wanted = Record(kind=cls.kind, release=slurm, workers=workers)
        progress, machine = Progress(), Machine.look()
        # without its engine it is gone, whatever is written: a machine that started anew has the record alone
        if Record.load_complete(name, wanted) and engines.connect():
            running = cls.attach(name)
            with progress.step(f"{name} is up"):
                running._start_stopped()
            return running
        cls._check(name, slurm, machine)
        if Record.load(name):
            progress.note(f"{name} was left half made or half gone: what is there is taken away first")
            cls.remove(name)
        wanted.save(name)
        for finding in machine.findings():
            progress.note(finding)
        made = cls(name, engines.acquire(name, machine, progress), wanted)
        made.images.progress = progress
        made._prepare()
        made._make(machine, progress)
        wanted.complete = True
        wanted.save(name)
        return made

    @classmethod
    def attach(cls, name: str) -> Self:
        """One that runs already."""
        record = Record.load(name)
        engine = engines.connect()
        if record is None or record.kind != cls.kind or not record.complete or engine is None:
            raise LabError(f"no {cls.kind} named {name} is up: start it with `{cls.started_by.format(name=name)}`")
        return cls(name, engine, record)

    def down(self) -> None:
        """Takes away everything that `up` made."""
        self.remove(self.name)

    @classmethod
    def remove(cls, name: str) -> None:
        """The same for one that may be half made or half gone."""
        record = Record.load(name)
        if record is None:
            return
        engine = engines.acquire(name, Machine.look(), Progress())
        cls(name, engine, record)._take_away()
        engines.release(name)
        Record.forget(name)

    @classmethod
    def _check(cls, name: str, slurm: str, machine: Machine) -> None:
        check_site(name, slurm, machine)

    def _make(self, machine: Machine, progress: Progress) -> None:
        with progress.step(f"Slurm {self.slurm_release}"):
            self._start_daemons()
            for number in range(self._record.workers):
                self.add_node(f"node{number}")

    def _start_stopped(self) -> None:
        """Starts the parts that somebody stopped or killed."""
        stopped = [part for part, state in self.containers.parts().items() if state != "running"]
        for part in stopped:
            self.start(part)
        if stopped:
            wait_until("an answer of slurmrestd", self.answers, seconds=90)

    def _take_away(self) -> None:
        self.containers.remove_all()
        self.network.remove()

    # -- what others ask ----------------------------------------------------------------------------------------

    @property
    def rest_url(self) -> str:
        return f"http://{self.network.address('slurmrestd')}:{REST_PORT}"

    @property
    def slurmctld_address(self) -> str:
        """For slurmd's --conf-server: an address, because a name that does not resolve costs half a minute."""
        return f"{self.network.address('slurmctld')}:6817"

    @property
    def jwt_key(self) -> bytes:
        return (self.keys_dir / "jwt_hs256.key").read_bytes()

    @property
    def slurm_key(self) -> bytes:
        return (self.keys_dir / "slurm.key").read_bytes()

    def token(self, lifespan_seconds: int = 3600, user: str = "slurm") -> str:
        return slurm_token(self.jwt_key, user, lifespan_seconds)

    def rest(self, method: str, path: str, body: Any = None, *, user: str = "slurm") -> dict[str, Any]:
        """One REST call, for tests that need no client of their own."""
        request = urllib.request.Request(
            f"{self.rest_url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "X-SLURM-USER-NAME": user,
                "X-SLURM-USER-TOKEN": self.token(user=user),
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            result: dict[str, Any] = json.load(answer)
        return result

    def slurm(self, *args: str, user: str | None = None, input: str | None = None, check: bool = True) -> str:
        """Runs one of Slurm's commands beside the controller, as root or as `user`, in the shared directory."""
        return self._exec("slurmctld", args, user=user, input=input, check=check)

    def start(self, part: str) -> None:
        self.containers.get(part).start()

    def stop(self, part: str) -> None:
        self.containers.get(part).stop(timeout=10)

    def kill(self, part: str) -> None:
        """As kill -9 of everything in it."""
        self.containers.get(part).kill()

    def restart(self, part: str) -> None:
        self.containers.get(part).restart(timeout=10)

    def logs(self, part: str) -> str:
        return self.containers.logs(part)

    def status(self) -> dict[str, str]:
        """Each part with its state."""
        return self.containers.parts()

    # -- compute nodes as containers ------------------------------------------------------------------------------

    def add_node(
        self,
        name: str,
        *,
        gpus: int = 2,
        cpus: int = 2,
        memory_mb: int = 1000,
        extra: str = "",
        drained: str = "",
    ) -> None:
        """A dynamic node of the partition, drained if there is a reason; returns when the controller knows it."""
        offer = f"Feature={self.partition} Gres=gpu:{gpus} CPUs={cpus} RealMemory={memory_mb}"
        offer += f' State=DRAIN Reason="{drained}"' if drained else ""
        command = ["-D", "-Z", "-N", name, "--conf-server", self.slurmctld_address, "--conf", offer]
        self.containers.run(
            name,
            self.slurmd_image,
            command=[*command, *(["--extra", extra] if extra else [])],
            files={"/run/slurm-key/slurm.key": Entry(self.slurm_key, 0o600)},
            privileged=True,
            binds=self._binds,
        )

        def joined() -> bool:
            self.containers.check_running(name)
            return ("drained" if drained else "idle") in self.node_state(name)

        wait_until(f"the Slurm node {name}", joined, seconds=60)

    def remove_node(self, name: str) -> None:
        """Ends the node's container and deletes its record."""
        self.containers.remove(name)
        self.slurm("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=removed", check=False)
        self.slurm("scontrol", "delete", f"NodeName={name}")

    def node_state(self, name: str) -> str:
        """As sinfo prints it; empty for a node that the controller does not know."""
        return self.slurm("sinfo", "--noheader", "--nodes", name, "--format", "%T", check=False).strip()

    @property
    def slurmd_image(self) -> str:
        """The image of a compute node. It stays the same while the site is up, whatever becomes of its source."""
        if not self._record.slurmd_image:
            self._record.slurmd_image = self.images.build("slurmd", SUITES[self.slurm_release])
            self._record.save(self.name)
        return self._record.slurmd_image

    # -- parts ----------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Directories, keys and network of a new one."""
        for folder in (self.keys_dir, self.logs_dir, self.shared_dir):
            folder.mkdir(parents=True, exist_ok=True)
        self.shared_dir.chmod(0o1777)
        self.keys_dir.chmod(0o700)
        for name, size in (("slurm.key", 1024), ("jwt_hs256.key", 32)):
            (self.keys_dir / name).write_bytes(secrets.token_bytes(size))
        self.network.ensure()

    def _start_daemons(self) -> None:
        """Controller, REST and accounting, from nothing until they answer."""
        suite = SUITES[self.slurm_release]
        addresses = slurm_conf.Addresses(*(self.network.address(p) for p in ("slurmctld", "slurmrestd", "slurmdbd")))
        conf = Entry(slurm_conf.slurm_conf(addresses).encode())
        secret = {
            "/etc/slurm/slurm.key": Entry(self.slurm_key, 0o600, SLURM_UID),
            "/etc/slurm/jwt_hs256.key": Entry(self.jwt_key, 0o600, SLURM_UID),
        }
        accounting = secret | {
            "/etc/slurm/slurmdbd.conf": Entry(slurm_conf.slurmdbd_conf(addresses).encode(), 0o600, SLURM_UID)
        }
        control = secret | {
            "/etc/slurm/slurm.conf": conf,
            "/etc/slurm/gres.conf": Entry(slurm_conf.gres_conf().encode()),
            "/etc/slurm/cgroup.conf": Entry(slurm_conf.cgroup_conf().encode()),
        }
        image = self.images.build("slurmctld", suite)
        with ThreadPoolExecutor() as pool:
            made = [
                pool.submit(self.containers.run, "slurmdbd", self.images.build("slurmdbd", suite), files=accounting),
                pool.submit(
                    self.containers.run,
                    "slurmctld",
                    image,
                    files=control,
                    hostname=slurm_conf.CONTROLLER,
                    binds=self._binds,
                    # srun's steps call back, and jobs started here must see what the nodes see
                    dns_opt=["timeout:1", "attempts:1"],
                ),
                pool.submit(
                    self.containers.run,
                    "slurmrestd",
                    image,
                    files={"/etc/slurm/slurm.conf": conf},
                    user="slurmrestd",
                    environment={
                        "SLURM_JWT": "daemon",
                        "SLURMRESTD_SECURITY": "disable_unshare_sysv,disable_unshare_files",
                    },
                    command=["slurmrestd", "-s", "slurmctld,slurmdbd", "-a", "rest_auth/jwt", f"0.0.0.0:{REST_PORT}"],
                ),
            ]
            for part in made:
                part.result()
        wait_until("an answer of slurmrestd", self.answers, seconds=90)

    def answers(self) -> bool:
        """Whether controller and accounting answer a REST call with a token."""
        self.containers.check_running("slurmctld", "slurmdbd", "slurmrestd")
        try:
            pings = self.rest("GET", f"/slurm/{API_VERSION}/ping/").get("pings") or []
            clusters = self.rest("GET", f"/slurmdb/{API_VERSION}/clusters/").get("clusters") or []
        except OSError:
            return False
        return bool(pings) and bool(clusters) and any(ping.get("pinged") in ("UP", True) for ping in pings)

    @property
    def _binds(self) -> dict[str, dict[str, str]]:
        return {str(self.shared_dir): {"bind": SHARED, "mode": "rw"}}

    def _exec(self, part: str, args: tuple[str, ...], *, user: str | None, input: str | None, check: bool) -> str:
        command = ["docker", "exec", "--workdir", SHARED]
        command += ["--user", user] if user else []
        command += ["--interactive"] if input is not None else []
        return run(
            [*command, self.containers.get(part).name, *args], env=self.engine.environment, input=input, check=check
        )

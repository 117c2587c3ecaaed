"""The whole lab: a kind cluster, a Slurm site on the same network, Prometheus, and what ties them together."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from e2e.lab import engine as engines
from e2e.lab.cluster import Cluster
from e2e.lab.engine import Engine
from e2e.lab.errors import LabError
from e2e.lab.kwok import Kwok
from e2e.lab.machine import Machine
from e2e.lab.paths import REPOSITORY
from e2e.lab.preflight import check_lab, check_name
from e2e.lab.progress import Progress
from e2e.lab.prometheus import start_prometheus
from e2e.lab.record import Record
from e2e.lab.shell import run
from e2e.lab.slurm_site import SlurmSite
from e2e.lab.tools import HELM, HOST_TOOLS, KIND, KUBECTL, tool

DEFAULT_NAME = "tidegate"
OPERATOR_IMAGE = "tidegate/operator:dev"


class Lab:
    """One running lab. `up` makes it, `attach` finds it again, `down` takes it away."""

    gpus_per_node = 2
    partition = SlurmSite.partition
    operator_image = OPERATOR_IMAGE

    def __init__(self, name: str, engine: Engine, record: Record) -> None:
        self.name = name
        self.site = SlurmSite(name, engine, record)
        self.cluster = Cluster(name, engine, self.site.network, self.site.directory, record.workers)
        self._engine = engine

    # -- life ---------------------------------------------------------------------------------------------------

    @classmethod
    def up(cls, name: str = DEFAULT_NAME, slurm: str = "24.11", workers: int = 3, kwok_nodes: int = 0) -> "Lab":
        """A lab in which everything answers; the one that runs already if it was made the same way."""
        check_name(name)
        wanted = Record(kind="lab", release=slurm, workers=workers)
        progress, machine = Progress(), Machine.look()
        if running := Record.load_complete(name, wanted):
            lab = cls.attach(name)
            lab._start_stopped(running, progress)
        else:
            check_lab(name, slurm, machine)
            if Record.load(name):
                progress.note(f"what an unfinished start left of {name} is taken away first")
                cls.remove(name)
            wanted.save(name)
            for finding in machine.findings():
                progress.note(finding)
            lab = cls(name, engines.acquire(name, machine, progress), wanted)
            lab._make(machine, progress)
            wanted.complete = True
            wanted.save(name)
        if kwok_nodes:
            with progress.step(f"{kwok_nodes} kwok nodes"):
                lab.add_kwok_nodes(kwok_nodes)
        return lab

    @classmethod
    def attach(cls, name: str = DEFAULT_NAME) -> "Lab":
        """A lab that runs already."""
        record = Record.load(name)
        engine = engines.connect()
        if record is None or record.kind != "lab" or not record.complete or engine is None:
            raise LabError(f"no lab named {name} is up: start it with `python -m e2e.lab up --name {name}`")
        return cls(name, engine, record)

    def down(self) -> None:
        """Takes away everything that `up` made."""
        self.remove(self.name)

    @classmethod
    def remove(cls, name: str) -> None:
        """The same for a lab that may be half made or half gone."""
        record = Record.load(name)
        if record is None:
            return
        engines.revive(Machine.look())
        engine = engines.connect()
        if engine is not None:
            lab = cls(name, engine, record)
            with ThreadPoolExecutor() as pool:
                for part in (pool.submit(lab.cluster.delete), pool.submit(lab.site.containers.remove_all)):
                    part.result()
            lab.site.network.remove()
        engines.release(name)
        Record.forget(name)

    def _make(self, machine: Machine, progress: Progress) -> None:
        site, cluster = self.site, self.cluster
        site.prepare()
        site.images.progress = progress
        with progress.step("tools"):
            for family in (KIND, KUBECTL, HELM):
                family.build(site.logs_dir / "tools.log")
        site.network.ensure()
        with ThreadPoolExecutor() as pool:
            slurm = pool.submit(self._make_slurm, progress)
            archive = pool.submit(self._worker_images, progress)
            with progress.step(f"Kubernetes, {len(cluster.workers)} workers"):
                cluster.create(site.images, machine, site.shared_dir, site.logs_dir / "kind.log")
                cluster.advertise_gpus(self.gpus_per_node)
            prometheus = pool.submit(start_prometheus, site.containers, site.images, cluster.kubeconfig_inside())
            with progress.step("images onto the workers"):
                cluster.load(archive.result())
            with progress.step("Kubernetes ready"):
                cluster.wait_ready(self.gpus_per_node)
            for part in (slurm, prometheus):
                part.result()

    def _worker_images(self, progress: Progress) -> Path:
        """One archive of all that pods on the workers run, so that common layers are brought there once."""
        tags = [self.site.slurmd_image]
        if self._build_operator(progress):
            tags.append(OPERATOR_IMAGE)
        return self.site.images.archive("workers", tags)

    def _build_operator(self, progress: Progress) -> bool:
        if not (REPOSITORY / "Dockerfile").exists():
            progress.note("the project has no Dockerfile: no operator image is made")
            return False
        self.site.images.build_project(REPOSITORY, OPERATOR_IMAGE)
        return True

    def _make_slurm(self, progress: Progress) -> None:
        with progress.step(f"Slurm {self.slurm_release}"):
            self.site.start_daemons()

    def _start_stopped(self, record: Record, progress: Progress) -> None:
        """Starts what somebody stopped or killed."""
        with progress.step(f"{self.name} is up"):
            stopped = [name for name in self.cluster.nodes if self.site.containers.get(name).status != "running"]
            for node in stopped:
                self.start(node)
            self.site.start_stopped(record)
            self.cluster.wait_ready(self.gpus_per_node)

    # -- Kubernetes -----------------------------------------------------------------------------------------------

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, good on the host."""
        return self.cluster.kubeconfig

    @property
    def workers(self) -> list[str]:
        """The names of the real worker nodes."""
        return self.cluster.workers

    def kubectl(self, *args: str, input: str | None = None) -> str:
        return self.cluster.kubectl(*args, input=input)

    def node_exec(self, node: str, *args: str) -> str:
        """Runs a program on a kind node."""
        return run(["docker", "exec", node, *args], env=self._engine.environment)

    def restart_apiserver(self) -> None:
        """Kills the API server; returns when the next one is ready."""
        self.cluster.restart_apiserver()

    def audit_log(self) -> Iterator[dict[str, Any]]:
        """Every request that the API server answered so far, without bodies."""
        return self.cluster.audit_events()

    def add_kwok_nodes(self, count: int) -> None:
        """Brings the number of simulated nodes to `count` at least."""
        Kwok(self.site.containers, self.site.images, self.cluster, self.gpus_per_node).ensure(count)

    def load_operator(self) -> None:
        """Builds the operator's image anew from the project's Dockerfile and brings it onto the workers."""
        progress = Progress()
        if self._build_operator(progress):
            with progress.step("operator image onto the workers"):
                self.cluster.load(self.site.images.archive("operator", [OPERATOR_IMAGE]))

    def tool(self, name: str) -> Path:
        """The path of kind, kubectl, helm or kwok, as the lab uses them."""
        return tool(name)

    def environment(self) -> dict[str, str]:
        """What a shell needs so that the lab's tools talk to this lab."""
        folders = dict.fromkeys(str(family.folder) for family in HOST_TOOLS.values() if family.folder.exists())
        return {"KUBECONFIG": str(self.kubeconfig), "PATH": ":".join(folders)} | self._engine.environment

    # -- Slurm ----------------------------------------------------------------------------------------------------

    @property
    def rest_url(self) -> str:
        """Good on the host and in pods."""
        return self.site.rest_url

    @property
    def slurm_release(self) -> str:
        return self.site.slurm_release

    @property
    def slurmctld_address(self) -> str:
        return self.site.slurmctld_address

    @property
    def slurmd_image(self) -> str:
        """Present on every worker."""
        return self.site.slurmd_image

    @property
    def jwt_key(self) -> bytes:
        return self.site.jwt_key

    @property
    def slurm_key(self) -> bytes:
        return self.site.slurm_key

    @property
    def shared_dir(self) -> Path:
        """The host's view of /shared, which controller and workers have too."""
        return self.site.shared_dir

    def token(self, lifespan_seconds: int = 3600, user: str = "slurm") -> str:
        return self.site.token(lifespan_seconds, user)

    def slurm(self, *args: str, user: str | None = None, input: str | None = None, check: bool = True) -> str:
        return self.site.slurm(*args, user=user, input=input, check=check)

    # -- parts ----------------------------------------------------------------------------------------------------

    def start(self, part: str) -> None:
        self.site.start(part)

    def stop(self, part: str) -> None:
        self.site.stop(part)

    def kill(self, part: str) -> None:
        self.site.kill(part)

    def restart(self, part: str) -> None:
        self.site.restart(part)

    def logs(self, part: str) -> str:
        return self.site.logs(part)

    def status(self) -> dict[str, str]:
        """Each part with its state."""
        nodes = {name: str(self.site.containers.get(name).status) for name in self.cluster.nodes}
        return nodes | self.site.status()

"""The whole lab: a kind cluster, a Slurm site on the same network, Prometheus, and what ties them together."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Self

from e2e.lab.cluster import Cluster
from e2e.lab.engine import Engine
from e2e.lab.kwok import Kwok
from e2e.lab.machine import Machine
from e2e.lab.paths import REPOSITORY
from e2e.lab.preflight import check_lab
from e2e.lab.progress import Progress
from e2e.lab.prometheus import PORT, start_prometheus
from e2e.lab.record import Record
from e2e.lab.shell import run
from e2e.lab.slurm_site import SlurmSite
from e2e.lab.tools import HELM, HOST_TOOLS, KIND, KUBECTL, tool

DEFAULT_NAME = "tidegate"
OPERATOR_IMAGE = "tidegate/operator:dev"


class Lab(SlurmSite):
    """One running lab: a Slurm site whose compute nodes are pods on the workers of a Kubernetes cluster beside it."""

    kind: ClassVar = "lab"
    started_by: ClassVar = "python -m e2e.lab up --name {name}"
    gpus_per_node: ClassVar = 2
    operator_image: ClassVar = OPERATOR_IMAGE

    def __init__(self, name: str, engine: Engine, record: Record) -> None:
        super().__init__(name, engine, record)
        self.cluster = Cluster(name, engine, self.network, self.directory, record.workers)

    # -- life ---------------------------------------------------------------------------------------------------

    @classmethod
    def up(cls, name: str = DEFAULT_NAME, slurm: str = "24.11", workers: int = 3, kwok_nodes: int = 0) -> Self:
        """A lab in which everything answers; the one that runs already if it was made the same way."""
        lab = super().up(name, slurm, workers)
        if kwok_nodes:
            with Progress().step(f"{kwok_nodes} kwok nodes"):
                lab.add_kwok_nodes(kwok_nodes)
        return lab

    @classmethod
    def attach(cls, name: str = DEFAULT_NAME) -> Self:
        """A lab that runs already."""
        return super().attach(name)

    @classmethod
    def _check(cls, name: str, slurm: str, machine: Machine) -> None:
        check_lab(name, slurm, machine)

    def _make(self, machine: Machine, progress: Progress) -> None:
        cluster = self.cluster
        with progress.step("tools"):
            for family in (KIND, KUBECTL, HELM):
                family.build(self.logs_dir / "tools.log")
        with ThreadPoolExecutor() as pool:
            slurm = pool.submit(self._make_slurm, progress)
            archive = pool.submit(self._worker_images, progress)
            with progress.step(f"Kubernetes, {len(cluster.workers)} workers"):
                cluster.create(self.images, machine, self.shared_dir, self.logs_dir / "kind.log")
                cluster.advertise_gpus(self.gpus_per_node)
            prometheus = pool.submit(start_prometheus, self.containers, self.images, cluster.kubeconfig_inside())
            with progress.step("images onto the workers"):
                cluster.load(archive.result())
            with progress.step("Kubernetes ready"):
                cluster.wait_ready(self.gpus_per_node)
            for part in (slurm, prometheus):
                part.result()

    def _make_slurm(self, progress: Progress) -> None:
        with progress.step(f"Slurm {self.slurm_release}"):
            self._start_daemons()

    def _worker_images(self, progress: Progress) -> Path:
        """One archive of all that pods on the workers run, so that common layers are brought there once."""
        tags = [self.slurmd_image]
        if self._build_operator(progress):
            tags.append(OPERATOR_IMAGE)
        return self.images.archive("workers", tags)

    def _build_operator(self, progress: Progress) -> bool:
        if not (REPOSITORY / "Dockerfile").exists():
            progress.note("the project has no Dockerfile: no operator image is made")
            return False
        self.images.build_project(REPOSITORY, OPERATOR_IMAGE)
        return True

    def _start_stopped(self) -> None:
        stopped = [name for name in self.cluster.nodes if self.containers.get(name).status != "running"]
        for node in stopped:
            self.start(node)
        super()._start_stopped()
        self.cluster.wait_ready(self.gpus_per_node)

    def _take_away(self) -> None:
        with ThreadPoolExecutor() as pool:
            for part in (pool.submit(self.cluster.delete), pool.submit(self.containers.remove_all)):
                part.result()
        self.network.remove()

    # -- Kubernetes -----------------------------------------------------------------------------------------------

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, good on the host."""
        return self.cluster.kubeconfig

    @property
    def workers(self) -> list[str]:
        """The names of the real worker nodes."""
        return self.cluster.workers

    @property
    def prometheus_url(self) -> str:
        """Good on the host."""
        return f"http://{self.network.address('prometheus')}:{PORT}"

    def kubectl(self, *args: str, input: str | None = None) -> str:
        return self.cluster.kubectl(*args, input=input)

    def node_exec(self, node: str, *args: str) -> str:
        """Runs a program on a kind node."""
        return run(["docker", "exec", node, *args], env=self.engine.environment)

    def restart_apiserver(self) -> None:
        """Kills the API server; returns when the next one is ready."""
        self.cluster.restart_apiserver()

    def audit_log(self) -> Iterator[dict[str, Any]]:
        """Every request that the API server answered so far, without bodies."""
        return self.cluster.audit_events()

    def add_kwok_nodes(self, count: int) -> None:
        """Brings the number of simulated nodes to `count` at least."""
        Kwok(self.containers, self.images, self.cluster, self.gpus_per_node).ensure(count)

    def load_operator(self) -> None:
        """Builds the operator's image anew from the project's Dockerfile and brings it onto the workers."""
        progress = Progress()
        if self._build_operator(progress):
            with progress.step("operator image onto the workers"):
                self.cluster.load_image(OPERATOR_IMAGE)

    def load_model_server(self) -> str:
        """Builds the image of a real model server once, which takes ten minutes, and brings it onto the workers."""
        tag = self.images.build("llama", "trixie")
        with Progress().step("model server onto the workers"):
            self.cluster.load_image(tag)
        return tag

    def tool(self, name: str) -> Path:
        """The path of kind, kubectl, helm or kwok, as the lab uses them."""
        return tool(name)

    def environment(self) -> dict[str, str]:
        """What a shell needs so that the lab's tools talk to this lab."""
        folders = dict.fromkeys(str(family.folder) for family in HOST_TOOLS.values() if family.folder.exists())
        slurm = {
            "LAB_SLURM_ENDPOINT": self.rest_url,
            "LAB_SLURM_CONTROLLER": self.slurmctld_address,
            "LAB_SLURM_KEYS": str(self.keys_dir),
            "LAB_SLURMD_IMAGE": self.slurmd_image,
        }
        return {"KUBECONFIG": str(self.kubeconfig), "PATH": ":".join(folders)} | slurm | self.engine.environment

    def status(self) -> dict[str, str]:
        """Each part with its state."""
        nodes = {name: str(self.containers.get(name).status) for name in self.cluster.nodes}
        return nodes | super().status()

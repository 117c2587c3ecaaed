"""The Kubernetes part of a lab: a kind cluster with GPUs that are only a number."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from e2e.lab.containers import wait_until
from e2e.lab.engine import Engine
from e2e.lab.errors import LabError
from e2e.lab.gpus import advertise_gpus
from e2e.lab.images import Images
from e2e.lab.kind_config import AUDIT_POLICY, ClusterShape, kind_config
from e2e.lab.machine import Machine
from e2e.lab.network import Network
from e2e.lab.node_image import REPOSITORY, build_node_image
from e2e.lab.preflight import api_port
from e2e.lab.shell import run
from e2e.lab.tools import KIND, KUBERNETES, tool

STOCK_IMAGE = f"kindest/node:{KUBERNETES}"


class Cluster:
    """One kind cluster on the lab's network."""

    def __init__(self, name: str, engine: Engine, network: Network, directory: Path, workers: int) -> None:
        self.name = name
        self.kubeconfig = directory / "kubeconfig"
        self.audit = directory / "audit"
        self.control_plane = f"{name}-control-plane"
        self.workers = [f"{name}-worker{number if number > 1 else ''}" for number in range(1, workers + 1)]
        self._directory = directory
        self._engine = engine
        self._network = network
        self._environment = engine.environment | {
            # kind's own default is one network for all clusters of an engine; ours goes with the lab
            "KIND_EXPERIMENTAL_DOCKER_NETWORK": network.name,
            "KUBECONFIG": str(self.kubeconfig),
        }

    @property
    def nodes(self) -> list[str]:
        return [self.control_plane, *self.workers]

    def create(self, images: Images, machine: Machine, shared: Path, log: Path) -> None:
        """Makes the cluster; returns as soon as kubeadm has joined every node."""
        self.audit.mkdir(exist_ok=True)
        (self.audit / "policy.yaml").write_text(yaml.safe_dump(AUDIT_POLICY))
        shape = ClusterShape(
            name=self.name,
            image=STOCK_IMAGE if images.registry else build_node_image(images, log.parent),
            workers=len(self.workers),
            api_port=api_port(self.name),
            shared=shared,
            audit=self.audit,
            image_repository=None if images.registry else REPOSITORY,
            cgroup=machine.cgroup,
        )
        config = self._directory / "kind.yaml"
        config.write_text(yaml.safe_dump(kind_config(shape)))
        self._kind("create", "cluster", "--config", str(config), log=log)

    def exists(self) -> bool:
        return self.name in self._kind("get", "clusters").split()

    def delete(self) -> None:
        if (KIND.folder / "kind").exists() and self.exists():
            self._kind("delete", "cluster", "--name", self.name)

    def load(self, archive: Path) -> None:
        """Brings the images of an archive onto the workers."""
        self._kind("load", "image-archive", str(archive), "--name", self.name, "--nodes", ",".join(self.workers))

    def load_image(self, tag: str) -> None:
        """Brings one image of the engine onto those workers that do not have this very one."""
        self._kind("load", "docker-image", tag, "--name", self.name, "--nodes", ",".join(self.workers))

    def kubectl(self, *args: str, input: str | None = None) -> str:
        return run([tool("kubectl"), *args], env={"KUBECONFIG": str(self.kubeconfig)}, input=input)

    def kubeconfig_inside(self) -> dict[str, Any]:
        """The administrator's kubeconfig with the address that is good on the lab's network."""
        config: dict[str, Any] = yaml.safe_load(self._kind("get", "kubeconfig", "--internal", "--name", self.name))
        return config

    def advertise_gpus(self, count: int) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: advertise_gpus(self._engine.client.containers.get(node), count), self.workers))

    def wait_ready(self, gpus: int) -> None:
        """Every node Ready, every GPU advertised, cluster DNS serving."""
        wait_until("a Ready node with its GPUs on each worker", lambda: self._nodes_ready(gpus), seconds=180, pause=0.5)
        wait_until("CoreDNS", self._dns_ready, seconds=120, pause=0.5)

    def _nodes_ready(self, gpus: int) -> bool:
        try:
            nodes = json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"]
        except LabError:
            return False
        ready = {node["metadata"]["name"] for node in nodes if _is_ready(node)}
        offered = {
            node["metadata"]["name"]
            for node in nodes
            if node["status"].get("allocatable", {}).get("nvidia.com/gpu") == str(gpus)
        }
        return ready >= set(self.nodes) and offered >= set(self.workers)

    def _dns_ready(self) -> bool:
        try:
            state = json.loads(self.kubectl("-n", "kube-system", "get", "deployment", "coredns", "-o", "json"))
        except LabError:
            return False
        return bool(state["status"].get("readyReplicas"))

    def restart_apiserver(self) -> None:
        """Kills the API server's container; returns when the next one is ready."""

        def crictl(*args: str) -> list[str]:
            command = ["docker", "exec", self.control_plane, "crictl", *args]
            return run(command, env=self._environment, check=False).split()

        find = ("ps", "--quiet", "--name", "kube-apiserver")
        old = crictl(*find)
        crictl("stop", "--timeout", "0", *old)

        def replaced() -> bool:
            now = crictl(*find)
            return bool(now) and not set(now) & set(old) and self.api_ready()

        wait_until("a new API server", replaced, seconds=120)

    def api_ready(self) -> bool:
        try:
            return self.kubectl("get", "--raw", "/readyz").strip() == "ok"
        except LabError:
            return False

    def audit_events(self) -> Iterator[dict[str, Any]]:
        """What the API server was asked so far, in order."""
        for path in sorted(self.audit.glob("audit*.log")):
            with path.open() as lines:
                for line in lines:
                    if line.endswith("\n"):
                        yield json.loads(line)

    def _kind(self, *args: str, log: Path | None = None) -> str:
        return run([tool("kind"), *args], env=self._environment, log=log)


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = node["status"].get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

"""Simulated nodes, for scale: kwok plays their kubelets."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import yaml

from e2e.lab.archives import Entry
from e2e.lab.cluster import Cluster
from e2e.lab.containers import Containers, wait_until
from e2e.lab.images import Images
from e2e.lab.tools import KWOK

PART = "kwok"
LABEL = "type=kwok"
STAGES = ("node/fast", "node/heartbeat-with-lease", "pod/fast")
"""What kwok needs to know about the life of nodes and pods, from its own module."""

CREATORS = 8


class Kwok:
    """kwok in a container beside the cluster."""

    def __init__(self, containers: Containers, images: Images, cluster: Cluster, gpus: int) -> None:
        self._containers = containers
        self._images = images
        self._cluster = cluster
        self._gpus = gpus

    def ensure(self, count: int) -> None:
        """At least that many simulated nodes, all Ready."""
        if not self._containers.exists(PART):
            self._start()
        there = self._numbers()
        missing = [node_manifest(number, self._gpus) for number in range(count) if number not in there]
        chunks = [missing[start::CREATORS] for start in range(CREATORS)]
        with ThreadPoolExecutor(CREATORS) as pool:
            list(pool.map(self._create, [chunk for chunk in chunks if chunk]))
        wait_until(f"{count} Ready kwok nodes", lambda: self._ready() >= count, seconds=120, pause=1)

    def _start(self) -> None:
        folder = KWOK.build(self._images.logs / "tools.log")
        tag = f"tidegate-lab/kwok:{folder.name}"
        if not self._images.present(tag):
            self._images.single_file(tag, "kwok", folder / "kwok")
        stages = KWOK.module_folder("sigs.k8s.io/kwok") / "kustomize" / "stage"
        texts = [path.read_text() for name in STAGES for path in sorted((stages / name).glob("*.yaml"))]
        documents = [item for text in texts for item in yaml.safe_load_all(text) if item and item["kind"] == "Stage"]
        self._containers.run(
            PART,
            tag,
            files={
                "/kwok.yaml": Entry(yaml.safe_dump_all(documents).encode()),
                "/kubeconfig": Entry(yaml.safe_dump(self._cluster.kubeconfig_inside()).encode()),
            },
            command=[
                "--kubeconfig=/kubeconfig",
                "--config=/kwok.yaml",
                f"--manage-nodes-with-label-selector={LABEL}",
                "--node-lease-duration-seconds=200",
            ],
        )

    def _create(self, nodes: list[dict[str, Any]]) -> None:
        manifest = {"apiVersion": "v1", "kind": "List", "items": nodes}
        self._cluster.kubectl("create", "-f", "-", input=json.dumps(manifest))

    def _numbers(self) -> set[int]:
        return {int(name.removeprefix("kwok-")) for name in self._column(".metadata.name")}

    def _ready(self) -> int:
        return self._column(".status.phase").count("Running")

    def _column(self, path: str) -> list[str]:
        """One value of each simulated node."""
        shown = ("--no-headers", "-o", f"custom-columns=VALUE:{path}")
        return self._cluster.kubectl("get", "nodes", "-l", LABEL, *shown).split()


def node_manifest(number: int, gpus: int) -> dict[str, Any]:
    """A node with GPUs on which nothing runs that does not ask for it."""
    name = f"kwok-{number}"
    room = {"cpu": "32", "memory": "256Gi", "pods": "110", "nvidia.com/gpu": str(gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            # without a label for the operating system: kube-proxy's DaemonSet, which tolerates everything, stays away
            "labels": {"type": "kwok", "kubernetes.io/hostname": name},
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        },
        "spec": {"taints": [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]},
        "status": {"allocatable": room, "capacity": room},
    }

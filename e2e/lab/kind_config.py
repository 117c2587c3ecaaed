"""The configuration of the lab's kind cluster, as data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

AUDIT_FOLDER = "/var/log/kubernetes/audit"
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


@dataclass(frozen=True)
class ClusterShape:
    """What differs from one lab to the other."""

    name: str
    image: str | None
    workers: int
    api_port: int
    shared: Path
    audit: Path
    image_repository: str | None
    cgroup: int


def kind_config(shape: ClusterShape) -> dict[str, Any]:
    """One control plane with an audit log, and workers that see the shared directory."""
    shared = {"hostPath": str(shape.shared), "containerPath": "/shared"}
    audit = {"hostPath": str(shape.audit), "containerPath": AUDIT_FOLDER}
    nodes: list[dict[str, Any]] = [{"role": "control-plane", "extraMounts": [shared, audit]}]
    nodes += [{"role": "worker", "extraMounts": [shared]} for _ in range(shape.workers)]
    if shape.image:
        nodes = [node | {"image": shape.image} for node in nodes]
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "name": shape.name,
        "networking": {"apiServerAddress": "127.0.0.1", "apiServerPort": shape.api_port},
        "nodes": nodes,
        "kubeadmConfigPatches": [yaml.safe_dump(patch) for patch in _patches(shape)],
    }


def _patches(shape: ClusterShape) -> list[dict[str, Any]]:
    cluster: dict[str, Any] = {
        "kind": "ClusterConfiguration",
        "apiServer": {
            "extraArgs": [
                {"name": "audit-policy-file", "value": f"{AUDIT_FOLDER}/policy.yaml"},
                {"name": "audit-log-path", "value": f"{AUDIT_FOLDER}/audit.log"},
                {"name": "audit-log-maxsize", "value": "2000"},
            ],
            "extraVolumes": [
                {"name": "audit", "hostPath": AUDIT_FOLDER, "mountPath": AUDIT_FOLDER, "pathType": "Directory"}
            ],
        },
    }
    if shape.image_repository:
        cluster["imageRepository"] = shape.image_repository
    # node status comes at least this often, so a lost worker is noticed in a minute and not in five
    kubelet: dict[str, Any] = {"kind": "KubeletConfiguration", "nodeStatusReportFrequency": "1m"}
    if shape.cgroup == 1:
        kubelet["failCgroupV1"] = False
    return [cluster, kubelet]

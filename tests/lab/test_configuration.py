"""The files that daemons are given, looked at without any daemon."""

import base64
import hashlib
import hmac
import json
from pathlib import Path

import pytest
import yaml

from e2e.lab import LabError
from e2e.lab.kind_config import ClusterShape, kind_config
from e2e.lab.kwok import node_manifest
from e2e.lab.machine_settings import parse_pip
from e2e.lab.network import host_networks
from e2e.lab.prometheus import prometheus_config
from e2e.lab.record import Record
from e2e.lab.slurm_conf import Addresses, slurm_conf, slurmdbd_conf
from e2e.lab.tokens import slurm_token

ADDRESSES = Addresses("172.28.0.250", "172.28.0.251", "172.28.0.252")
SHAPE = ClusterShape(
    name="small",
    image="node:1",
    workers=2,
    api_port=26001,
    shared=Path("/state/shared"),
    audit=Path("/state/audit"),
    image_repository="localhost/kube",
    cgroup=1,
)


def options(conf: str) -> dict[str, str]:
    lines = [line for line in conf.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_slurm_conf_names_the_controller_by_address() -> None:
    conf = options(slurm_conf(ADDRESSES))
    assert conf["SlurmctldHost"] == "slurm(172.28.0.250)"
    assert conf["AccountingStorageHost"] == "172.28.0.252"
    assert {"enable_configless", "cloud_reg_addrs"} == set(conf["SlurmctldParameters"].split(","))
    assert conf["PreemptMode"] == "REQUEUE"


def test_the_partition_always_has_a_node_so_that_jobs_are_accepted() -> None:
    placeholders = options(slurm_conf(ADDRESSES))["NodeName"]
    assert "State=DOWN" in placeholders
    assert "Feature=lent" in placeholders


def test_slurmdbd_conf() -> None:
    assert options(slurmdbd_conf(ADDRESSES))["DbdAddr"] == "172.28.0.252"


def test_kind_nodes_share_a_directory_and_the_api_server_keeps_an_audit_log() -> None:
    config = kind_config(SHAPE)
    assert [node["role"] for node in config["nodes"]] == ["control-plane", "worker", "worker"]
    shared = {"hostPath": "/state/shared", "containerPath": "/shared"}
    assert all(shared in node["extraMounts"] for node in config["nodes"])
    cluster, kubelet = (yaml.safe_load(patch) for patch in config["kubeadmConfigPatches"])
    assert cluster["imageRepository"] == "localhost/kube"
    assert {"audit-policy-file", "audit-log-path"} < {arg["name"] for arg in cluster["apiServer"]["extraArgs"]}
    assert kubelet["failCgroupV1"] is False


def test_a_stock_image_on_cgroup_v2_needs_no_exceptions() -> None:
    config = kind_config(ClusterShape(**{**vars(SHAPE), "image_repository": None, "cgroup": 2}))
    cluster, kubelet = (yaml.safe_load(patch) for patch in config["kubeadmConfigPatches"])
    assert "imageRepository" not in cluster
    assert "failCgroupV1" not in kubelet


def test_prometheus_reaches_pods_through_the_api_server() -> None:
    job = prometheus_config("https://small-control-plane:6443")["scrape_configs"][0]
    targets = {
        rule.get("target_label"): rule["replacement"] for rule in job["relabel_configs"] if "replacement" in rule
    }
    assert targets["__address__"] == "small-control-plane:6443"
    assert targets["__metrics_path__"].endswith("/proxy/metrics")


def test_simulated_nodes_take_no_pod_that_does_not_ask_for_them() -> None:
    node = node_manifest(7, 2)
    assert node["spec"]["taints"][0]["effect"] == "NoSchedule"
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "2"
    assert "kubernetes.io/os" not in node["metadata"]["labels"]


def test_a_token_is_signed_with_the_site_key() -> None:
    head, body, signature = slurm_token(b"k" * 32, "alice", 60).split(".")
    expected = hmac.new(b"k" * 32, f"{head}.{body}".encode(), hashlib.sha256).digest()
    assert base64.urlsafe_b64decode(signature + "==") == expected
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    assert claims["sun"] == "alice"
    assert claims["exp"] - claims["iat"] == 60


def test_pip_settings_of_the_environment_win() -> None:
    listed = ":env:.cert='/env.pem'\nglobal.cert='/file.pem'\nglobal.index-url='https://pip.test/simple'\n"
    assert parse_pip(listed) == {"cert": "/env.pem", "index-url": "https://pip.test/simple"}


def test_networks_that_the_host_routes() -> None:
    route = (
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "br0\t00051CAC\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    assert [str(network) for network in host_networks(route)] == ["172.28.5.0/24"]


def test_a_lab_is_not_silently_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    wanted = Record(kind="lab", release="24.11", workers=3)
    assert Record.load_complete("small", wanted) is None
    wanted.save("small")
    assert Record.load_complete("small", wanted) is None
    wanted.complete = True
    wanted.save("small")
    assert Record.load_complete("small", wanted) == wanted
    with pytest.raises(LabError, match="take it down first"):
        Record.load_complete("small", Record(kind="lab", release="26.05", workers=3))
    Record.forget("small")
    assert list(tmp_path.iterdir()) == []

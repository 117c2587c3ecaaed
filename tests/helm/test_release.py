"""A release of the chart on a real cluster: upgraded while nodes are lent, and gone only when they are home."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.lab import Lab
from e2e.operator import NAMESPACE, wait_for
from e2e.stage import POOL, Stage, condition
from tests.helm.test_files import CHART

pytestmark = pytest.mark.lab

RETURN_SECONDS = 40
"""Longer than a requeued job's loan takes, so that the job that may not be requeued is what the uninstall waits for."""


class Release:
    """What an admin does with helm, the operator's image being the one of this checkout."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def helm(self, *args: str) -> subprocess.CompletedProcess[str]:
        command = [str(self._lab.tool("helm")), *args, "--namespace", NAMESPACE]
        command += ["--kubeconfig", str(self._lab.kubeconfig)]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False
        )

    def deploy(self, **values: Any) -> None:
        """Install or upgrade, and wait until the operator is ready."""
        repository, _, tag = self._lab.operator_image.rpartition(":")
        values |= {"image.repository": repository, "image.tag": tag, "image.pullPolicy": "Never"}
        values |= {"returnAll.timeoutSeconds": RETURN_SECONDS}
        settings = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
        # the lab's other tests put the same objects there without helm
        adopt = ["--take-ownership", "--force-conflicts", "--server-side=true"]
        done = self.helm(
            "upgrade", "--install", "tidegate", str(CHART), "--create-namespace", "--wait", *adopt, *settings
        )
        assert done.returncode == 0, done.stderr

    def uninstall(self) -> subprocess.CompletedProcess[str]:
        return self.helm("uninstall", "tidegate", "--wait", "--timeout", "180s")

    def exists(self) -> bool:
        return self.helm("status", "tidegate").returncode == 0


@pytest.fixture
def release(lab: Lab) -> Iterator[Release]:
    lab.load_operator()
    release = Release(lab)
    release.deploy()
    yield release
    if release.exists():
        done = release.helm("uninstall", "tidegate", "--no-hooks", "--wait")
        assert done.returncode == 0, done.stderr


def uids(stage: Stage) -> dict[str, str]:
    """Everything that an upgrade must leave alone, and who it is."""
    found: dict[str, str] = {}
    for plural in ("customresourcedefinitions", "slurmclusters", "batchpools", "nodeloans", "capacityclaims"):
        found |= {f"{plural}/{o['metadata']['name']}": o["metadata"]["uid"] for o in stage.kube.list(plural)}
    slurmds = stage.kube.list("pods", NAMESPACE, labelSelector="app.kubernetes.io/name=slurmd")
    return found | {f"pods/{p['metadata']['name']}": p["metadata"]["uid"] for p in slurmds}


def scraped(lab: Lab, query: str) -> dict[str, float]:
    """The lab's Prometheus asked: values by their label `owner`, or by the empty word."""
    url = f"{lab.prometheus_url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        found = json.load(answer)["data"]["result"]
    return {one["metric"].get("owner", ""): float(one["value"][1]) for one in found}


def test_a_release_is_upgraded_and_uninstalled_without_losing_a_node_or_a_job(lab: Lab, release: Release) -> None:
    stage = Stage(lab)
    stage.clear()
    stage.set_up()
    easy, stubborn = stage.sleep_job(900), stage.sleep_job(900, "--no-requeue")
    stage.wait_lent(2)
    for job in (easy, stubborn):
        stage.wait_job(job, "RUNNING")

    wait_for("two lent nodes in Prometheus", lambda: scraped(lab, "tidegate_nodes").get("lent") == 2, 30)
    assert scraped(lab, 'up{job="tidegate"}') == {"": 1}

    before = uids(stage)
    release.deploy(logLevel="debug")
    assert uids(stage) == before
    assert {stage.state(easy), stage.state(stubborn)} == {"RUNNING"}

    # a job that may not be requeued keeps its node: the uninstall stops and says so, and the operator stays
    stopped = release.uninstall()
    assert stopped.returncode != 0
    kept = [loan["metadata"]["name"] for loan in stage.loans()]
    assert len(kept) == 1
    assert kept[0] in stopped.stdout + stopped.stderr
    assert release.exists()
    assert stage.state(stubborn) == "RUNNING"
    assert stage.state(easy) == "PENDING"
    assert stage.ready("batchpools", POOL)[0] != ""
    assert stage.kube.list("pods", NAMESPACE, labelSelector="app.kubernetes.io/component=operator")

    lab.slurm("scancel", str(stubborn))
    done = release.uninstall()
    assert done.returncode == 0, done.stderr
    assert not release.exists()
    stage.wait_home(5)
    assert stage.slurm_nodes() == {}
    assert all(condition(loan, "Returned") for loan in stage.loans(open_only=False))
    assert {name for name in before if name.startswith("customresource")} <= uids(stage).keys()
    pool = stage.kube.get("batchpools", POOL)
    assert pool is not None
    assert pool["spec"]["stopPolicy"] == "HoldAndDrain"
    left = [
        kind
        for kind in ("deployment", "job", "serviceaccount")
        if "tidegate" in lab.kubectl("get", kind, "-n", NAMESPACE)
    ]
    assert left == []

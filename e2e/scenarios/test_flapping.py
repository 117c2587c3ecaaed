"""Victims that leave at different times, and a node that fails each time it is lent: neither goes on for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from e2e.operator import wait_for
from e2e.stage import POOL, Stage, reason, slurmd_template
from e2e.witness import Witness

pytestmark = pytest.mark.scenarios
NEEDED = "/var/lib/e2e-scratch"


def release(kubeconfig: Path, *nodes: str) -> str:
    """`tidegate node release`, as an administrator types it; what it says."""
    command = [sys.executable, "-m", "tidegate.cli", "node", "release", *nodes, "--kubeconfig", str(kubeconfig)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_gang_whose_victims_leave_one_by_one_keeps_what_it_has(bare_stage: Stage) -> None:
    stage = bare_stage
    stage.set_up(recall={"graceful": {"drainSeconds": 60, "checkpointSeconds": 0, "requeueSeconds": 10}})
    first = [stage.sleep_job(seconds) for seconds in (16, 20, 24)]
    for job in first:
        stage.wait_job(job, "RUNNING", seconds=40)
    eager = [stage.sleep_job(3600) for _ in range(3)]
    stage.claim("gang", nodes=3, gang=True, recallClass="graceful")
    stage.wait_condition("capacityclaims", "gang", "True", "Held", "Satisfied", seconds=60)
    assert [stage.state(job) for job in first] == ["COMPLETED"] * 3
    assert [stage.job(job)["restart_cnt"] for job in first] == [0, 0, 0]
    assert all("PENDING" in stage.state(job) for job in eager), "no freed node was lent before the last one had come"
    loans = stage.loans(open_only=False)
    assert [reason(loan, "Recalled") for loan in loans] == ["Claimed"] * 3
    stage.kube.delete("capacityclaims", "gang", "ml")
    for job in eager:
        stage.wait_job(job, "RUNNING", seconds=60)


def test_a_node_that_fails_each_time_it_is_lent_is_quarantined_until_somebody_releases_it(
    bare_stage: Stage, witness: Witness
) -> None:
    stage, (bad, *good) = bare_stage, bare_stage.lab.workers
    template = slurmd_template()
    template["spec"]["volumes"].append({"name": "scratch", "hostPath": {"path": NEEDED, "type": "Directory"}})
    template["spec"]["containers"][0]["volumeMounts"].append({"name": "scratch", "mountPath": "/scratch"})
    for node in good:
        stage.lab.node_exec(node, "mkdir", "-p", NEEDED)
    try:
        lending = {"floor": 3, "joinSeconds": 6, "flapBudget": {"loans": 2, "windowSeconds": 600}}
        image = {"image": stage.lab.slurmd_image, "imagePullPolicy": "Never"}
        stage.set_up(lending=lending, slurmd={**image, "template": template})

        def quarantined() -> list[str]:
            pool = stage.kube.get("batchpools", POOL)
            assert pool is not None
            return [one["node"] for one in pool.get("status", {}).get("quarantined", [])]

        wait_for("a quarantine", quarantined, 90)
        assert quarantined() == [bad]
        assert sorted(loan["spec"]["nodeName"] for loan in stage.lent()) == good
        tries = [loan for loan in stage.loans(open_only=False) if loan["spec"]["nodeName"] == bad]
        assert [reason(loan, "Recalled") for loan in tries] == ["JoinOverdue"] * 2
        events = stage.kube.list("events", "default", fieldSelector=f"involvedObject.name={bad},reason=Quarantined")
        assert f"tidegate node release {bad}" in events[-1]["message"]
        stage.lab.node_exec(bad, "mkdir", "-p", NEEDED)
        assert release(stage.lab.kubeconfig, bad).startswith(f"node {bad}: released, it was quarantined until ")
        stage.wait_lent(3)
        assert quarantined() == []
    finally:
        for node in stage.lab.workers:
            stage.lab.node_exec(node, "rm", "-rf", NEEDED)
        witness.expect("annotation", bad)
        stage.kube.patch("nodes", bad, {"metadata": {"annotations": {"tidegate.dev/released": None}}})

"""The main trip on Slurm 26.05, whose slurmrestd speaks newer versions and can requeue: a small lab of its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from e2e.lab import Lab
from e2e.operator import Operator, install_rights, service_account_kubeconfig, wait_for
from e2e.scenarios.test_recall import job_of_loan
from e2e.stage import CLUSTER, WORK, Stage, restarts_in
from e2e.witness import Witness

pytestmark = pytest.mark.scenarios
NAME = "tidegate-2605"


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A clean stage on one worker and Slurm 26.05, with an operator; it is taken down afterwards."""
    folder = tmp_path_factory.mktemp("newer")
    lab = Lab.up(NAME, slurm="26.05", workers=1)
    install_rights(lab)
    operator = Operator(service_account_kubeconfig(lab, folder / "kubeconfig"), folder)
    operator.start()
    stage = Stage(lab)
    try:
        stage.clear()
        yield stage
    finally:
        stage.kube.close()
        operator.kill()
        lab.down()


def test_a_trip_with_a_recall_and_a_return(newer: Stage) -> None:
    stage = newer
    with Witness(stage.lab.kubeconfig, stage.lab.rest_url, stage.lab.token) as witness:
        stage.set_up()
        stage.wait_condition("slurmclusters", CLUSTER, "True", "Answering")
        cluster = stage.kube.get("slurmclusters", CLUSTER)
        assert cluster is not None
        assert cluster["status"]["release"].startswith("26.05")
        assert "requeue" in cluster["status"]["capabilities"]
        job = stage.checkpointing_job("count", 30)
        stage.wait_job(job, "RUNNING")
        wait_for("a running count", lambda: "starts at 0" in stage.log_of("count"), 20)
        stage.deployment("web", 1)
        stage.wait_running("web", 1)
        assert "saved" in stage.log_of("count")
        assert job_of_loan(stage, job)["action"] == "Requeued"
        stage.scale("web", 0)
        stage.wait_job(job, "COMPLETED", seconds=60)
        first, second = restarts_in(stage.log_of("count"))
        assert first == 0
        assert second > 0
        stage.wait_home()
        verdict = witness.verdict()
    assert verdict.ok, str(verdict)
    assert verdict.jobs == 1


def test_slurm_keeps_long_jobs_off_a_node_that_is_reserved(newer: Stage) -> None:
    """The long job is first in the queue, and still does not get the node that was lent for the short one."""
    stage = newer
    stage.clear()
    stage.set_up()
    start = datetime.now(UTC) + timedelta(hours=1)
    stage.claim("later", startTime=start.isoformat(), durationSeconds=600)
    stage.wait_condition("capacityclaims", "later", "True", "NothingToTell", "SlurmTold")
    long = stage.sleep_job(3600)
    stage.wait_job(long, "PENDING")
    short = stage.sleep_job(600, "--time=20")
    stage.wait_job(short, "RUNNING")
    assert "PENDING" in stage.state(long)
    message = stage.wait_condition("capacityclaims", "later", "True", "Reserved", "SlurmTold")
    assert stage.lab.workers[0] in message
    assert "tidegate-" in stage.lab.slurm("scontrol", "show", "reservation")
    stage.lab.slurm("scancel", str(short))
    stage.wait_job(short, "CANCELLED")
    assert "PENDING" in stage.state(long), "the node is free, but not for so long"
    stage.kube.delete("capacityclaims", "later", WORK)
    stage.wait_job(long, "RUNNING")
    assert "No reservations" in stage.lab.slurm("scontrol", "show", "reservation")

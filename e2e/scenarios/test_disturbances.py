"""Things break half-way: nodes, daemons, images, people. Nothing is lost, and every trip comes to an end."""

from __future__ import annotations

import time

import pytest

from e2e.operator import wait_for
from e2e.scenarios.test_recall import one_node_left
from e2e.stage import POOL, Stage, condition, reason
from e2e.witness import Witness


def last_loan(stage: Stage) -> dict[str, object]:
    """The newest loan, over or not."""
    return max(stage.loans(open_only=False), key=lambda one: one["metadata"]["creationTimestamp"])


def recall_begins(stage: Stage, seconds: float = 20) -> None:
    """Until a loan is wanted back for a claim."""
    wait_for("a recall", lambda: [one for one in stage.loans() if reason(one, "Recalled") == "Claimed"], seconds)


@pytest.mark.parametrize("moment", ["joining", "lent"])
def test_a_node_that_is_cordoned_half_way_goes_home_and_stays_cordoned(
    stage: Stage, witness: Witness, moment: str
) -> None:
    one_node_left(stage)
    job = stage.sleep_job(8)
    if moment == "lent":
        stage.wait_job(job, "RUNNING")
    loan = wait_for("a loan", stage.loans, 20)[0]
    node = loan["spec"]["nodeName"]
    stage.lab.kubectl("cordon", node)
    stage.wait_home()
    assert stage.node(node)["spec"]["unschedulable"]
    assert reason(last_loan(stage), "Recalled") == "Cordoned"
    assert "PENDING" in stage.state(job)
    witness.expect("cordon", node)
    stage.lab.kubectl("uncordon", node)
    stage.wait_job(job, "COMPLETED", seconds=60)


@pytest.mark.scenarios
def test_a_node_that_is_lost_and_comes_back_loses_no_job(stage: Stage, witness: Witness) -> None:
    one_node_left(stage)
    job = stage.sleep_job(15)
    stage.wait_job(job, "RUNNING")
    node = stage.wait_lent(1)[0]["spec"]["nodeName"]
    stage.lab.kill(node)
    try:
        wait_for("a recall", lambda: reason(last_loan(stage), "Recalled"), 90)
    finally:
        stage.lab.start(node)
    wait_for("the end of the loan", lambda: condition(stage.loans(open_only=False)[0], "Returned"), 120)
    stage.wait_job(job, "COMPLETED", seconds=90)


@pytest.mark.parametrize("daemon", ["slurmctld", "slurmrestd"])
def test_a_slurm_daemon_that_is_restarted_half_way_only_delays_the_recall(bare_stage: Stage, daemon: str) -> None:
    stage = bare_stage
    stage.set_up(recall={"quick": {"drainSeconds": 3, "checkpointSeconds": 0, "requeueSeconds": 20}})
    one_node_left(stage)
    job = stage.sleep_job(3600)
    stage.wait_job(job, "RUNNING")
    stage.deployment("web", 1)
    recall_begins(stage)
    stage.lab.restart(daemon)
    stage.wait_running("web", 1, seconds=60)
    wait_for("an answer of slurmrestd", stage.lab.answers, 60)
    assert "PENDING" in stage.state(job)


@pytest.mark.scenarios
def test_while_slurm_is_silent_nothing_is_lent_and_nothing_is_declared_empty(bare_stage: Stage) -> None:
    stage = bare_stage
    stage.set_up(recall={"quick": {"drainSeconds": 15, "checkpointSeconds": 0, "requeueSeconds": 10}})
    job = stage.sleep_job(3600)
    stage.wait_job(job, "RUNNING")
    stage.deployment("base", 2)
    stage.wait_running("base", 2)
    stage.deployment("web", 1)
    recall_begins(stage)
    stage.lab.kill("slurmrestd")
    try:
        silent_until = time.monotonic() + 60
        words = stage.wait_condition("slurmclusters", "lab", "False", "Unreachable")
        assert stage.lab.rest_url.removeprefix("http://") in words
        stage.wait_condition("batchpools", POOL, "False", "SlurmNotReady")
        stage.scale("base", 0)
        while time.monotonic() < silent_until:
            (loan,) = stage.loans(open_only=False)
            assert not condition(loan, "Drained"), loan["status"]
            assert not condition(loan, "Returned"), loan["status"]
            time.sleep(1)
    finally:
        stage.lab.start("slurmrestd")
    stage.wait_condition("slurmclusters", "lab", "True", "Answering")
    wait_for("the end of the loan", lambda: reason(stage.loans(open_only=False)[0], "Returned"), 40)
    stage.wait_running("web", 1)
    assert stage.state(job) in ("PENDING", "RUNNING")


def test_an_api_server_that_is_restarted_half_way_only_delays_the_recall(bare_stage: Stage) -> None:
    stage = bare_stage
    stage.set_up(recall={"quick": {"drainSeconds": 3, "checkpointSeconds": 0, "requeueSeconds": 20}})
    one_node_left(stage)
    job = stage.sleep_job(3600)
    stage.wait_job(job, "RUNNING")
    stage.deployment("web", 1)
    recall_begins(stage)
    stage.lab.restart_apiserver()
    stage.wait_running("web", 1, seconds=90)
    assert "PENDING" in stage.state(job)


def test_a_slurmd_image_that_is_missing_ends_the_loan_and_says_why(bare_stage: Stage) -> None:
    stage = bare_stage
    slurmd = {"image": "registry.example/no-such-slurmd:1", "imagePullPolicy": "Never"}
    stage.set_up(lending={"joinSeconds": 6, "flapBudget": {"loans": 1}, "cap": 1}, slurmd=slurmd)
    stage.deployment("base", 2)
    stage.wait_running("base", 2)
    job = stage.sleep_job(1)
    loan = wait_for("a loan", stage.loans, 20)[0]
    wait_for("the end of the loan", lambda: not stage.loans(), 30)
    ended = stage.kube.get("nodeloans", loan["metadata"]["name"])
    assert ended is not None
    back = ended["spec"]["back"]
    assert back["reason"] == "JoinOverdue"
    assert "ErrImageNeverPull" in back["message"]
    assert "did not register within 6 s" in back["message"]
    assert not any(map(stage.fence, stage.lab.workers))
    assert "PENDING" in stage.state(job)


def test_a_drain_of_somebody_else_stays_and_the_node_is_not_lent_again(stage: Stage) -> None:
    one_node_left(stage)
    job = stage.sleep_job(1)
    stage.wait_job(job, "COMPLETED", seconds=40)
    loan = stage.loans()[0]
    node, name = loan["spec"]["nodeName"], loan["spec"]["slurmNodeName"]
    stage.lab.slurm("scontrol", "update", f"nodename={name}", "state=drain", "reason=bad fan")
    stage.deployment("web", 1)
    stage.wait_running("web", 1, seconds=40)
    record = stage.slurm_nodes()[name]
    assert "DRAIN" in record["state"]
    assert record["reason"] == "bad fan"
    second = stage.sleep_job(1)
    stage.scale("web", 0)
    wait_for("a free node", lambda: stage.fence(node) is None and not stage.running_pods("web"), 20)
    settled = time.monotonic() + 4
    while time.monotonic() < settled:
        assert stage.loans() == []
        time.sleep(0.5)
    assert "PENDING" in stage.state(second)
    assert stage.slurm_nodes()[name]["reason"] == "bad fan"


def test_a_foreign_taint_on_a_node_keeps_it_from_being_lent(stage: Stage) -> None:
    one_node_left(stage)
    pods = {pod["spec"]["nodeName"] for pod in stage.running_pods("base")}
    (free,) = set(stage.lab.workers) - pods
    stage.lab.kubectl("taint", "node", free, "e2e.example/repair=yes:NoSchedule")
    job = stage.sleep_job(1)
    settled = time.monotonic() + 4
    while time.monotonic() < settled:
        assert stage.loans(open_only=False) == []
        time.sleep(0.5)
    assert "PENDING" in stage.state(job)
    assert any(t["key"] == "e2e.example/repair" for t in stage.node(free)["spec"]["taints"])

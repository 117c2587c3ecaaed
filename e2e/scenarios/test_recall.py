"""A more important pod takes a node back, and no job is lost."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from e2e.operator import wait_for
from e2e.stage import Stage, reason, restarts_in
from e2e.witness import Witness

REQUEUED = ("Requeued", "EndedByDown")
"""Where slurmrestd has no call for it (before data parser v0.0.43), Slurm requeues what runs on a node that is DOWN."""

STUBBORN = """#!/bin/bash
trap '' USR1 TERM INT HUP
end=$((SECONDS + {seconds}))
while [ $SECONDS -lt $end ]; do sleep 0.2; done
"""


def one_node_left(stage: Stage) -> None:
    """A service holds all nodes but one."""
    stage.deployment("base", 2)
    stage.wait_running("base", 2)


def job_of_loan(stage: Stage, job_id: int) -> dict[str, object]:
    """What the newest loan says about a job."""
    for loan in stage.loans(open_only=False):
        for job in loan.get("status", {}).get("jobs", []):
            if job["jobId"] == job_id:
                found: dict[str, object] = job
                return found
    raise AssertionError(f"no loan tells of job {job_id}")


def test_an_idle_node_is_recalled_for_a_pending_pod(bare_stage: Stage) -> None:
    stage = bare_stage
    stage.set_up(lending={"floor": 3})
    stage.wait_lent(3)
    stage.deployment("web", 1)
    stage.wait_running("web", 1)
    stage.wait_lent(2)
    (claim,) = stage.claims()
    stage.wait_condition("capacityclaims", claim["metadata"]["name"], "True", "Served", "Satisfied")
    (pod,) = stage.running_pods("web")
    wait_for("a node without fence", lambda: stage.fence(pod["spec"]["nodeName"]) is None, 10)


def test_a_job_that_checkpoints_on_the_signal_continues_where_it_was(stage: Stage) -> None:
    one_node_left(stage)
    job = stage.checkpointing_job("count", 20)
    stage.wait_job(job, "RUNNING")
    wait_for("a running count", lambda: "starts at 0" in stage.log_of("count"), 20)
    stage.deployment("web", 1)
    stage.wait_running("web", 1)
    assert "saved" in stage.log_of("count")
    assert job_of_loan(stage, job)["action"] in REQUEUED
    stage.scale("web", 0)
    stage.wait_job(job, "COMPLETED", seconds=60)
    first, second = restarts_in(stage.log_of("count"))
    assert first == 0
    assert second > 0
    assert "done at 20" in stage.log_of("count")


def test_a_job_without_checkpoint_is_requeued(stage: Stage) -> None:
    one_node_left(stage)
    job = stage.sleep_job(3600)
    stage.wait_job(job, "RUNNING")
    stage.deployment("web", 1)
    stage.wait_running("web", 1)
    assert "PENDING" in stage.state(job)
    assert stage.job(job)["restart_cnt"] == 1
    (loan,) = stage.loans(open_only=False)
    assert loan["status"]["ledger"]["requeuedJobs"] == 1


def test_a_job_that_ignores_all_signals_is_requeued_all_the_same(stage: Stage) -> None:
    one_node_left(stage)
    job = stage.submit(STUBBORN.format(seconds=3600), "--comment=tidegate:signal=USR1")
    stage.wait_job(job, "RUNNING")
    stage.deployment("web", 1)
    stage.wait_running("web", 1, seconds=40)
    assert "PENDING" in stage.state(job)


def test_a_job_that_may_not_be_requeued_keeps_its_node_until_it_ends(stage: Stage) -> None:
    one_node_left(stage)
    job = stage.sleep_job(8, "--no-requeue")
    stage.wait_job(job, "RUNNING")
    stage.deployment("web", 1)
    (claim,) = wait_for("a claim", stage.claims, 15)
    words = stage.wait_condition("capacityclaims", claim["metadata"]["name"], "False", "Protected", "Satisfied")
    assert f"job {job} may not be requeued (until it ends)" in words
    stage.wait_running("web", 1)
    assert stage.state(job) == "COMPLETED"
    assert not [one for loan in stage.loans(open_only=False) for one in loan["status"].get("jobs", [])]


def test_a_new_job_keeps_its_node_for_the_minimum_run(bare_stage: Stage) -> None:
    stage = bare_stage
    stage.set_up(recall={"protection": {"minimumRunSeconds": 8}})
    one_node_left(stage)
    job = stage.sleep_job(3600)
    stage.wait_job(job, "RUNNING")
    stage.deployment("web", 1)
    (claim,) = wait_for("a claim", stage.claims, 15)
    words = stage.wait_condition("capacityclaims", claim["metadata"]["name"], "False", "Protected", "Satisfied")
    assert f"job {job} has not run for 8 s (until " in words
    stage.wait_running("web", 1)
    touched = job_of_loan(stage, job)
    ran = datetime.fromisoformat(str(touched["time"])) - datetime.fromisoformat(str(touched["startTime"]))
    assert ran >= timedelta(seconds=8)


def test_a_job_that_may_not_be_requeued_is_cancelled_where_the_pool_says_so_and_the_loan_tells(
    bare_stage: Stage,
) -> None:
    stage = bare_stage
    stage.set_up(recall={"nonRequeueableJobs": "Cancel"})
    one_node_left(stage)
    job = stage.sleep_job(3600, "--no-requeue")
    stage.wait_job(job, "RUNNING")
    stage.deployment("web", 1)
    stage.wait_running("web", 1)
    assert stage.state(job) == "CANCELLED"
    assert job_of_loan(stage, job) | {"time": "", "startTime": ""} == {
        "jobId": job,
        "action": "Cancelled",
        "requeueable": False,
        "gpus": 2,
        "user": "alice",
        "time": "",
        "startTime": "",
    }


def test_a_job_that_outlives_its_requeue_is_ended_by_down_last(bare_stage: Stage) -> None:
    stage = bare_stage
    quick = {"drainSeconds": 0, "checkpointSeconds": 0, "requeueSeconds": 1}
    stage.set_up(recall={"quick": quick})
    one_node_left(stage)
    job = stage.submit(STUBBORN.format(seconds=3600))
    stage.wait_job(job, "RUNNING")
    stage.deployment("web", 1)
    stage.wait_running("web", 1, seconds=40)
    assert "PENDING" in stage.state(job)
    assert job_of_loan(stage, job)["action"] == "EndedByDown"


def test_recalling_one_node_of_a_job_of_two_requeues_it_whole(stage: Stage) -> None:
    stage.deployment("base", 1)
    stage.wait_running("base", 1)
    job = stage.sleep_job(20, "--nodes=2")
    stage.wait_job(job, "RUNNING", seconds=40)
    stage.deployment("web", 1)
    stage.wait_running("web", 1)
    assert stage.job(job)["restart_cnt"] == 1
    stage.scale("web", 0)
    stage.wait_job(job, "COMPLETED", seconds=90)


def test_the_loan_whose_recall_loses_least_is_recalled(stage: Stage) -> None:
    jobs = [stage.sleep_job(3600, "--no-requeue"), stage.sleep_job(3600)]
    for job in jobs:
        stage.wait_job(job, "RUNNING", seconds=40)
    stage.deployment("base", 1)
    stage.wait_running("base", 1)
    stage.deployment("web", 1)
    stage.wait_running("web", 1)
    assert stage.state(jobs[0]) == "RUNNING"
    assert "PENDING" in stage.state(jobs[1])


def test_two_nodes_of_one_job_are_recalled_rather_than_those_of_two_jobs(stage: Stage) -> None:
    on_two = stage.sleep_job(3600, "--nodes=2")
    stage.wait_job(on_two, "RUNNING", seconds=40)
    newer = stage.sleep_job(3600)
    stage.wait_job(newer, "RUNNING", seconds=40)
    stage.claim("demo-day", nodes=2)
    stage.wait_condition("capacityclaims", "demo-day", "True", "Held", "Satisfied", seconds=40)
    assert "PENDING" in stage.state(on_two)
    assert stage.state(newer) == "RUNNING"
    assert stage.job(newer)["restart_cnt"] == 0


def test_a_pod_of_no_more_importance_than_the_loan_waits(bare_stage: Stage) -> None:
    stage = bare_stage
    stage.set_up(priority=1000)
    one_node_left(stage)
    job = stage.sleep_job(3600)
    stage.wait_job(job, "RUNNING")
    stage.deployment("web", 1)
    (claim,) = wait_for("a claim", stage.claims, 15)
    words = stage.wait_condition("capacityclaims", claim["metadata"]["name"], "False", "NothingToRecall", "Satisfied")
    assert words == "no loan of pool idle-gpus has a priority below 1000"
    assert stage.state(job) == "RUNNING"


def test_a_claim_that_is_given_up_half_way_lets_the_node_go(bare_stage: Stage, witness: Witness) -> None:
    stage = bare_stage
    stage.set_up(recall={"quick": {"drainSeconds": 6, "checkpointSeconds": 0, "requeueSeconds": 10}})
    one_node_left(stage)
    job = stage.sleep_job(3600)
    stage.wait_job(job, "RUNNING")
    stage.deployment("web", 1)
    wait_for("a recall", lambda: [one for one in stage.loans() if reason(one, "Recalled") == "Claimed"], 20)
    stage.scale("web", 0)
    wait_for("the end of the loan", lambda: reason(stage.loans(open_only=False)[0], "Returned"), 40)
    assert stage.running_pods("web") == []
    # Nobody wants the node, so Slurm gets it again for the job that was requeued.
    stage.wait_job(job, "RUNNING", seconds=60)
    assert witness.verdict().ok


@pytest.mark.parametrize("nodes", [1, 2])
def test_an_explicit_claim_holds_its_nodes_until_it_is_deleted(stage: Stage, nodes: int) -> None:
    for _ in range(3):
        stage.sleep_job(3600)
    stage.wait_lent(3, seconds=40)
    stage.claim("demo-day", nodes=nodes)
    stage.wait_condition("capacityclaims", "demo-day", "True", "Held", "Satisfied", seconds=40)
    held = [node for node in stage.lab.workers if (stage.fence(node) or "").startswith("claim_")]
    assert len(held) == nodes
    stage.kube.delete("capacityclaims", "demo-day", "ml")
    wait_for("freed nodes", lambda: not [n for n in held if (stage.fence(n) or "").startswith("claim_")], 20)

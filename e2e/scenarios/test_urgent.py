"""Urgent Slurm jobs take nodes from less important pods, by the Eviction API, and give them back."""

from __future__ import annotations

from datetime import UTC, datetime

from e2e.audit import asked
from e2e.kube import Json
from e2e.operator import wait_for
from e2e.stage import PDBS, POOL, WORK, Stage, condition

PRIORITIES = [{"partition": "urgent", "priority": 5000}]
TAKING: Json = {"preemption": "LowerPriority", "evictionSeconds": 30}


def pods_of(stage: Stage, app: str) -> list[Json]:
    """Its pods, whatever they do, but for those that are ending."""
    pods = stage.kube.list("pods", WORK, labelSelector=f"app={app}")
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def test_an_urgent_job_gets_a_node_of_a_service_as_soon_as_its_budget_allows_it_and_the_service_gets_it_back(
    bare_stage: Stage,
) -> None:
    stage, began = bare_stage, datetime.now(UTC)
    stage.set_up(lending=TAKING, cluster={"priorities": PRIORITIES})
    stage.deployment("web", 3)
    before = {pod["metadata"]["name"]: pod for pod in stage.wait_running("web", 3)}
    stage.budget("web", maxUnavailable=0)
    job = stage.sleep_job(5, "--partition=urgent")
    words = stage.wait_condition("batchpools", POOL, "False", "TooFewToTake", "UrgentServed")
    assert words.startswith(f"job {job} of priority 5000 lacks 1 nodes and could take 0: PodDisruptionBudget ml/web")
    assert stage.loans(open_only=False) == []

    stage.kube.delete(PDBS, "web", WORK)
    stage.wait_job(job, "RUNNING", "COMPLETED", seconds=40)
    (loan,) = stage.loans()
    assert loan["spec"]["takenFor"] == {"jobId": job, "priority": 5000, "nodes": 1}
    assert loan["status"]["priority"] == 5000
    (gone,) = set(before) - {pod["metadata"]["name"] for pod in stage.running_pods("web")}
    assert before[gone]["spec"]["nodeName"] == loan["spec"]["nodeName"]
    (event,) = stage.kube.list("events", WORK, fieldSelector=f"involvedObject.name={gone},reason=Evicted")
    assert event["message"] == (
        f"Evicted from node {loan['spec']['nodeName']} for Slurm job {job} of priority 5000: the pod's priority is 1000"
    )
    did = [right[2:] for request, right in asked(stage.lab, began) if request["objectRef"].get("namespace") == WORK]
    assert ("pods/eviction", "create") in did
    assert ("pods", "delete") not in did, "pods of others go by the Eviction API alone"

    stage.wait_job(job, "COMPLETED")
    stage.wait_running("web", 3)
    assert condition(stage.loans(open_only=False)[0], "Returned")
    wait_for("open nodes", lambda: not any(map(stage.fence, stage.lab.workers)), 20)

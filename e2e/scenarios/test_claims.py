"""Claims for several nodes at once, by people who may ask for so much and so fast, until they need them no more."""

from __future__ import annotations

from e2e.kube import Refused
from e2e.operator import wait_for
from e2e.stage import POOL, SHORT_RECALL, WORK, Stage, condition


def held(stage: Stage) -> list[str]:
    """Nodes that are held for claims."""
    return [node for node in stage.lab.workers if (stage.fence(node) or "").startswith("claim_")]


def test_pods_of_a_gang_come_when_all_its_nodes_have_come(bare_stage: Stage) -> None:
    stage = bare_stage
    stage.set_up(recall={"quick": {"drainSeconds": 4, "checkpointSeconds": 0, "requeueSeconds": 10}})
    stage.deployment("base", 1)
    stage.wait_running("base", 1)
    job = stage.sleep_job(3600)
    stage.wait_job(job, "RUNNING", seconds=40)
    stage.claim("mpi", nodes=2, gang=True)
    stage.wait_condition("capacityclaims", "mpi", "True", "NodesMissing", "Gathering")
    stage.deployment("rank", 2, labels={"tidegate.dev/claim": "mpi"})
    wait_for("a free node that waits for the other", lambda: len(held(stage)) == 1, 10)
    assert stage.state(job) == "RUNNING"
    assert stage.running_pods("rank") == [], "one rank alone could do nothing there"
    stage.wait_condition("capacityclaims", "mpi", "True", "Held", "Satisfied", seconds=40)
    stage.wait_running("rank", 2)
    assert stage.job(job)["restart_cnt"] == 1


def test_a_quota_is_refused_where_one_object_tells_and_said_where_it_does_not(bare_stage: Stage) -> None:
    stage = bare_stage
    stage.set_up(claims={"quotas": [{"namespace": WORK, "nodes": 1}]})
    words = wait_for("a refusal", lambda: refusal(stage), 20)
    assert f"asks for 2 nodes, but namespace {WORK} may claim 1 of pool {POOL} at a time: lower `nodes`" in words
    stage.claim("first")
    stage.wait_condition("capacityclaims", "first", "True", "Held", "Satisfied")
    stage.claim("second")
    words = stage.wait_condition("capacityclaims", "second", "False", "QuotaExceeded", "Satisfied")
    assert words == (
        f"wants 1 node, but namespace {WORK} may claim 1 node of pool {POOL} at a time: {WORK}/first has 1"
    )
    assert len(held(stage)) == 1
    stage.kube.delete("capacityclaims", "first", WORK)
    stage.wait_condition("capacityclaims", "second", "True", "Held", "Satisfied")


def refusal(stage: Stage) -> str:
    """What the API server says to a claim of two nodes; empty while its policy has not seen the pool yet."""
    try:
        stage.claim("greedy", nodes=2)
    except Refused as error:
        return str(error)
    stage.kube.delete("capacityclaims", "greedy", WORK)
    return ""


def test_a_class_is_for_claims_that_are_important_enough(bare_stage: Stage) -> None:
    stage = bare_stage
    stage.set_up(recall={"fast": {**SHORT_RECALL["fast"], "minimumPriority": 5000}})
    stage.claim("hurry", recallClass="fast")
    words = stage.wait_condition("capacityclaims", "hurry", "False", "ClassNotAllowed", "Satisfied")
    assert words == (
        f"recall.fast.minimumPriority of pool {POOL} is 5000, the claim has 1000; use recallClass graceful or quick"
    )
    assert held(stage) == []
    stage.kube.patch("capacityclaims", "hurry", {"spec": {"recallClass": "quick"}}, WORK)
    stage.wait_condition("capacityclaims", "hurry", "True", "Held", "Satisfied")


def test_a_claim_lets_go_of_what_it_needs_no_more_and_of_all_at_its_end(stage: Stage) -> None:
    stage.claim("tour", nodes=None, gpus=3, durationSeconds=8)
    stage.wait_condition("capacityclaims", "tour", "True", "Held", "Satisfied")
    assert len(held(stage)) == 2, "a node has two GPUs"
    stage.kube.patch("capacityclaims", "tour", {"spec": {"gpus": 2}}, WORK)
    wait_for("one node less", lambda: len(held(stage)) == 1, 10)
    stage.wait_condition("capacityclaims", "tour", "True", "Ended", "Expired")
    wait_for("free nodes", lambda: not held(stage), 10)


def test_a_claim_goes_with_its_holder(stage: Stage) -> None:
    stage.deployment("web", 0)
    stage.claim("web", holderRef=stage.reference("deployments", "web"))
    stage.wait_condition("capacityclaims", "web", "True", "Held", "Satisfied")
    (claim,) = stage.claims()
    assert condition(claim, "Satisfied")
    wait_for("an owner", lambda: stage.claims()[0]["metadata"].get("ownerReferences"), 10)
    stage.kube.delete("deployments", "web", WORK)
    wait_for("the garbage collector", lambda: not stage.claims(), 40)
    wait_for("free nodes", lambda: not held(stage), 10)

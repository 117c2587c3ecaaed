"""For whom the operator claims nodes by itself, under which name, and what those are told for whom it does not."""

from __future__ import annotations

from e2e.operator import wait_for
from e2e.stage import WORK, Stage


def lent(stage: Stage, count: int) -> None:
    stage.set_up(lending={"floor": count})
    stage.wait_lent(count)


def claimed(stage: Stage) -> dict[str, int]:
    """The claims that there are, and of how many nodes."""
    return {claim["metadata"]["name"]: claim["spec"]["nodes"] for claim in stage.claims()}


def told(stage: Stage, app: str) -> list[str]:
    """What the pods of a deployment were told by events."""
    pods = {pod["metadata"]["uid"] for pod in stage.kube.list("pods", WORK, labelSelector=f"app={app}")}
    events = stage.kube.list("events", WORK, fieldSelector="reason=NotClaimed")
    return [event["message"] for event in events if event["involvedObject"]["uid"] in pods]


def test_each_controller_gets_one_claim_under_its_own_name_and_who_gets_none_is_told_why(bare_stage: Stage) -> None:
    stage = bare_stage
    lent(stage, 3)
    stage.deployment("giant", 1, gpus=99)
    stage.deployment("web", 2, gpus=1, apart=True)
    stage.stateful_set("store", 1, gpus=1)
    stage.batch_job("train", gpus=1)
    for app, count in (("web", 2), ("store", 1), ("train", 1)):
        stage.wait_running(app, count)
    assert claimed(stage) == {"deployment-web-1": 2, "job-train-1": 1, "statefulset-store-1": 1}
    (words,) = wait_for("an event", lambda: told(stage, "giant"), 10)
    assert words == "no claim is made: no node on loan could run it, they are too small for it"


def test_a_claim_is_only_for_those_whom_no_free_node_would_do_and_who_did_not_opt_out(bare_stage: Stage) -> None:
    stage = bare_stage
    lent(stage, 1)
    stage.label_namespace("false")
    stage.deployment("quiet", 3)
    stage.wait_running("quiet", 2)
    stage.deployment("vast", 1, gpus=99, labels={"tidegate.dev/automatic-claims": "true"})
    wait_for("a decision on those that wait", lambda: told(stage, "vast"), 10)
    assert claimed(stage) == {}
    stage.label_namespace(None)
    stage.wait_running("quiet", 3)
    assert claimed(stage) == {"deployment-quiet-1": 1}

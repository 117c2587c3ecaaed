"""For whom the operator claims nodes by itself, and under which name."""

from __future__ import annotations

from e2e.operator import wait_for
from e2e.stage import Stage


def all_lent(stage: Stage) -> None:
    stage.set_up(lending={"floor": 3})
    stage.wait_lent(3)


def names(stage: Stage) -> list[str]:
    return sorted(claim["metadata"]["name"] for claim in stage.claims())


def test_each_controller_gets_one_claim_under_its_own_name(bare_stage: Stage) -> None:
    stage = bare_stage
    all_lent(stage)
    stage.deployment("web", 1)
    stage.stateful_set("store", 1)
    stage.batch_job("train")
    for app in ("web", "store", "train"):
        stage.wait_running(app, 1)
    assert names(stage) == ["deployment-web-1", "job-train-1", "statefulset-store-1"]


def test_a_namespace_opts_out_and_a_pod_in_it_opts_in(bare_stage: Stage) -> None:
    stage = bare_stage
    all_lent(stage)
    stage.label_namespace("false")
    stage.deployment("quiet", 1)
    stage.deployment("loud", 1, labels={"tidegate.dev/automatic-claims": "true"})
    stage.wait_running("loud", 1)
    assert names(stage) == ["deployment-loud-1"]
    assert stage.running_pods("quiet") == []
    stage.label_namespace(None)
    stage.wait_running("quiet", 1)
    wait_for("both claims", lambda: names(stage) == ["deployment-loud-1", "deployment-quiet-1"], 10)

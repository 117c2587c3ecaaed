"""The operator is killed after every step that it can take, in both directions, and two of them act at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from e2e.kube import Json
from e2e.operator import Operator, wait_for
from e2e.scenarios.test_urgent import PRIORITIES
from e2e.stage import CLUSTER, Stage, restarts_in
from tidegate.controllers.appliers import APPLIERS

NEVER_IN_A_TRIP = {
    "ForgetClaim": "an automatic claim is kept for ten minutes after its end; test_rare_steps.py takes the step alone",
}
"""Steps that no trip of a few minutes can come to, and why."""

STEPS = [step.__name__ for step in APPLIERS if step.__name__ not in NEVER_IN_A_TRIP]
ONLY_WITH = {
    "RequeueJob": "requeue",
    "AnnounceReservation": "reservation",
    "WithdrawReservation": "reservation",
    "ResumeSlurmNode": "reservation",
}
"""Steps of a Slurm whose slurmrestd has the capability; without `requeue` others come to DownSlurmNode instead."""
BEFORE_STATUS = [
    "CreateLoan", "FenceNode", "ConfirmVacated", "CreateSlurmdPod", "RecallLoan", "DrainSlurmNode", "SignalJob",
    "RequeueJob", "CancelJob", "DownSlurmNode", "UnlabelNode", "DeleteSlurmdPod", "DeleteSlurmNode", "ReleaseNode",
    "WriteLoanStatus",
]  # fmt: skip
"""Steps whose effect the status of a loan tells of later."""


UNTIL_ENOUGH = """#!/bin/bash
trap '' TERM
while [ ! -e /shared/enough ]; do sleep 0.2; done
"""


def set_up(stage: Stage) -> None:
    """Rungs that a trip comes to each of; the time to save outlasts some deaths."""
    quick = {"drainSeconds": 0, "checkpointSeconds": 25, "requeueSeconds": 3}
    # Loans within the window are kept, whatever the history limit.
    lending: Json = {"flapBudget": {"loans": 100, "windowSeconds": 60}, "preemption": "LowerPriority"}
    recall: Json = {"quick": quick, "nonRequeueableJobs": "Cancel"}
    stage.set_up(lending, recall, cluster={"priorities": PRIORITIES}, historyLimit=0)


def expected(stage: Stage, steps: Iterable[str]) -> set[str]:
    """Those of the steps that this Slurm makes possible."""
    cluster = stage.kube.get("slurmclusters", CLUSTER)
    assert cluster is not None
    capabilities = cluster["status"].get("capabilities", [])
    return {step for step in steps if step not in ONLY_WITH or ONLY_WITH[step] in capabilities}


def trip(stage: Stage, urgent: bool) -> None:
    """One that comes to every step: reserve, lend, recall of jobs of every kind, hold, let go, lend again, return.

    With `urgent` a pod is evicted, too.
    """
    stage.deployment("web", 0)
    stage.claim("early", nodes=2, holderRef=stage.reference("deployments", "web"))
    stage.wait_condition("capacityclaims", "early", "True", "Held", "Satisfied", seconds=60)
    stage.kube.patch("capacityclaims", "early", {"spec": {"nodes": 1}}, "ml")
    wait_for("one node less", lambda: sum(map(bool, map(stage.fence, stage.lab.workers))) == 1, 40)
    stage.kube.delete("capacityclaims", "early", "ml")
    wait_for("free nodes", lambda: not any(map(stage.fence, stage.lab.workers)), 40)
    # Without replicas: it is about what is made for it.
    stage.service("chat", minReplicas=0, replicas=0)
    stage.wait_condition("inferenceservices", "chat", "False", "AsWanted", "Progressing", seconds=60)
    start = datetime.now(UTC) + timedelta(hours=3)
    stage.claim("later", startTime=start.isoformat(), durationSeconds=60)
    stage.wait_condition("capacityclaims", "later", "False", "Reserved", "Satisfied", seconds=60)
    saves = stage.checkpointing_job("count", 160, "--time=90")
    stubborn = stage.submit(UNTIL_ENOUGH, "--time=90")
    lonely = stage.sleep_job(3600, "--no-requeue", "--time=90")
    for job in (saves, stubborn, lonely):
        stage.wait_job(job, "RUNNING", "COMPLETED", seconds=90)
    stage.kube.delete("capacityclaims", "later", "ml")
    stage.scale("web", 1)
    stage.deployment("giant", 1, gpus=99)
    wait_for("a claim", stage.claims, 40)
    stage.scale("web", 3)
    stage.wait_running("web", 3, seconds=120)
    assert stage.state(lonely) == "CANCELLED"
    if urgent:
        stage.wait_job(stage.sleep_job(1, "--partition=urgent", "--time=1"), "COMPLETED", seconds=120)
    stage.scale("web", 0)
    (stage.lab.shared_dir / "enough").touch()
    for job in (saves, stubborn):
        stage.wait_job(job, "COMPLETED", seconds=120)
    counts = restarts_in(stage.log_of("count"))
    assert len(counts) > 1
    assert all(later > 0 for later in counts[1:]), "it began anew instead of going on"
    stage.wait_home(60)


def wait_forgotten(stage: Stage) -> None:
    """Until each node has only its newest loan."""
    wait_for("forgotten loans", lambda: len(stage.loans(open_only=False)) <= len(stage.lab.workers), 100)


@contextmanager
def kept_alive(stage: Stage, operator: Operator, start: Callable[[], None]) -> Iterator[None]:
    """Whenever the operator dies, its Lease goes (as after ten seconds) and the next one starts."""
    over = threading.Event()

    def keep() -> None:
        while not over.wait(0.1):
            if not operator.is_running:
                stage.kube.delete("leases", "tidegate", "tidegate-system")
                start()

    keeper = threading.Thread(target=keep, name="keeper")
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()


def test_it_dies_after_the_first_effect_of_each_step_and_the_trip_goes_on(
    bare_stage: Stage, operator: Operator, tmp_path: Path
) -> None:
    died = tmp_path / "died-after"
    operator.stop()
    with kept_alive(bare_stage, operator, lambda: operator.crash_at_each(died)):
        set_up(bare_stage)
        trip(bare_stage, urgent=True)
        wait_forgotten(bare_stage)
    lacking = expected(bare_stage, STEPS) - set(died.read_text().split())
    assert not lacking, f"the trip did not come to {sorted(lacking)}: let it, or say in NEVER_IN_A_TRIP why it cannot"


@pytest.mark.scenarios
def test_it_dies_before_the_status_is_written_after_each_step_and_the_trip_goes_on(
    bare_stage: Stage, operator: Operator, tmp_path: Path
) -> None:
    died = tmp_path / "died-before-status"
    operator.stop()
    with kept_alive(bare_stage, operator, lambda: operator.crash_before_each_status(died, BEFORE_STATUS)):
        set_up(bare_stage)
        trip(bare_stage, urgent=False)
    assert not expected(bare_stage, BEFORE_STATUS) - set(died.read_text().split())


def test_a_killed_operator_leaves_the_lease_for_ten_seconds_and_no_longer(stage: Stage, operator: Operator) -> None:
    operator.kill()
    job = stage.sleep_job(1)
    operator.start()
    stage.wait_job(job, "COMPLETED", seconds=60)


def test_an_operator_that_is_told_to_end_lets_go_of_the_lease(stage: Stage, operator: Operator) -> None:
    stage.wait_condition("slurmclusters", "lab", "True", "Answering")
    assert operator.stop() == 0
    lease = stage.kube.get("leases", "tidegate", "tidegate-system")
    assert lease is not None
    assert not lease["spec"].get("holderIdentity")
    operator.start()


def test_two_operators_that_both_think_they_lead_break_nothing(
    stage: Stage, operator: Operator, rights: Path, tmp_path: Path
) -> None:
    second = Operator(rights, operator.log.parent, "second")
    second.without_lease()
    operator.kill()
    operator.without_lease()
    try:
        job = stage.checkpointing_job("count", 12)
        others = [stage.sleep_job(4), stage.sleep_job(4)]
        for one in (job, *others):
            stage.wait_job(one, "RUNNING", "COMPLETED", seconds=60)
        stage.deployment("web", 2)
        stage.wait_running("web", 2, seconds=60)
        stage.scale("web", 0)
        for one in (job, *others):
            stage.wait_job(one, "COMPLETED", seconds=90)
        stage.wait_home(60)
    finally:
        second.kill()


@pytest.mark.parametrize("step", NEVER_IN_A_TRIP)
def test_the_exceptions_are_steps_that_exist(step: str) -> None:
    assert step in {one.__name__ for one in APPLIERS}

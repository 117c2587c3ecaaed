"""What jobs and loans are worth on the one number line."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sharing.build import (
    FENCED,
    LENT,
    NOW,
    RECALLED,
    ago,
    claim,
    cluster,
    decided,
    index,
    job,
    lent_node,
    loan,
    names,
    one,
    only,
    slurm,
    slurm_node,
    slurmd,
)
from tidegate.api import TakenFor
from tidegate.sharing.commands import RecallLoan, WriteClaimStatus, WriteLoanStatus
from tidegate.sharing.explain import explain
from tidegate.sharing.priorities import of_job, of_loan

MAP = (
    {"partition": "urgent", "priority": 5000},
    {"qos": "high", "priority": 700},
    {"qos": "scavenge", "priority": -500},
)
BOTH = ({"partition": "urgent", "qos": "high", "priority": 9000},)
FOR_JOB_7 = TakenFor(job_id=7, priority=5000, nodes=1)
ON_LOAN = (lent_node(), slurmd(), cluster(priorities=MAP))


@pytest.mark.parametrize(
    ("given", "mapping", "worth"),
    [
        ({}, MAP, None),
        ({}, (), None),
        ({"partitions": ("urgent",)}, MAP, 5000),
        ({"partitions": ("lent", "urgent")}, MAP, 5000),
        ({"qos": "high"}, MAP, 700),
        ({"qos": "high", "partitions": ("urgent",)}, MAP, 5000),
        ({"qos": "scavenge"}, MAP, -500),
        ({"qos": "high"}, BOTH, None),
        ({"partitions": ("urgent",)}, BOTH, None),
        ({"qos": "high", "partitions": ("urgent",)}, BOTH, 9000),
    ],
)
def test_a_job_is_worth_the_highest_entry_that_fits_it(given: Any, mapping: Any, worth: int | None) -> None:
    assert of_job(job(**given), cluster(priorities=mapping)) == worth


@pytest.mark.parametrize(
    ("things", "worth"),
    [
        ([loan(), slurm(slurm_node())], -100),
        ([loan(priority=50), slurm(slurm_node())], 50),
        ([loan(), slurm(slurm_node(), job(1, on="gpu-1"))], -100),
        ([loan(), slurm(slurm_node(), job(1, on="gpu-1", qos="high"))], 700),
        ([loan(), slurm(slurm_node(), job(1, on="gpu-1", qos="scavenge"))], -100),
        ([loan(), slurm(slurm_node(), job(1, on="gpu-1", gpus=1), job(2, on="gpu-1", gpus=1, qos="high"))], 700),
        ([loan(), slurm(slurm_node(), job(1, on="gpu-2", qos="high"))], -100),
        # A node that was taken for job 7: on its way, waiting for the job's start, started, over.
        ([loan(done=FENCED, taken_for=FOR_JOB_7), slurm()], 5000),
        ([loan(taken_for=FOR_JOB_7), slurm(slurm_node(), job(7, qos="high"))], 5000),
        ([loan(taken_for=FOR_JOB_7), slurm(slurm_node(), job(7, on="gpu-1", qos="high"))], 700),
        ([loan(taken_for=FOR_JOB_7), slurm(slurm_node(), job(7, on="gpu-2", qos="high"))], -100),
        ([loan(taken_for=FOR_JOB_7), slurm(slurm_node())], -100),
        ([loan(taken_for=FOR_JOB_7, created=ago(1)), slurm(slurm_node(), observed=ago(2))], 5000),
        # Nothing gets less important while Slurm is silent.
        ([loan(shown=700), slurm(observed=None)], 700),
        ([loan(shown=700), slurm(observed=ago(300))], 700),
        ([loan(taken_for=FOR_JOB_7), slurm(observed=None)], 5000),
    ],
)  # fmt: skip
def test_a_loan_is_worth_the_most_important_job_on_it(things: list[Any], worth: int) -> None:
    assert of_loan(things[0], index(*ON_LOAN, *things)) == worth


@pytest.mark.parametrize(("qos", "recalled"), [("high", True), ("", True), ("urgent", False), ("equal", False)])
def test_a_claim_recalls_only_a_loan_whose_jobs_are_less_important(qos: str, recalled: bool) -> None:
    mapping = [*MAP, {"qos": "urgent", "priority": 1001}, {"qos": "equal", "priority": 1000}]
    world = [lent_node(), slurmd(), loan(), claim(), cluster(priorities=mapping)]
    commands = decided(*world, slurm(slurm_node(), job(1, on="gpu-1", qos=qos)))
    assert bool(only(commands, RecallLoan)) == recalled
    if not recalled:
        said = one(commands, WriteClaimStatus).status.condition("Satisfied")
        assert said is not None
        assert (said.reason, said.message) == ("NothingToRecall", "no loan of pool batch has a priority below 1000")


def test_the_priority_is_shown_and_stays_as_it_was_at_the_recall() -> None:
    jobs = slurm(slurm_node(), job(1, on="gpu-1", qos="high"))
    assert one(decided(*ON_LOAN, loan(), jobs), WriteLoanStatus).status.priority == 700
    assert "WriteLoanStatus" not in names(decided(*ON_LOAN, loan(shown=700), jobs))
    drained = slurm(slurm_node("gpu-1", "IDLE", "DRAIN", reason="tidegate: Claimed"))
    back = one(decided(*ON_LOAN, loan(done=RECALLED, shown=700), drained), WriteLoanStatus)
    assert back.status.priority == 700


def test_explain_says_whose_priority_it_is() -> None:
    jobs = slurm(slurm_node(), job(1, on="gpu-1", qos="high"))
    seen = index(*ON_LOAN, loan(done=LENT, shown=700), jobs, claim(), now=NOW)
    facts = dict(explain("loan", "gpu-1-1", "", seen).facts)
    assert facts["priority"] == "700, by its jobs; the pool's is -100"
    assert "a claim of a priority above 700 needs it" in explain("node", "gpu-1", "", seen).next_step

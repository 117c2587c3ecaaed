"""How early nodes are recalled: the ladder, and what the pool's recalls lately needed beside it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.sharing.build import DRAINED, NOW, RETURNED, ago, back_for, cluster, loan, node, pool, snapshot
from tidegate.api import Condition, NodeLoan, TouchedJob
from tidegate.sharing.index import Index
from tidegate.sharing.lead_time import LOOK_SECONDS, UNMEASURED_SECONDS, back_by, lead

TERMS = pool(recall={"quick": {"drainSeconds": 10, "checkpointSeconds": 20, "requeueSeconds": 30}})
LADDER = 60


def ended(number: int, drained: float, returned: float, **more: Any) -> NodeLoan:
    """A loan that was drained and home so many seconds after its recall."""
    made = loan(f"gpu-{number}", done=RETURNED, created=ago(5000), back=back_for(reason="IdleInSlurm"), **more)
    at = {"Recalled": 0.0, "Drained": drained, "Left": drained, "Clean": drained, "Returned": returned}
    conditions = tuple(
        Condition(
            type=c.type, status="True", reason="Done", last_transition_time=ago(2000) + timedelta(seconds=at[c.type])
        )
        if c.type in at
        else c
        for c in made.status.conditions
    )
    return made.model_copy(update={"status": made.status.model_copy(update={"conditions": conditions})})


def seconds(*loans: NodeLoan) -> float:
    """The lead beyond the ladder."""
    index = Index(snapshot(node(), cluster(), TERMS, *loans), NOW)
    return lead(TERMS, "quick", index).total_seconds() - LADDER - LOOK_SECONDS


def test_without_a_measurement_something_is_assumed() -> None:
    assert seconds() == UNMEASURED_SECONDS
    assert seconds(loan(done=DRAINED)) == UNMEASURED_SECONDS


def test_what_comes_after_the_drain_counts_and_the_ladder_only_where_it_was_overrun() -> None:
    assert seconds(ended(1, 50, 54)) == 4
    assert seconds(ended(1, 63, 70)) == 3 + 7


def test_all_but_the_slowest_of_many_recalls_are_counted_on() -> None:
    usual = [ended(n, 1, 1 + n / 10) for n in range(1, 20)]
    assert seconds(*usual, ended(20, 1, 500)) == pytest.approx(1.9)
    assert seconds(ended(1, 1, 2), ended(2, 1, 9)) == 8


def test_a_recall_that_waited_for_a_job_that_may_not_be_requeued_tells_nothing() -> None:
    stubborn = TouchedJob(job_id=1, action="Cancelled", time=NOW, requeueable=False)
    assert seconds(ended(1, 4000, 4001, jobs=(stubborn,))) == UNMEASURED_SECONDS
    requeued = TouchedJob(job_id=1, action="Requeued", time=NOW, requeueable=True)
    assert seconds(ended(1, 10, 12, jobs=(requeued,))) == 2


def test_each_class_has_the_time_of_its_own_ladder() -> None:
    index = Index(snapshot(node(), cluster(), TERMS, ended(1, 1, 6)), NOW)
    fast = TERMS.spec.recall.fast
    expected = fast.drain_seconds + fast.checkpoint_seconds + fast.requeue_seconds + 5 + LOOK_SECONDS
    assert lead(TERMS, "fast", index).total_seconds() == expected


def test_a_node_on_its_way_is_expected_a_lead_after_its_recall() -> None:
    coming = loan(done=("Fenced", "Vacated", "Joined", "Lent", "Recalled"), since=ago(20), back=back_for("c1"))
    index = Index(snapshot(node(), cluster(), TERMS, coming, ended(1, 1, 6)), NOW)
    assert back_by(coming, TERMS, index) == ago(20) + timedelta(seconds=LADDER + 5 + LOOK_SECONDS)

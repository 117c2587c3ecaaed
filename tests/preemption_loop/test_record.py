"""The record counts each eviction, double binding and refusal once, whatever the watch repeats."""

from __future__ import annotations

from typing import Any

import pytest

from e2e.scenarios.preemption_loop.record import Doubled, Record
from e2e.stage import GPU

PREEMPTED = [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]


def pod(name: str, node: str = "", phase: str = "Pending", gpus: int = 2, app: str = "slurmd", **status: Any) -> Any:
    limits = {GPU: str(gpus)} if gpus else {}
    return {
        "metadata": {"name": name, "uid": name, "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": [{"resources": {"limits": limits}}]},
        "status": {"phase": phase, **status},
    }


@pytest.fixture
def record() -> Record:
    return Record({"a": 2, "b": 2})


def test_a_preempted_pod_counts_once_and_when_it_happened(record: Record) -> None:
    record.see("ADDED", pod("one", "a"), 1)
    for at in (2, 3):
        record.see("MODIFIED", pod("one", "a", "Running", conditions=PREEMPTED), at)
    record.see("DELETED", pod("one", "a", "Running", conditions=PREEMPTED), 4)
    record.see("ADDED", pod("two", "a"), 5)
    assert record.evictions("slurmd") == (2,)
    assert record.evictions("notebook") == ()


def test_a_pod_that_ends_for_another_reason_was_not_preempted(record: Record) -> None:
    other = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]
    record.see("MODIFIED", pod("one", "a", conditions=other), 1)
    record.see("DELETED", pod("one", "a"), 2)
    assert record.evictions("slurmd") == ()


def test_two_pods_on_the_gpus_of_one_node_are_a_double_binding(record: Record) -> None:
    record.see("ADDED", pod("one", "a"), 1)
    record.see("ADDED", pod("web", app="notebook"), 2)
    for at in (3, 4):
        record.see("MODIFIED", pod("web", "a", app="notebook"), at)
    assert record.doubled == [Doubled(3, "a", "web", ("one",))]


@pytest.mark.parametrize("end", ["DELETED", "Failed", "Succeeded"])
def test_what_is_gone_or_over_holds_nothing(record: Record, end: str) -> None:
    record.see("ADDED", pod("one", "a"), 1)
    over = ("DELETED", "Running") if end == "DELETED" else ("MODIFIED", end)
    record.see(over[0], pod("one", "a", over[1]), 2)
    record.see("ADDED", pod("two", "a"), 3)
    assert record.doubled == []


def test_pods_that_share_or_need_no_gpus_are_no_double_binding(record: Record) -> None:
    for number in range(2):
        record.see("ADDED", pod(f"half-{number}", "a", gpus=1), 1)
    record.see("ADDED", pod("proxy", "a", gpus=0), 2)
    record.see("ADDED", pod("elsewhere", "b"), 3)
    assert record.doubled == []


def test_a_refusal_of_the_kubelet_counts_once(record: Record) -> None:
    for at in (1, 2):
        record.see("MODIFIED", pod("one", "a", "Failed", reason="OutOfnvidia.com/gpu"), at)
    record.see("MODIFIED", pod("crashed", "b", "Failed"), 3)
    assert record.refused == {"one": "OutOfnvidia.com/gpu"}


def test_an_application_runs_from_its_first_running_pod_on(record: Record) -> None:
    record.see("MODIFIED", pod("one", "a", "Failed", app="notebook", reason="OutOfnvidia.com/gpu"), 1)
    record.see("MODIFIED", pod("two", "a", "Running", app="notebook"), 2)
    record.see("MODIFIED", pod("two", "a", "Running", app="notebook"), 3)
    assert record.running == {"notebook": 2}
    assert record.made == {"notebook": ["one", "two"]}

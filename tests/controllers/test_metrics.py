"""What Prometheus sees."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from tests.sharing.build import (
    DRAINED,
    FENCED,
    LENT,
    NOW,
    RECALLED,
    VACATED,
    ago,
    claim,
    index,
    loan,
    pool,
)
from tidegate.api import (
    BatchPoolStatus,
    CapacityClaimStatus,
    Condition,
    Ledger,
    NodeCounts,
    Recommended,
    RecommendedNode,
)
from tidegate.controllers import metrics
from tidegate.sharing.commands import Advice

PACKAGE = Path(metrics.__file__).resolve().parent.parent
METRICS = {name: value for name, value in vars(metrics).items() if isinstance(value, MetricWrapperBase)}
UNBOUNDED = {"node", "loan", "job", "job_id", "claim", "pod", "namespace", "user"}


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_emitted_somewhere(name: str) -> None:
    sources = [path.read_text() for path in PACKAGE.rglob("*.py") if path.name != "metrics.py"]
    emitted = rf"\b{name}(\.labels\(|\.(inc|set|observe|time)\()"
    inside = (PACKAGE / "controllers" / "metrics.py").read_text()
    elsewhere = any(re.search(rf"metrics\.{emitted}", source) for source in sources)
    assert elsewhere or re.search(emitted, inside), f"{name} is registered and never emitted"


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_labels_are_bounded_and_help_is_a_sentence(metric: MetricWrapperBase) -> None:
    assert not UNBOUNDED & set(metric._labelnames)
    assert metric._name.startswith("tidegate_")
    assert metric._documentation.endswith(".")


def test_each_step_is_counted_once_with_its_time_since_the_one_before() -> None:
    before = loan(done=FENCED, since=ago(20), pool_name="m1")
    after = before.status.with_condition(ago(5), "Vacated", True, "NoGpuPods")
    metrics.observe_loan(before, after)
    assert value("tidegate_transitions_total", pool="m1", step="Vacated", result="NoGpuPods") == 1
    assert value("tidegate_transitions_total", pool="m1", step="Fenced", result="Done") == 0
    assert value("tidegate_step_duration_seconds_sum", pool="m1", step="Vacated") == 15
    metrics.observe_loan(before.model_copy(update={"status": after}), after)
    assert value("tidegate_transitions_total", pool="m1", step="Vacated", result="NoGpuPods") == 1


def test_the_first_step_is_timed_from_the_loans_creation_and_a_recall_not_at_all() -> None:
    new = loan(done=(), created=ago(9), pool_name="m2")
    metrics.observe_loan(new, new.status.with_condition(NOW, "Fenced", True, "FenceInPlace"))
    assert value("tidegate_step_duration_seconds_sum", pool="m2", step="Fenced") == 9
    lent = loan(done=LENT, pool_name="m2")
    metrics.observe_loan(lent, lent.status.with_condition(NOW, "Recalled", True, "Claimed"))
    assert value("tidegate_transitions_total", pool="m2", step="Recalled", result="Claimed") == 1
    assert value("tidegate_step_duration_seconds_count", pool="m2", step="Recalled") == 0


def test_what_a_loan_gave_and_cost_is_added_when_it_is_drained() -> None:
    ledger = Ledger(lent_seconds=100, requeued_jobs=2, cancelled_jobs=1, lost_gpu_seconds=640)
    before = loan(done=RECALLED, pool_name="m3")
    after = loan(done=DRAINED, pool_name="m3", ledger=ledger).status
    metrics.observe_loan(before, after)
    metrics.observe_loan(before.model_copy(update={"status": after}), after)
    assert value("tidegate_requeued_jobs_total", pool="m3") == 2
    assert value("tidegate_cancelled_jobs_total", pool="m3") == 1
    assert value("tidegate_lost_gpu_seconds_total", pool="m3") == 640
    assert value("tidegate_lent_node_seconds_total", pool="m3") == 100


def said(status: str, seconds: float) -> CapacityClaimStatus:
    condition = Condition.model_validate(
        {"type": "Satisfied", "status": status, "reason": "X", "last_transition_time": ago(seconds)}
    )
    return CapacityClaimStatus(conditions=(condition,))


def test_a_claim_is_timed_to_its_first_word_and_to_its_satisfaction() -> None:
    fresh = claim(pool_name="m4", created=ago(30))
    metrics.observe_claim(fresh, said("False", 28))
    assert value("tidegate_claim_reaction_seconds_sum", pool="m4") == 2
    assert value("tidegate_claim_satisfied_seconds_count", pool="m4") == 0
    waiting = claim(pool_name="m4", created=ago(30), status=said("False", 28))
    metrics.observe_claim(waiting, said("True", 10))
    assert value("tidegate_claim_satisfied_seconds_sum", pool="m4") == 20
    assert value("tidegate_claim_reaction_seconds_count", pool="m4") == 1


def test_a_reservation_is_timed_by_how_late_it_starts() -> None:
    wish = claim(pool_name="m7", created=ago(5000), start_time=ago(50), duration_seconds=600, status=said("False", 60))
    metrics.observe_claim(wish, said("True", 10).model_copy(update={"promised_start": ago(50), "started": ago(10)}))
    metrics.observe_claim(wish, said("True", 70).model_copy(update={"promised_start": ago(50), "started": ago(50)}))
    assert value("tidegate_reservation_late_seconds_sum", pool="m7") == 40
    assert value("tidegate_reservation_late_seconds_count", pool="m7") == 2
    assert value("tidegate_reservation_late_seconds_bucket", pool="m7", le="0.0") == 1
    assert value("tidegate_claim_satisfied_seconds_count", pool="m7") == 0


def test_gauges_show_the_world_and_forget_pools_that_are_gone() -> None:
    counts = NodeCounts(kubernetes=3, lent=2)
    busy = pool("m5").model_copy(update={"status": BatchPoolStatus(nodes=counts, demand_nodes=7, startable_nodes=3)})
    late = loan(pool_name="m5", done=VACATED)
    late = late.model_copy(update={"status": late.status.with_condition(NOW, "Overdue", True, "DeadlinePassed")})
    metrics.observe_world(index(busy, late, claim(pool_name="m5"), claim("b", pool_name="m5", status=said("True", 1))))
    assert value("tidegate_nodes", pool="m5", owner="kubernetes") == 3
    assert value("tidegate_nodes", pool="m5", owner="lent") == 2
    assert value("tidegate_demand_nodes", pool="m5") == 7
    assert value("tidegate_startable_nodes", pool="m5") == 3
    assert value("tidegate_overdue_loans", pool="m5") == 1
    assert value("tidegate_claims", pool="m5", state="Waiting") == 1
    assert value("tidegate_claims", pool="m5", state="Satisfied") == 1
    metrics.observe_world(index(pool("m6")))
    assert REGISTRY.get_sample_value("tidegate_nodes", {"pool": "m5", "owner": "lent"}) is None


def test_what_would_have_been_done_is_counted_when_it_is_written() -> None:
    there = (RecommendedNode(name="gpu-1", since=ago(90)), RecommendedNode(name="gpu-2", since=ago(90)))
    before = pool("m9", recommended=Recommended(since=ago(900), nodes=there, node_seconds=40, counted_until=ago(60)))
    after = Recommended(since=ago(900), nodes=there[:1], node_seconds=160, counted_until=NOW)
    advice = [Advice("Recall", "gpu-2", "PodCame", "x"), Advice("Lend", "gpu-3", "Demand", "y")]
    metrics.observe_advice(before, before.status.model_copy(update={"recommended": after}), advice)
    assert value("tidegate_recommended_lends_total", pool="m9") == 1
    assert value("tidegate_recommended_recalls_total", pool="m9", reason="PodCame") == 1
    assert value("tidegate_recommended_node_seconds_total", pool="m9") == 120
    metrics.observe_world(index(before))
    assert value("tidegate_recommended_nodes", pool="m9") == 2
    metrics.observe_world(index(pool("m9")))
    assert REGISTRY.get_sample_value("tidegate_recommended_nodes", {"pool": "m9"}) is None

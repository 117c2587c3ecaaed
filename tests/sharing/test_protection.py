"""Which jobs may not be ended for a claim, why, and until when."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.sharing.build import NOW, ago, index, job, loan, node, pool, slurm, slurm_node
from tidegate.sharing.protection import protecting, shield_of, shields


def terms(protection: dict[str, int] | None = None, **recall: Any) -> Any:
    return pool(recall={"protection": protection or {}, **recall}).spec.recall


def test_nothing_protects_a_job_that_is_new_and_was_never_requeued() -> None:
    assert shield_of(job(1, on="a", started=ago(0)), terms(), NOW) is None


@pytest.mark.parametrize(("seconds", "is_protected"), [(0, True), (59, True), (60, False), (900, False)])
def test_a_job_is_left_alone_for_the_minimum_run(seconds: int, is_protected: bool) -> None:
    shield = shield_of(job(1, on="a", started=ago(seconds)), terms({"minimumRunSeconds": 60}), NOW)
    assert (shield is not None) == is_protected
    if shield:
        assert shield.until == NOW + timedelta(seconds=60 - seconds)
        assert shield.words.startswith("job 1 has not run for 60 s (until 2026-11-21T12:0")


@pytest.mark.parametrize(
    ("restarts", "seconds", "is_protected"),
    [(0, 10, False), (1, 10, False), (2, 10, True), (9, 10, True), (2, 299, True), (2, 300, False)],
)
def test_a_job_that_was_requeued_often_is_protected_for_a_while(
    restarts: int, seconds: int, is_protected: bool
) -> None:
    ours = terms({"afterRestarts": 2, "protectedSeconds": 300})
    shield = shield_of(job(1, on="a", started=ago(seconds), restarts=restarts), ours, NOW)
    assert (shield is not None) == is_protected
    if shield:
        assert shield.until == NOW + timedelta(seconds=300 - seconds)
        assert f"was requeued {restarts} times" in shield.words


def test_the_longer_of_two_reasons_counts() -> None:
    often = job(1, on="a", started=ago(10), restarts=5)
    for least, most, why in ((100, 300, "was requeued"), (300, 100, "has not run")):
        ours = terms({"minimumRunSeconds": least, "afterRestarts": 1, "protectedSeconds": most})
        shield = shield_of(often, ours, NOW)
        assert shield is not None
        assert shield.why.startswith(why)
        assert shield.until == NOW + timedelta(seconds=290)


def test_no_seconds_protect_no_job() -> None:
    often = job(1, on="a", started=ago(0), restarts=99)
    assert shield_of(often, terms({"afterRestarts": 1, "protectedSeconds": 0}), NOW) is None


def test_a_job_that_may_not_be_requeued_is_protected_unless_the_pool_cancels_such_jobs() -> None:
    end = NOW + timedelta(seconds=500)
    limited = job(1, on="a", requeueable=False, end_time=end)
    shield = shield_of(limited, terms(), NOW)
    assert shield is not None
    assert (shield.until, shield.words) == (end, "job 1 may not be requeued (until 2026-11-21T12:08:20Z)")
    endless = shield_of(job(2, on="a", requeueable=False), terms(), NOW)
    assert endless is not None
    assert endless.words == "job 2 may not be requeued (until it ends)"
    assert shield_of(limited, terms(nonRequeueableJobs="Cancel"), NOW) is None


def test_what_ends_anyway_protects_nothing() -> None:
    assert shield_of(job(1, on="a", states=["COMPLETING"], requeueable=False), terms(), NOW) is None


def test_a_protected_job_protects_all_its_nodes_and_the_soonest_is_named_first() -> None:
    loans = [loan("gpu-1"), loan("gpu-2"), loan("gpu-3")]
    jobs = [
        job(1, on=("gpu-1", "gpu-2"), requeueable=False),
        job(2, on="gpu-2", started=ago(10), restarts=3),
        *(job(n, on="gpu-3", requeueable=False) for n in range(3, 9)),
    ]
    records = [slurm_node(f"gpu-{n}") for n in (1, 2, 3)]
    ours = pool(recall={"protection": {"protectedSeconds": 60}})
    world = index(*map(node, ("gpu-1", "gpu-2", "gpu-3")), *loans, ours, slurm(*records, *jobs))
    assert [[s.job_id for s in shields(one, world)] for one in loans] == [[1], [1, 2], list(range(3, 9))]
    assert protecting(loans[:2], world) == (
        "job 2 was requeued 3 times (until 2026-11-21T12:00:50Z), job 1 may not be requeued (until it ends)"
    )
    assert protecting(loans, world).endswith(" and 4 more")


def test_without_slurm_nothing_is_known_to_be_protected() -> None:
    one = loan("gpu-1")
    silent = slurm(slurm_node("gpu-1"), job(1, on="gpu-1", requeueable=False), observed=None)
    assert shields(one, index(node("gpu-1"), one, pool(), silent)) == ()

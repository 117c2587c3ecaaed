"""Which loans a claim takes back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sharing.build import LENT, NOW, RECALLED, RETURNED, VACATED, ago, index, job, loan, pool, slurm, slurm_node
from tidegate.api import NodeLoan, RecallClass, TouchedJob
from tidegate.sharing.victims import cheapest, cost_of, lost_gpu_seconds


def chosen(
    count: int,
    *jobs: Any,
    recall_class: RecallClass = "quick",
    joining: tuple[int, ...] = (),
    policy: str = "LeastLostWork",
    loans: Sequence[NodeLoan] = (),
    **recall: Any,
) -> list[str]:
    given = [*loans, *(loan(f"gpu-{n}", done=VACATED if n in joining else LENT) for n in range(1 + len(loans), 5))]
    state = slurm(*[slurm_node(f"gpu-{n}") for n in range(1, 5)], *jobs)
    world = index(*given, pool(recall={"victimPolicy": policy, **recall}), state)
    free = [one for one in given if not one.is_wanted_back and not one.is_over]
    return [one.spec.node_name for one in cheapest(free, count, recall_class, world)]


def test_names_decide_between_equals() -> None:
    assert chosen(2) == ["gpu-1", "gpu-2"]


def test_never_more_than_asked_for_or_than_there_are() -> None:
    assert chosen(0) == []
    assert chosen(-1) == []
    assert len(chosen(9)) == 4


def test_first_what_runs_nothing_and_of_those_what_is_still_joining() -> None:
    assert chosen(3, job(1, on="gpu-1"), joining=(3,)) == ["gpu-3", "gpu-2", "gpu-4"]


def test_then_what_loses_the_fewest_gpu_seconds() -> None:
    running = [
        job(1, on="gpu-1", started=ago(900)),
        job(2, on="gpu-2", started=ago(100)),
        job(3, on="gpu-3", started=ago(500), gpus=1),
        job(4, on="gpu-4", started=ago(800)),
    ]
    assert chosen(4, *running) == ["gpu-3", "gpu-2", "gpu-4", "gpu-1"]


def test_jobs_that_may_not_be_requeued_go_last() -> None:
    running = [
        job(1, on="gpu-1", started=ago(1), requeueable=False),
        job(2, on="gpu-2", started=ago(90_000)),
        job(3, on="gpu-3", started=ago(90_000)),
        job(4, on="gpu-4", started=ago(90_000)),
    ]
    assert chosen(3, *running) == ["gpu-2", "gpu-3", "gpu-4"]


def test_a_job_that_saves_on_a_signal_loses_at_most_its_checkpoint_time() -> None:
    running = [
        job(1, on="gpu-1", started=ago(50_000), comment="tidegate:signal=USR1"),
        *(job(n, on=f"gpu-{n}", started=ago(100)) for n in (2, 3, 4)),
    ]
    assert chosen(1, *running) == ["gpu-1"]
    assert chosen(1, *running, recall_class="graceful") == ["gpu-2"], "graceful gives it 120 s to save"


def test_a_job_of_many_nodes_is_counted_once_and_its_nodes_go_together() -> None:
    running = [
        job(1, on=("gpu-1", "gpu-2"), started=ago(100), gpus=16),
        job(3, on="gpu-3", started=ago(150)),
        job(4, on="gpu-4", started=ago(160)),
    ]
    assert chosen(1, *running) == ["gpu-3"]
    assert chosen(2, *running) == ["gpu-1", "gpu-2"], "1600 GPU-seconds instead of 1200 and 1280"
    assert chosen(3, *running) == ["gpu-3", "gpu-1", "gpu-2"]


def test_restarts_suffered_decide_between_equal_work_then_jobs_touched() -> None:
    def alike(number: int, **more: Any) -> Any:
        return job(number, on=f"gpu-{number}", started=ago(100), **more)

    running = [alike(1, restarts=2), alike(2, restarts=1), alike(3, restarts=1), alike(4, restarts=2)]
    assert chosen(2, *running) == ["gpu-2", "gpu-3"]
    halves = [job(n, on="gpu-1", gpus=4, started=ago(100)) for n in (10, 11)]
    assert chosen(3, *halves, *(alike(n) for n in (2, 3, 4))) == ["gpu-2", "gpu-3", "gpu-4"]


def test_work_is_lost_since_the_last_checkpoint_that_the_job_declares() -> None:
    saved = (NOW - timedelta(seconds=5)).isoformat()
    running = [
        job(1, on="gpu-1", started=ago(50_000), comment=f"mine tidegate:checkpoint={saved} yours"),
        *(job(n, on=f"gpu-{n}", started=ago(100)) for n in (2, 3, 4)),
    ]
    assert chosen(1, *running) == ["gpu-1"]


@pytest.mark.parametrize(
    ("comment", "seconds"),
    [
        ("tidegate:checkpoint=2026-11-21T11:59:00Z", 60),
        ("tidegate:checkpoint=2026-11-21T12:59:00+01:00", 60),
        (f"tidegate:checkpoint={int(NOW.timestamp()) - 60}", 60),
        ("tidegate:signal=USR1 tidegate:checkpoint=2026-11-21T11:59:50Z", 10),
        ("tidegate:signal=USR1 tidegate:checkpoint=2026-11-21T10:00:00Z", 60),
        ("tidegate:checkpoint=2027-01-01T00:00:00Z", 0),
        ("tidegate:checkpoint=2020-01-01T00:00:00Z", 500),
        ("tidegate:checkpoint=2026-11-21T11:59:00", 500),
        ("tidegate:checkpoint=yesterday", 500),
        ("tidegate:checkpoint=99999999999999999999", 500),
        ("tidegate:checkpoint=", 500),
    ],
)
def test_what_a_job_says_of_its_checkpoint(comment: str, seconds: int) -> None:
    one = job(1, on="gpu-1", gpus=2, started=ago(500), comment=comment)
    assert lost_gpu_seconds(one, pool(), "quick", NOW) == 2 * seconds


def test_what_is_lost_already_costs_nothing_more() -> None:
    running = [
        job(1, on=("gpu-1", "gpu-4"), started=ago(90_000)),
        *(job(n, on=f"gpu-{n}", started=ago(10)) for n in (2, 3)),
    ]
    assert chosen(1, *running, loans=[loan("gpu-1", done=RECALLED)]) == ["gpu-4"]


def test_newest_first_takes_the_jobs_that_ran_the_shortest_whatever_they_lose() -> None:
    running = [
        job(1, on="gpu-1", started=ago(300), gpus=1),
        job(2, on="gpu-2", started=ago(200)),
        job(3, on="gpu-3", started=ago(9000), comment="tidegate:signal=USR1"),
        job(4, on="gpu-4", started=ago(100)),
    ]
    assert chosen(3, *running, policy="NewestFirst") == ["gpu-4", "gpu-2", "gpu-1"]


def test_lowest_priority_takes_the_least_important_loans_and_of_these_the_cheapest() -> None:
    loans = [loan(f"gpu-{n}", priority=priority) for n, priority in ((1, -100), (2, 5), (3, -100), (4, -200))]
    running = [job(n, on=f"gpu-{n}", started=ago(seconds)) for n, seconds in ((1, 90), (2, 1), (3, 80), (4, 7000))]
    assert chosen(1, *running, loans=loans, policy="LowestPriority") == ["gpu-4"]
    assert chosen(2, *running, loans=loans, policy="LowestPriority") == ["gpu-4", "gpu-3"]
    assert chosen(4, *running, loans=loans, policy="LowestPriority") == ["gpu-4", "gpu-3", "gpu-1", "gpu-2"]


def hit(user: str, seconds: float = 100, action: str = "Requeued", number: int = 77) -> TouchedJob:
    """A job that an earlier recall ended."""
    told = {"job_id": number, "action": action, "time": ago(seconds), "requeueable": True, "user": user}
    return TouchedJob.model_validate(told)


def test_spread_takes_no_user_twice_while_others_were_not_hit() -> None:
    users = {1: "ada", 2: "ada", 3: "bob", 4: "cleo"}
    running = [job(n, on=f"gpu-{n}", started=ago(10 * n), user=user) for n, user in users.items()]
    assert chosen(3, *running) == ["gpu-1", "gpu-2", "gpu-3"]
    assert sorted(chosen(3, *running, policy="Spread")) == ["gpu-1", "gpu-3", "gpu-4"]
    past = loan("gpu-1", name="gpu-1-0", done=RETURNED, jobs=(hit("ada"), hit("bob", action="Waited", number=78)))
    assert chosen_after(past, 1, *running) == ["gpu-3"]
    assert chosen_after(past, 3, *running) == ["gpu-1", "gpu-3", "gpu-4"]
    long_ago = loan("gpu-1", name="gpu-1-0", done=RETURNED, jobs=(hit("ada", seconds=86_401),))
    assert chosen_after(long_ago, 1, *running) == ["gpu-1"]


def chosen_after(past: NodeLoan, count: int, *jobs: Any) -> list[str]:
    loans = [loan(f"gpu-{n}") for n in range(1, 5)]
    state = slurm(*[slurm_node(f"gpu-{n}") for n in range(1, 5)], *jobs)
    world = index(past, *loans, pool(recall={"victimPolicy": "Spread"}), state)
    return sorted(one.spec.node_name for one in cheapest(loans, count, "quick", world))


@given(
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from("abc"), st.integers(1, 500)), max_size=8),
    st.lists(st.sampled_from("abc"), max_size=4),
    st.integers(1, 5),
)
def test_spread_never_hits_a_user_more_often_than_it_must(
    running: list[tuple[int, str, int]], before: list[str], count: int
) -> None:
    """Each loan that was taken had, when its turn came, users no more often hit than those of any that was left."""
    loans = [loan(f"gpu-{n}") for n in range(1, 7)]
    jobs = [job(i, on=f"gpu-{n}", user=user, started=ago(s)) for i, (n, user, s) in enumerate(running, 1)]
    past = loan("old", done=RETURNED, jobs=tuple(hit(user, number=n) for n, user in enumerate(before, 900)))
    state = slurm(*[slurm_node(f"gpu-{n}") for n in range(1, 7)], *jobs)
    world = index(past, *loans, pool(recall={"victimPolicy": "Spread"}), state)
    taken = cheapest(loans, count, "quick", world)
    hits = Counter(before)
    hits.update(one.user for loan_ in taken for one in world.jobs_on(loan_))
    worst = max((hits[one.user] for loan_ in taken for one in world.jobs_on(loan_)), default=0)
    for other in loans:
        if other not in taken:
            mine = Counter(one.user for one in world.jobs_on(other))
            would = max((hits[user] + more for user, more in mine.items()), default=0)
            assert would >= worst or worst <= 1


def test_protected_loans_come_last_also_for_the_cap() -> None:
    running = [job(1, on="gpu-1", started=ago(1), restarts=3), *(job(n, on=f"gpu-{n}") for n in (2, 3, 4))]
    assert chosen(4, *running) == ["gpu-2", "gpu-3", "gpu-4", "gpu-1"]


def test_what_a_recall_would_cost_is_told() -> None:
    running = [
        job(1, on="gpu-1", gpus=4, started=ago(100), restarts=1),
        job(2, on="gpu-1", gpus=2, started=ago(10), requeueable=False),
    ]
    one = loan("gpu-1")
    cost = cost_of(one, "quick", index(one, pool(), slurm(slurm_node("gpu-1"), *running)))
    assert (cost.lost_gpu_seconds, cost.restarts, cost.jobs, cost.not_requeueable) == (420, 1, (1, 2), (2,))
    assert [shield.job_id for shield in cost.shields] == [2]


def test_a_job_that_may_not_be_requeued_protects_all_its_nodes() -> None:
    running = [
        job(1, on=("gpu-1", "gpu-2"), started=ago(1), requeueable=False),
        *(job(n, on=f"gpu-{n}", started=ago(9000)) for n in (3, 4)),
    ]
    assert chosen(2, *running) == ["gpu-3", "gpu-4"]


def test_cpu_jobs_and_jobs_without_a_start_have_a_cost_too() -> None:
    running = [
        job(1, on="gpu-1", gpus=0, started=ago(50)),
        *(job(n, on=f"gpu-{n}", gpus=0, started=ago(60)) for n in (2, 3)),
        job(4, on="gpu-4", states=["CONFIGURING"]),
    ]
    assert chosen(2, *running)[0] == "gpu-1"

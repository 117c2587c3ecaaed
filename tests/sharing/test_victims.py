"""Which loans a claim takes back."""

from __future__ import annotations

from typing import Any

from tests.sharing.build import LENT, VACATED, ago, index, job, loan, pool, slurm, slurm_node
from tidegate.api import RecallClass
from tidegate.sharing.victims import cheapest


def chosen(count: int, *jobs: Any, recall_class: RecallClass = "quick", joining: tuple[int, ...] = ()) -> list[str]:
    loans = [loan(f"gpu-{n}", done=VACATED if n in joining else LENT) for n in range(1, 5)]
    state = slurm(*[slurm_node(f"gpu-{n}") for n in range(1, 5)], *jobs)
    return [one.spec.node_name for one in cheapest(loans, count, recall_class, index(*loans, pool(), state))]


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


def test_a_job_of_many_nodes_is_counted_whole_and_its_other_nodes_are_free_then() -> None:
    running = [
        job(1, on=("gpu-1", "gpu-2"), started=ago(100), gpus=16),
        job(3, on="gpu-3", started=ago(150)),
        job(4, on="gpu-4", started=ago(160)),
    ]
    assert chosen(1, *running) == ["gpu-3"]
    assert chosen(2, *running) == ["gpu-3", "gpu-4"]
    assert chosen(3, *running) == ["gpu-3", "gpu-4", "gpu-1"]
    big_and_young = [job(1, on=("gpu-1", "gpu-2"), started=ago(10), gpus=16), *running[1:]]
    assert chosen(2, *big_and_young) == ["gpu-1", "gpu-2"], "once the job is lost, its second node costs nothing"


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

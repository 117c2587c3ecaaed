"""How many nodes pending Slurm jobs could use."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sharing.build import ago, job, pool, slurm, slurm_node
from tidegate.sharing.demand import Room, Rooms, nodes_wanted, satisfies, waiting_jobs, waits_for_nodes
from tidegate.sharing.snapshot import SlurmJob

FEATURES = frozenset({"lent", "a100"})


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("", True),
        ("lent", True),
        ("h100", False),
        ("lent&a100", True),
        ("lent&h100", False),
        ("lent,a100", True),
        ("lent|h100", True),
        ("h100|b200", False),
        ("h100|lent&a100", True),
        ("h100&a100|lent", True),
        ("(h100|lent)&a100", True),
        ("(h100|b200)&lent", False),
        ("((lent))", True),
        ("[a100*2&h100*1]", True),
        ("[h100|b200]", False),
        ("a100*4", True),
        ("h100*4", False),
        ("&", False),
        ("(", False),
        ("lent&", False),
        ("lentil", False),
    ],
)
def test_feature_expressions(expression: str, holds: bool) -> None:
    assert satisfies(expression, FEATURES) is holds


@pytest.mark.parametrize(
    ("wish", "waits"),
    [
        (job(), True),
        (job(reason="Resources"), True),
        (job(reason="Priority"), True),
        (job(reason="None"), True),
        (job(reason="JobHeldUser"), False),
        (job(reason="JobHeldAdmin"), False),
        (job(reason="JobHoldMaxRequeue"), False),
        (job(reason="Dependency"), False),
        (job(reason="DependencyNeverSatisfied"), False),
        (job(reason="BeginTime"), False),
        (job(reason="AssocGrpGRES"), False),
        (job(reason="QOSMaxJobsPerUserLimit"), False),
        (job(reason="MaxJobsPerAccount"), False),
        (job(reason="PartitionTimeLimit"), False),
        (job(reason="Licenses"), False),
        (job(partitions=("cpu",)), False),
        (job(partitions=("cpu", "lent")), True),
        (job(constraints="lent"), True),
        (job(constraints="h100"), False),
        (job(required_nodes=("n7",)), False),
        (job(on="gpu-1"), False),
    ],
)
def test_only_jobs_that_more_nodes_would_start_count(wish: SlurmJob, waits: bool) -> None:
    assert waits_for_nodes(wish, pool()) is waits


def wanted(*parts: Any, coming: int = 0, most: int = 10, sample: Room | None = None) -> int:
    seen = slurm(*parts)
    nodes, jobs = seen.nodes.values(), waiting_jobs(pool(), seen)
    return nodes_wanted(jobs, pool(), nodes, coming, sample or Room(8, 60, 500_000), most)


def jobs(count: int, **more: Any) -> list[SlurmJob]:
    return [job(n + 1, **more) for n in range(count)]


@pytest.mark.parametrize(
    ("pending", "nodes"),
    [
        ([], 0),
        (jobs(1), 1),
        (jobs(3), 3),
        (jobs(8, gpus=1, cpus=1), 1),
        (jobs(9, gpus=1, cpus=1), 2),
        (jobs(2, gpus=1, cpus=31), 2),
        (jobs(2, gpus=1, memory_mib_per_node=300_000), 2),
        (jobs(1, gpus=9), 0),
        (jobs(1, gpus=32, node_count=4), 4),
        (jobs(1, gpus=88, node_count=11), 0),
        (jobs(1, gpus=8, array_tasks=5), 5),
        (jobs(1, gpus=8, array_tasks=50), 10),
        (jobs(2, gpus=1, cpus=1, exclusive=True), 2),
        (jobs(1, cpus=61), 0),
        ([job(1, reason="JobHeldUser"), job(2)], 1),
    ],
)
def test_pending_jobs_want_the_nodes_that_they_fill(pending: list[SlurmJob], nodes: int) -> None:
    assert wanted(*pending) == nodes


def test_what_is_free_and_what_is_joining_is_used_first() -> None:
    assert wanted(slurm_node(), *jobs(2)) == 1
    assert wanted(slurm_node(), *jobs(2), coming=1) == 0
    assert wanted(slurm_node(gpus_used=4), job(1, gpus=4)) == 0
    assert wanted(slurm_node(gpus_used=4), job(1, gpus=5)) == 1


@pytest.mark.parametrize(
    "record",
    [
        slurm_node("gpu-1", "IDLE", "DRAIN"),
        slurm_node("gpu-1", "DOWN"),
        slurm_node("gpu-1", "IDLE", "NOT_RESPONDING"),
        slurm_node("gpu-1", "IDLE", "INVALID_REG"),
        slurm_node(partitions=("cpu",)),
        slurm_node("gpu-1", "MIXED", gpus_used=8),
        slurm_node("gpu-1", "MIXED", cpus_used=60),
    ],
)
def test_records_that_take_no_job_of_the_partition_offer_no_room(record: Any) -> None:
    assert wanted(record, job()) == 1


def test_an_exclusive_job_does_not_share_a_busy_node() -> None:
    assert wanted(slurm_node("gpu-1", "MIXED", gpus_used=1), job(1, gpus=1, exclusive=True)) == 1
    assert wanted(slurm_node(), job(1, gpus=1, exclusive=True), job(2, gpus=1, cpus=1)) == 1


def test_a_job_of_many_nodes_counts_only_if_all_are_to_be_had() -> None:
    big = job(1, gpus=32, node_count=4)
    assert wanted(big, most=3) == 0
    assert wanted(big, most=4) == 4
    assert wanted(slurm_node(), big, most=3) == 3


def test_the_more_important_job_gets_the_room_first() -> None:
    small, big = job(1, gpus=8, priority=1), job(2, gpus=16, node_count=2, priority=9)
    assert wanted(small, big, most=2) == 2
    assert wanted(small, big, most=1) == 1


def test_running_jobs_are_no_demand() -> None:
    assert wanted(slurm_node("gpu-1", "ALLOCATED", gpus_used=8), job(1, on="gpu-1", started=ago(5))) == 0


@pytest.mark.parametrize(("may_spread", "nodes"), [(True, 2), (False, 0)])
def test_gpus_of_a_whole_job_may_be_spread_over_nodes(may_spread: bool, nodes: int) -> None:
    four = job(1, gpus=4, node_count=1, may_spread=may_spread)
    assert wanted(four, sample=Room(2, 8, 60000), most=4) == nodes


def test_a_large_array_is_laid_room_by_room() -> None:
    array = job(1, gpus=0, cpus=1, array_tasks=100_000)
    rooms = [slurm_node(f"node-{n}", "IDLE", gpus=2, cpus=64) for n in range(200)]
    assert wanted(array, *rooms, sample=Room(2, 64, 60000), most=50) == 50


small = st.integers(0, 4)


@given(
    st.lists(st.tuples(small, small, small, st.booleans()), max_size=5),
    st.lists(st.tuples(st.integers(1, 3), small, small, small, st.booleans(), st.integers(1, 3)), max_size=12),
    small,
)
def test_what_did_not_fit_once_is_not_looked_at_again_and_that_changes_nothing(
    free: list[tuple[int, int, int, bool]], wishes: list[tuple[int, int, int, int, bool, int]], limit: int
) -> None:
    """Against an implementation that looks at all rooms each time."""
    sample = Room(4, 4, 4)
    rooms, plain = Rooms([Room(*one) for one in free], 0, sample), [Room(*one) for one in free]
    for number, (count, gpus, cpus, memory_mib, exclusive, tasks) in enumerate(wishes, 1):
        wish = job(number, gpus=gpus * count, cpus=cpus * count, node_count=count, exclusive=exclusive,
                   memory_mib_per_node=memory_mib)  # fmt: skip
        chosen = [one for one in plain if one.takes(gpus, cpus, memory_mib, exclusive)][:count]
        missing = count - len(chosen)
        laid = 0
        if not missing or (sample.takes(gpus, cpus, memory_mib, exclusive) and rooms.new + missing <= limit):
            fresh = [replace(sample) for _ in range(missing)]
            plain += fresh
            chosen += fresh
            laid = 1 if exclusive else min(tasks, *(one.times(gpus, cpus, memory_mib) for one in chosen))
            for one in chosen:
                one.gpus, one.memory_mib = one.gpus - gpus * laid, one.memory_mib - memory_mib * laid
                one.cpus, one.shared = 0 if exclusive else one.cpus - cpus * laid, False
        assert rooms.lay(wish, tasks, limit) == laid
        assert rooms.new == len(plain) - len(free)

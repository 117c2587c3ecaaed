"""What holds for every taking and every eviction, in all worlds and in crowded ones above all."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tests.sharing.build import NOW, only
from tests.sharing.crowds import crowds
from tests.sharing.test_properties import status_writes, with_statuses
from tests.sharing.worlds import worlds
from tidegate.sharing.commands import CreateLoan, EvictPod
from tidegate.sharing.decide import decide
from tidegate.sharing.evictions import Allowance, why_it_stays
from tidegate.sharing.index import Index
from tidegate.sharing.sides import sides
from tidegate.sharing.snapshot import Snapshot
from tidegate.sharing.takings import handover_gain


@given(crowds())
def test_a_job_gets_all_the_nodes_that_it_lacks_or_none_and_never_more(world: Snapshot) -> None:
    index = Index(world, NOW)
    new: dict[tuple[str, int], list[CreateLoan]] = {}
    for create in only(decide(world, NOW), CreateLoan):
        pool = index.pools[create.spec.pool_name]
        if job := create.spec.taken_for:
            assert pool.spec.lending.preemption == "LowerPriority"
            assert index.slurm_of(pool.metadata.name) is not None
            new.setdefault((pool.spec.slurm_cluster_name, job.job_id), []).append(create)
    for (cluster_name, job_id), loans in new.items():
        taken = index.loans_by_taker.get((cluster_name, job_id), ())
        standing = [one for one in taken if not one.is_over and not one.is_wanted_back]
        wishes = {one.spec.taken_for.nodes for one in loans if one.spec.taken_for}
        assert wishes == {len(standing) + len(loans)}
        wish = world.slurm[cluster_name].jobs[job_id]
        assert len(standing) + len(loans) <= max(wish.node_count, 1)
        assert wish.is_pending


@given(st.one_of(crowds(), worlds()))
def test_every_hand_over_is_a_gain(world: Snapshot) -> None:
    """The measure on which it rests that no cycle of hand-overs is possible, in both directions."""
    index = Index(world, NOW)
    for command in decide(world, NOW):
        gain = handover_gain(command, index)
        assert gain is None or gain > 0, command


@given(crowds())
def test_pods_are_evicted_only_by_their_leave(world: Snapshot) -> None:
    index = Index(world, NOW)
    evictions = only(decide(world, NOW), EvictPod)
    assert len({command.pod.uid for command in evictions}) == len(evictions)
    for command in evictions:
        job, loans = command.loan.spec.taken_for, {one.metadata.name: one for one in world.loans}
        assert job is not None
        assert index.slurm_of(command.loan.spec.pool_name) is not None
        assert len(command.gang) == job.nodes
        for name in command.gang:
            assert world.nodes[loans[name].spec.node_name].fence == name
            assert not loans[name].is_wanted_back
        for pod in (command.pod, *command.others):
            assert why_it_stays(pod, job.priority) == ""
            assert world.nodes[pod.node].annotations == {}
        assert Allowance(world.disruption_budgets).take([command.pod, *command.others]) == ""


@given(crowds())
def test_takings_keep_the_terms(world: Snapshot) -> None:
    index, commands = Index(world, NOW), decide(world, NOW)
    new = only(commands, CreateLoan)
    for pool in world.pools:
        terms, out = index.terms(pool), [one for one in index.loans_of(pool.metadata.name) if not one.is_wanted_back]
        if new:
            assert terms.cap is None or len(out) + len(new) <= terms.cap
            assert len(new) + sum(not one.status.is_true("Lent") for one in out) <= terms.max_joining
            assert sides(pool, index).kubernetes - len(new) >= terms.kubernetes.floor
    assert max(Counter(one.spec.node_name for one in new).values(), default=0) <= 1
    planned = Allowance(world.disruption_budgets)
    for create in new:
        there = index.foreign_gpu_pods(create.spec.node_name, index.pools[create.spec.pool_name])
        assert planned.take([pod for pod in there if not pod.deleting]) == ""


@given(crowds())
def test_statuses_of_crowds_reach_a_fixed_point(world: Snapshot) -> None:
    for _ in range(12):
        commands = decide(world, NOW)
        if not status_writes(commands):
            return
        world = with_statuses(world, commands)
    raise AssertionError(f"still writing: {status_writes(commands)}")

"""How many nodes of a pool go to Slurm, and which."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sharing.build import (
    LENT,
    NOW,
    RECALLED,
    RETURNED,
    VACATED,
    ago,
    back_for,
    claim,
    decided,
    job,
    lent_node,
    loan,
    node,
    only,
    pod,
    pool,
    slurm,
    slurm_node,
    slurmd,
)
from tidegate.sharing.commands import CreateLoan, GuardPool, HoldNode

NODES = [node(f"gpu-{n}") for n in range(1, 5)]
BUSY = slurm(*[job(n) for n in range(1, 10)])


def lent(*things: Any, **more: Any) -> list[str]:
    return [command.spec.node_name for command in only(decided(*things, **more), CreateLoan)]


def test_demand_driven_lends_what_pending_jobs_could_use() -> None:
    assert lent(*NODES, slurm(job(1), job(2))) == ["gpu-1", "gpu-2"]
    assert lent(*NODES, slurm()) == []


def test_eager_lends_every_idle_node() -> None:
    assert lent(*NODES, pool(lending={"policy": "Eager"})) == ["gpu-1", "gpu-2", "gpu-3", "gpu-4"]


def test_a_loan_is_recorded_with_what_it_lends() -> None:
    (command,) = only(decided(node("gpu-1.example.org", gpus=4), pool(priority=-7), slurm(job(gpus=4))), CreateLoan)
    assert command.name == "gpu-1.example.org-1"
    assert command.spec.to_json() == {
        "poolName": "batch",
        "nodeName": "gpu-1.example.org",
        "slurmNodeName": "gpu-1",
        "gpuResourceName": "nvidia.com/gpu",
        "gpus": 4,
        "priority": -7,
        "wanted": "Lent",
    }


def test_the_next_loan_of_a_node_has_the_next_number() -> None:
    past = [loan(name=f"gpu-1-{n}", done=RETURNED) for n in (1, 9, 10)]
    assert [c.name for c in only(decided(node(), *past, BUSY), CreateLoan)] == ["gpu-1-11"]


GANG = slurm(job(gpus=24, cpus=24, node_count=3))


@pytest.mark.parametrize(
    "fourth_and_third",
    [
        [node("gpu-3"), node("gpu-4")],
        [node("gpu-3"), node("gpu-4", unschedulable=True)],
        [lent_node("gpu-3"), loan("gpu-3", done=RECALLED), node("gpu-4", unschedulable=True)],
    ],
)
def test_a_job_of_three_nodes_is_lent_to_when_three_are_to_be_had(fourth_and_third: list[Any]) -> None:
    assert lent(*NODES[:2], *fourth_and_third, GANG)[:2] == ["gpu-1", "gpu-2"]


@pytest.mark.parametrize(
    "third",
    [
        [node("gpu-3", unschedulable=True)],
        [node("gpu-3"), pod("web", on="gpu-3")],
        [lent_node("gpu-3"), loan("gpu-3", done=RECALLED, back=back_for("c1")), claim()],
        [node("gpu-3"), pool(lending={"cap": 2})],
        [node("gpu-3"), pool(lending={"headroom": {"low": 0, "high": 1}})],
    ],
)
def test_a_job_of_three_nodes_gets_none_while_only_two_are_to_be_had(third: list[Any]) -> None:
    assert lent(*NODES[:2], *third, GANG) == []


def test_a_job_of_three_nodes_waits_until_the_third_has_idled_long_enough() -> None:
    seen = {"gpu-1": ago(900), "gpu-2": ago(900)}
    assert lent(*NODES[:3], GANG, idle_since=seen | {"gpu-3": ago(59)}) == []
    assert lent(*NODES[:3], GANG, idle_since=seen | {"gpu-3": ago(61)}) == ["gpu-1", "gpu-2", "gpu-3"]


def test_the_floor_is_lent_without_demand() -> None:
    assert lent(*NODES, pool(lending={"floor": 2})) == ["gpu-1", "gpu-2"]


@pytest.mark.parametrize("policy", ["Eager", "DemandDriven"])
@pytest.mark.parametrize(("cap", "count"), [(0, 0), (1, 1), (3, 3), (9, 4)])
def test_the_cap_is_never_exceeded(policy: str, cap: int, count: int) -> None:
    assert len(lent(*NODES, BUSY, pool(lending={"policy": policy, "cap": cap}))) == count


def out(number: int, *done: str) -> list[Any]:
    name = f"gpu-{number}"
    return [lent_node(name), loan(name, done=done or LENT), slurmd(f"{name}-1", on=name)]


def test_lent_and_joining_loans_count_against_the_cap_and_returning_ones_do_not() -> None:
    terms = pool(lending={"cap": 3})
    state = slurm(slurm_node("gpu-7", "MIXED", gpus_used=8), *[job(n) for n in range(1, 10)], job(70, on="gpu-7"))
    assert len(lent(*NODES, *out(7), *out(8, *VACATED), terms, state)) == 1
    assert len(lent(*NODES, *out(7), *out(8, *RECALLED), terms, state)) == 2


@pytest.mark.parametrize(("high", "count"), [(0, 4), (1, 3), (3, 1), (4, 0), (9, 0)])
def test_headroom_stays_with_kubernetes(high: int, count: int) -> None:
    assert len(lent(*NODES, BUSY, pool(lending={"headroom": {"low": 0, "high": high}}))) == count


def test_free_nodes_that_may_not_be_lent_yet_count_as_headroom() -> None:
    terms = pool(lending={"headroom": {"low": 0, "high": 2}})
    idle = {"gpu-1": ago(500), "gpu-2": ago(500)}
    assert lent(*NODES, BUSY, terms, idle_since=idle) == ["gpu-1", "gpu-2"]


def test_so_many_nodes_join_at_a_time() -> None:
    terms = pool(lending={"maxJoining": 3})
    assert len(lent(*NODES, BUSY, terms)) == 3
    assert len(lent(*NODES, *out(7, *VACATED), BUSY, terms)) == 2
    assert len(lent(*NODES, *out(7, *VACATED), *out(8), *out(9, "Fenced"), BUSY, terms)) == 1


def test_the_longest_idle_goes_first_and_names_decide_ties() -> None:
    idle = {"gpu-1": ago(100), "gpu-2": ago(900), "gpu-3": ago(900), "gpu-4": ago(500)}
    assert lent(*NODES, slurm(job(1), job(2), job(3)), idle_since=idle) == ["gpu-2", "gpu-3", "gpu-4"]


def test_joining_nodes_count_before_new_ones() -> None:
    assert lent(*NODES, *out(7, *VACATED), slurm(job(1), job(2))) == ["gpu-1"]


def test_nodes_are_as_big_for_slurm_as_staying_pods_leave_them() -> None:
    daemons = [pod(f"log-{n}", on=f"gpu-{n}", gpus=0, cpus=10) for n in range(1, 5)]
    assert len(lent(*NODES, *daemons, slurm(job(1, cpus=54)))) == 1
    assert len(lent(*NODES, *daemons, slurm(job(1, cpus=55)))) == 0


@pytest.mark.parametrize(
    "things",
    [
        [slurm(job(1), error="down", reason="Unreachable")],
        [slurm(job(1), observed=ago(26))],
        [slurm(job(1), observed=None)],
        [slurm(job(1), partitions=["cpu"])],
        [BUSY, pool(stopPolicy="Hold")],
        [BUSY, pool(stopPolicy="HoldAndDrain")],
        [BUSY, pool(deleted=NOW)],
        [BUSY, pool(guarded=False)],
        [BUSY, pool(slurmClusterName="nowhere")],
    ],
)
def test_nothing_is_lent_while_slurm_or_the_pool_does_not_allow_it(things: list[Any]) -> None:
    assert lent(*NODES, *things) == []


def test_an_observation_within_the_limit_is_believed() -> None:
    assert lent(node(), slurm(job(1), observed=ago(25))) == ["gpu-1"]


def test_a_pool_gets_its_finalizer_before_the_first_loan() -> None:
    commands = decided(node(), BUSY, pool(guarded=False))
    assert [c.guarded for c in only(commands, GuardPool)] == [True]


def test_a_node_that_is_given_to_a_claim_in_the_same_decision_is_not_lent() -> None:
    commands = decided(node(), BUSY, claim())
    assert [c.node.name for c in only(commands, HoldNode)] == ["gpu-1"]
    assert not only(commands, CreateLoan)


def test_nodes_with_one_name_in_slurm_are_not_both_lent() -> None:
    assert lent(node("gpu-1.a"), node("gpu-1.b"), node("gpu-2.a"), BUSY) == ["gpu-2.a"]


def test_nodes_without_gpus_are_not_lent() -> None:
    assert lent(node(gpus=0), BUSY) == []

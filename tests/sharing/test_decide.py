"""The one decision as a whole: order, two pools, the end of a pool, and what is forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sharing.build import (
    FENCED,
    LENT,
    NOW,
    RECALLED,
    RETURNED,
    VACATED,
    ago,
    back_for,
    claim,
    cluster,
    decided,
    job,
    lent_node,
    loan,
    names,
    node,
    one,
    only,
    pool,
    slurm,
    slurm_node,
    slurmd,
    snapshot,
)
from tidegate.sharing.commands import (
    CreateLoan,
    DrainSlurmNode,
    EndLoan,
    ForgetLoan,
    GuardPool,
    RecallLoan,
    ReleaseNode,
    WriteClaimStatus,
    WriteLoanStatus,
    WritePoolStatus,
)
from tidegate.sharing.decide import decide
from tidegate.sharing.snapshot import Snapshot

OUT = [lent_node(), loan(), slurmd(), slurm(slurm_node("gpu-1", "ALLOCATED"), job(on="gpu-1"))]


def test_nothing_is_decided_about_an_empty_world() -> None:
    empty = Snapshot({}, (), (), {}, {}, (), (), {})
    assert decide(empty, NOW) == []


def test_a_loan_that_is_turned_around_moves_on_only_in_the_next_decision() -> None:
    commands = decided(*OUT, claim())
    assert one(commands, RecallLoan).loan.metadata.name == "gpu-1-1"
    assert not only(commands, WriteLoanStatus)
    assert not only(commands, DrainSlurmNode)


def test_a_claim_is_answered_in_the_decision_that_recalls_for_it() -> None:
    commands = names(decided(*OUT, claim()))
    assert commands.index("RecallLoan") < commands.index("WriteClaimStatus") < commands.index("WritePoolStatus")


def test_claims_come_before_lending() -> None:
    commands = decided(node("gpu-1"), node("gpu-2"), slurm(job(1), job(2)), claim(nodes=1))
    assert names(commands).index("HoldNode") < names(commands).index("CreateLoan")
    assert [c.spec.node_name for c in only(commands, CreateLoan)] == ["gpu-2"]


def test_a_claims_status_is_written_also_where_its_pool_is_unknown() -> None:
    assert one(decided(claim(pool_name="nosuch")), WriteClaimStatus).status.priority == 1000


# --- two pools


def test_of_two_pools_that_select_a_node_only_the_older_lends_it() -> None:
    old, young = pool("old", created=ago(9)), pool("young", created=ago(5))
    commands = decided(node(), young, old, slurm(job()))
    assert [c.spec.pool_name for c in only(commands, CreateLoan)] == ["old"]
    assert len(only(commands, WritePoolStatus)) == 2


def test_the_older_pool_keeps_a_node_that_it_does_not_lend() -> None:
    old, young = pool("old", created=ago(9), stopPolicy="Hold"), pool("young", created=ago(5))
    assert not only(decided(node(), young, old, slurm(job())), CreateLoan)


def test_a_loan_of_the_younger_pool_goes_on_and_its_node_is_not_lent_twice() -> None:
    old, young = pool("old", created=ago(9)), pool("young", created=ago(5))
    mine = loan(pool_name="young")
    world = slurm(slurm_node("gpu-1", "ALLOCATED"), job(on="gpu-1"), job(2))
    assert not only(decided(lent_node(), mine, slurmd(), old, young, world), CreateLoan)
    assert not only(decided(lent_node(), mine, slurmd(), old, young, world), RecallLoan)


# --- two operators


def test_of_two_loans_for_one_node_the_one_with_the_fence_goes_on() -> None:
    first, second = loan(name="gpu-1-1", done=FENCED), loan(name="gpu-1-2", done=(), created=ago(5))
    commands = decided(lent_node(loan="gpu-1-1"), first, second)
    assert one(commands, RecallLoan).loan.metadata.name == "gpu-1-2"
    back = loan(name="gpu-1-2", done=(), created=ago(5), wanted="Returned", back=back_for(reason="NodeTaken"))
    commands = decided(lent_node(loan="gpu-1-1"), first, back)
    write = [c for c in only(commands, WriteLoanStatus) if c.loan.metadata.name == "gpu-1-2"]
    assert write[0].status.is_true("Returned")
    assert not only(commands, ReleaseNode), "the fence is not its own"


# --- the end of a pool


def test_a_deleted_pool_takes_its_nodes_back_before_it_goes() -> None:
    gone = pool(deleted=NOW)
    commands = decided(*OUT, gone, node("gpu-2"))
    assert one(commands, RecallLoan).back.reason == "PoolDeleted"
    assert not only(commands, GuardPool)
    assert not only(commands, CreateLoan)


@pytest.mark.parametrize("done", [RECALLED, VACATED])
def test_a_deleted_pool_stays_while_any_of_its_nodes_is_out(done: tuple[str, ...]) -> None:
    assert not only(decided(lent_node(), loan(done=done), slurmd(), pool(deleted=NOW)), GuardPool)


def test_a_deleted_pool_without_loans_is_let_go() -> None:
    commands = decided(node(), loan(done=RETURNED), pool(deleted=NOW))
    assert [c.guarded for c in only(commands, GuardPool)] == [False]
    assert not only(decided(node(), pool(deleted=NOW, guarded=False)), GuardPool)


def test_a_loan_whose_pool_was_torn_out_is_not_forgotten() -> None:
    commands = decided(lent_node(), loan(), slurmd(), pool("other", nodeSelector={"other": "yes"}))
    assert one(commands, RecallLoan).back.reason == "PoolDeleted"


# --- history


def ended(number: int, node_name: str = "gpu-1", seconds: float | None = None, **more: Any) -> Any:
    age = 10_000 - number if seconds is None else seconds
    return loan(node_name, name=f"{node_name}-{number}", done=RETURNED, created=ago(age), finalizers=(), **more)


def forgotten(*things: Any) -> list[str]:
    return [c.loan.metadata.name for c in only(decided(*things), ForgetLoan)]


def test_ended_loans_beyond_the_limit_are_forgotten_oldest_first() -> None:
    past = [ended(n) for n in range(1, 6)]
    assert sorted(forgotten(node(), *past, pool(historyLimit=3))) == ["gpu-1-1", "gpu-1-2"]
    assert forgotten(node(), *past, pool(historyLimit=5)) == []


def test_the_newest_loan_of_a_node_keeps_its_number() -> None:
    past = [ended(1), ended(2), ended(1, "gpu-2")]
    assert forgotten(node(), node("gpu-2"), *past, pool(historyLimit=0)) == ["gpu-1-1"]
    assert sorted(forgotten(node(), *past, pool(historyLimit=0))) == ["gpu-1-1", "gpu-2-1"], "gpu-2 is gone"


def test_loans_that_the_flap_budget_counts_are_kept() -> None:
    past = [ended(n, seconds=500 - n) for n in range(1, 4)]
    terms = {"flapBudget": {"loans": 3, "windowSeconds": 600}}
    assert forgotten(node(), *past, pool(historyLimit=0, lending=terms)) == []
    assert not only(decided(node(), *past, pool(historyLimit=0, lending=terms), slurm(job())), CreateLoan)


def test_running_loans_and_those_being_deleted_are_not_forgotten() -> None:
    assert forgotten(*OUT, ended(0), ended(5, "gpu-9", deleted=NOW), pool(historyLimit=0)) == []


def test_the_history_of_a_pool_that_is_gone_goes() -> None:
    assert forgotten(node(), ended(1, pool_name="gone"), ended(2, pool_name="gone")) == ["gpu-1-1"]


def test_an_ended_loan_is_let_go_and_its_node_lent_again() -> None:
    commands = decided(node(), loan(done=RETURNED), slurm(job()))
    assert names(commands).count("EndLoan") == 1
    assert one(commands, CreateLoan).name == "gpu-1-2"
    assert one(commands, EndLoan).loan.metadata.name == "gpu-1-1"


# --- more than one Slurm


def test_each_pool_looks_at_its_own_slurm() -> None:
    west = pool("west", nodeSelector={"side": "west"}, slurmClusterName="west")
    world = snapshot(
        node("gpu-1"),
        node("gpu-2", labels={"side": "west", "tidegate.dev/lendable": "no"}),
        pool(),
        west,
        cluster(),
        cluster("west"),
        slurm(error="down", reason="Unreachable"),
    )
    both = {"slurm": world.slurm["slurm"], "west": slurm(job(1), job(2))}
    commands = decide(Snapshot(**{f: getattr(world, f) for f in world.__slots__} | {"slurm": both}), NOW)
    assert [c.spec.node_name for c in only(commands, CreateLoan)] == ["gpu-2"]


def test_a_long_lent_node_that_works_needs_no_command() -> None:
    steady: list[Any] = [lent_node(), loan(done=LENT, since=ago(90_000)), slurmd(), OUT[3], pool(), cluster()]
    world = snapshot(*steady)
    again = {type(c).__name__ for c in decide(world, NOW)} - {"WritePoolStatus", "WriteClusterStatus"}
    assert again == set()

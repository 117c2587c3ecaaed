"""How often a node may change hands, and what ends its quarantine."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.sharing.build import FENCED, LENT, NOW, RETURNED, ago, back_for, decided, index, loan, node, one, only, pool
from tidegate.api import BatchPoolStatus, NodeCounts, NodeLoan
from tidegate.api.names import claim_fence
from tidegate.sharing.budgets import failed_loans, loans_in_window, quarantined_until
from tidegate.sharing.commands import CreateLoan, WritePoolStatus

TERMS: Any = {"flapBudget": {"loans": 2, "windowSeconds": 600}}
NEVER_LENT = tuple(step for step in RETURNED if step != "Lent")


def past(number: int, seconds: float, name: str = "gpu-1", **more: Any) -> NodeLoan:
    """A loan that is over and started so long ago."""
    return loan(name, name=f"{name}-{number}", done=more.pop("done", RETURNED), created=ago(seconds), **more)


def released(seconds: float) -> Any:
    return node(annotations={"tidegate.dev/released": ago(seconds).isoformat()})


@pytest.mark.parametrize(
    ("starts", "ends_in"),
    [
        ([], None),
        ([500], None),
        ([500, 20], 100),
        ([700, 500], None),
        ([500, 300, 20], 300),
    ],
)
def test_a_node_is_quarantined_until_one_fewer_than_the_budget_is_in_the_window(
    starts: list[int], ends_in: int | None
) -> None:
    seen = index(node(), pool(lending=TERMS), *(past(n, seconds) for n, seconds in enumerate(starts)))
    until = quarantined_until("gpu-1", seen.pools["batch"], seen)
    assert until == (None if ends_in is None else NOW + timedelta(seconds=ends_in))
    if until is None:
        return
    for moment, ends in ((until - timedelta(seconds=1), False), (until, True)):
        later = index(*seen.snapshot.nodes.values(), seen.pools["batch"], *seen.snapshot.loans, now=moment)
        assert (quarantined_until("gpu-1", later.pools["batch"], later) is None) is ends


@pytest.mark.parametrize(
    ("annotation", "counted"),
    [
        ("", 2),
        ("yesterday", 2),
        (ago(600).isoformat(), 2),
        (ago(500).isoformat(), 1),
        (ago(10).isoformat(), 0),
        (NOW.isoformat(), 0),
        (ago(-60).isoformat(), 2),
        ("2026-11-21T12:00:00", 2),
        ("2026-11-21T11:59:50Z", 0),
    ],
)
def test_loans_before_the_release_do_not_count(annotation: str, counted: int) -> None:
    target = node(annotations={"tidegate.dev/released": annotation})
    seen = index(target, pool(lending=TERMS), past(1, 500), past(2, 20))
    assert loans_in_window("gpu-1", seen.pools["batch"], seen) == counted


def status(*things: Any) -> BatchPoolStatus:
    return one(decided(*things), WritePoolStatus).status


def test_a_quarantined_node_is_counted_and_listed_with_its_end_and_why_it_came_back() -> None:
    said = status(node(), node("gpu-2"), pool(lending=TERMS), past(1, 500), past(2, 20), past(1, 20, "gpu-2"))
    assert said.nodes == NodeCounts(kubernetes=1, quarantined=1)
    (found,) = said.quarantined
    assert (found.node, found.until, found.reason) == ("gpu-1", NOW + timedelta(seconds=100), "Done")


def test_a_released_node_is_lent_again_and_not_listed() -> None:
    things = [pool(lending={**TERMS, "policy": "Eager"}), past(1, 500), past(2, 20)]
    assert only(decided(node(), *things), CreateLoan) == []
    commands = decided(released(10), *things)
    assert [create.name for create in only(commands, CreateLoan)] == ["gpu-1-3"]
    assert one(commands, WritePoolStatus).status.quarantined == ()


def test_a_node_that_somebody_holds_stays_listed_but_counts_where_it_is() -> None:
    held = node(fence=claim_fence("uid-c1"))
    said = status(held, pool(lending=TERMS), past(1, 500), past(2, 20))
    assert (said.nodes, [found.node for found in said.quarantined]) == (NodeCounts(claimed=1), ["gpu-1"])


def test_a_node_that_is_lent_at_the_moment_is_not_in_quarantine() -> None:
    lent = [node(fence="gpu-1-2", label="gpu-1-2"), loan(name="gpu-1-2", done=LENT, created=ago(20))]
    said = status(*lent, pool(lending=TERMS), past(1, 500))
    assert (said.nodes, said.quarantined) == (NodeCounts(lent=1), ())


def test_a_long_list_is_cut_but_the_count_is_not() -> None:
    terms = pool(lending={"flapBudget": {"loans": 1, "windowSeconds": 600}})
    many = [thing for n in range(260) for thing in (node(f"n{n:03}"), past(1, 20, f"n{n:03}"))]
    said = status(*many, terms)
    assert (said.nodes.quarantined, len(said.quarantined)) == (260, 256)


@pytest.mark.parametrize(
    ("done", "back", "failed"),
    [
        (RETURNED, None, 0),
        (NEVER_LENT, None, 1),
        (NEVER_LENT, back_for("c1"), 0),
        ((*FENCED, "Recalled"), None, 1),
        (("Recalled", "Returned"), None, 0),
    ],
)
def test_a_loan_failed_that_never_became_slurms_and_was_not_claimed(
    done: tuple[str, ...], back: Any, failed: int
) -> None:
    seen = index(node(), pool(lending=TERMS), past(1, 20, done=done, wanted="Returned", back=back))
    assert failed_loans("gpu-1", seen.pools["batch"], seen) == failed


def test_a_node_that_failed_to_join_stands_behind_the_others() -> None:
    things = [node("a"), node("b"), pool(lending={"policy": "Eager", "headroom": {"low": 0, "high": 1}})]
    idle = {"a": ago(9000), "b": ago(900)}
    (first,) = only(decided(*things, idle_since=idle), CreateLoan)
    assert first.spec.node_name == "a"
    (other,) = only(decided(*things, past(1, 60, "a", done=NEVER_LENT, wanted="Returned"), idle_since=idle), CreateLoan)
    assert other.spec.node_name == "b"

"""What pods that wait need beyond open nodes and those that are there for them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sharing.build import (
    ago,
    claim,
    claimed_node,
    decided,
    index,
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
from tests.sharing.test_claims import made
from tidegate.sharing.commands import RecallLoan, ResizeClaim
from tidegate.sharing.places import Need, placed_by_scheduler
from tidegate.sharing.snapshot import Pod, PodsNearby, Spread, Taint

HOST, ZONE = "kubernetes.io/hostname", "zone"
ALL_HERE = PodsNearby(ZONE, (), ("team",))
ONE_EACH = PodsNearby(HOST, (), ("team",))


def lent(zones: str = "ab") -> list[Any]:
    """Nodes lent-0, lent-1 and so on, each in the zone of its letter, and their loans."""
    names = [f"lent-{number}" for number in range(len(zones))]
    labels = [{HOST: name, ZONE: zone} for name, zone in zip(names, zones, strict=True)]
    found = [lent_node(name, labels=own) for name, own in zip(names, labels, strict=True)]
    daemons = [slurmd(f"{name}-1", on=name) for name in names]
    return [*found, *map(loan, names), *daemons, slurm(*map(slurm_node, names))]


def open_node(name: str = "open", **more: Any) -> Any:
    return node(name, labels={HOST: name, ZONE: "a"}, **more)


def pods(count: int, **more: Any) -> list[Pod]:
    return [pod(f"w{number}", owner="web", **more) for number in range(count)]


def just_seen(*things: Any) -> dict[str, Any]:
    return {"waiting_since": {thing.uid: ago(1) for thing in things if isinstance(thing, Pod)}}


def needs(waiting: list[Pod], *things: Any, there: tuple[Any, ...] = (), gang: bool = False) -> Need:
    world = index(*waiting, *things, *there, claim(), **just_seen(*waiting, *things))
    return Need(waiting, there, pool(), world, gang=gang)


# --- open nodes


@pytest.mark.parametrize(
    ("open_to_all", "nodes"),
    [
        ([], 2),
        ([open_node()], 1),
        ([open_node("x"), open_node("y")], 0),
        ([open_node(gpus=16)], 0),
        ([open_node(fence="claim_uid-other"), claim("other")], 2),
        ([open_node(ready=False)], 2),
        ([open_node(unschedulable=True)], 2),
        ([open_node(deleting=True)], 2),
        ([open_node(gpus=4)], 2),
        ([open_node(taints=[Taint("site/bad", "", "NoSchedule")])], 2),
        ([open_node(), pod("busy", on="open")], 2),
        ([open_node(), pod("busy", on="open", gpus=0)], 1),
        ([open_node(gpus=16), pod("busy", on="open", gpus=8)], 1),
        ([open_node(), loan("open", done=())], 2),
        ([open_node(), pod("first", gpus=8, priority=9)], 2),
        ([open_node(), pod("last", gpus=8, priority=-9)], 1),
        ([open_node(), pod("gated", gpus=8, priority=9, gated=True)], 1),
    ],
)
def test_pods_are_laid_on_open_nodes_first_as_the_scheduler_would(open_to_all: list[Any], nodes: int) -> None:
    assert needs(pods(2, gpus=8), *lent("ab"), *open_to_all).nodes == nodes


def test_an_open_node_outside_of_all_pools_will_do() -> None:
    elsewhere = node("elsewhere", labels={"tidegate.dev/lendable": "false"})
    assert needs(pods(1), *lent(), elsewhere).nodes == 0


def test_what_the_scheduler_passed_over_for_long_is_not_trusted_any_more() -> None:
    (wish,) = pods(1)
    things = [wish, open_node(), *lent()]
    for seconds, nodes in ((29, 0), (30, 1)):
        assert Need([wish], (), pool(), index(*things, waiting_since={wish.uid: ago(seconds)})).nodes == nodes


def test_a_node_that_became_free_just_now_is_left_to_pods_that_wait_for_long() -> None:
    (wish,) = pods(1)
    things = [wish, open_node(), *lent()]
    for seconds, nodes in ((29, 0), (30, 1)):
        world = index(*things, idle_since={"open": ago(seconds)})
        assert Need([wish], (), pool(), world).nodes == nodes


def test_a_node_of_a_claim_that_is_over_will_be_open() -> None:
    assert Need(pods(1), (), pool(), index(*pods(1), open_node(fence="claim_gone"), *lent())).nodes == 0


def test_no_claim_is_made_while_an_open_node_would_do() -> None:
    things = [*pods(1), *lent(), open_node()]
    assert made(*things, **just_seen(*things)) == []
    busy = [*pods(1), *lent(), open_node(), pod("busy", on="open", gpus=8)]
    assert [c.spec.nodes for c in made(*busy, **just_seen(*busy))] == [1]


def test_of_two_replicas_one_of_which_fits_an_open_node_one_is_claimed_for() -> None:
    things = [*pods(2, gpus=8), *lent("abc"), open_node()]
    assert [c.spec.nodes for c in made(*things, **just_seen(*things))] == [1]
    auto = claim("auto", holder="web", automatic=True)
    commands = decided(*things, auto, **just_seen(*things))
    assert not only(commands, ResizeClaim)
    assert len(only(commands, RecallLoan)) == 1


def test_each_open_node_is_counted_for_one_pod_only() -> None:
    waiting = [pod("a", owner="web", gpus=8), pod("b", owner="api", gpus=8)]
    world = index(*waiting, open_node(), *lent(), **just_seen(*waiting))
    assert {uid: one.name for uid, one in placed_by_scheduler(world).items()} == {"uid-a": "open"}


def test_a_gang_does_not_rely_on_open_nodes_but_may_be_given_free_ones() -> None:
    found = needs(pods(2, gpus=8), *lent("ab"), open_node(), gang=True)
    assert (found.nodes, sorted(found.helpful)) == (2, ["lent-0", "lent-1", "open"])


# --- nodes that are there, and those on loan


def test_nodes_that_are_there_are_filled_first() -> None:
    held = claimed_node("held")
    found = needs(pods(8), *lent(), there=(held,))
    assert (found.nodes, found.helpful) == (0, frozenset())
    assert needs(pods(9), *lent(), there=(held,)).nodes == 1


def test_only_nodes_that_a_pod_could_use_are_helpful() -> None:
    assert needs(pods(1, node_selector={ZONE: "b"}), *lent("ab")).helpful == {"lent-1"}
    assert not needs(pods(1, gpus=9), *lent("ab")).helpful


# --- topology


def test_pods_that_want_a_node_each_get_one_each() -> None:
    assert needs(pods(3, apart=[ONE_EACH]), *lent("abc")).nodes == 3
    assert needs(pods(3, spread=[Spread(ONE_EACH, 1)]), *lent("abc")).nodes == 3
    assert not needs(pods(3, apart=[ONE_EACH]), *lent("abc")).one_by_one


def test_an_open_node_beside_a_sibling_does_not_do_for_pods_that_stay_apart() -> None:
    there = [open_node(), pod("old", on="open", owner="web")]
    assert needs(pods(1), *lent(), *there).nodes == 0
    assert needs(pods(1, apart=[ONE_EACH]), *lent(), *there).nodes == 1


def test_only_nodes_where_the_next_pod_may_go_are_helpful_and_they_come_one_by_one() -> None:
    old = pod("old", on="open", owner="web", gpus=8)
    found = needs(pods(2, gpus=8, spread=[Spread(ALL_HERE, 1)]), *lent("aab"), open_node(), old)
    assert (found.nodes, found.one_by_one, sorted(found.helpful)) == (2, True, ["lent-2"])


def test_a_claim_of_pods_that_are_spread_recalls_one_loan_at_a_time_and_in_the_right_place() -> None:
    old = pod("old", on="open", owner="web", gpus=8)
    things = [*pods(2, gpus=8, spread=[Spread(ALL_HERE, 1)]), *lent("aab"), open_node(), old]
    wide = claim("auto", holder="web", automatic=True, nodes=2)
    recalls = only(decided(*things, wide), RecallLoan)
    assert [one.loan.spec.node_name for one in recalls] == ["lent-2"]


def test_pods_that_nothing_on_loan_could_run_beside_others_get_no_claim() -> None:
    old = pod("old", on="open", owner="web", gpus=8)
    assert made(*pods(1, apart=[ALL_HERE]), *lent("aa"), open_node(), old) == []

"""The cheapest k of items that share costs: against brute force, against taking one by one, and in time."""

from __future__ import annotations

import random
import statistics
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sharing.unions import Instance, brute_force, least_in_parts, one_by_one, tangled, whole_nodes
from tidegate.sharing import min_union
from tidegate.sharing.min_union import Item, cheapest_union, union_cost


@st.composite
def instances(draw: st.DrawFn) -> Instance:
    """Up to eight items, with things shared by any of them."""
    count = draw(st.integers(0, 8))
    costs = dict(enumerate(draw(st.lists(st.integers(0, 30), max_size=7))))
    names = st.frozensets(st.sampled_from(sorted(costs)), max_size=3) if costs else st.just(frozenset[int]())
    return [Item(draw(st.integers(0, 20)), tuple(sorted(draw(names)))) for _ in range(count)], costs


@given(instances(), st.integers(-1, 10))
def test_exactly_as_many_as_asked_for_or_all_and_as_cheap_as_can_be(instance: Instance, count: int) -> None:
    items, costs = instance
    chosen = cheapest_union(items, costs, count)
    assert len(chosen) == len(set(chosen)) == max(min(count, len(items)), 0)
    assert chosen == sorted(chosen)
    assert union_cost(chosen, items, costs) == brute_force(instance, len(chosen))


@given(instances(), st.integers(1, 8), st.sampled_from([0, 1, 8, 30_000]))
def test_also_without_search_never_worse_than_one_by_one(instance: Instance, count: int, room: int) -> None:
    items, costs = instance
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(min_union, "EFFORT", 0)
        patch.setattr(min_union, "ROOM", room)
        chosen = cheapest_union(items, costs, count)
    assert len(set(chosen)) == min(count, len(items))
    assert union_cost(chosen, items, costs) <= one_by_one(instance, min(count, len(items)))


def test_the_first_of_equals_wins() -> None:
    assert cheapest_union([Item(1)] * 5, {}, 2) == [0, 1]
    assert cheapest_union([Item(0, (1,)), Item(1), Item(1), Item(0, (1,))], {1: 2}, 2) == [1, 2]


def test_all_items_of_one_shared_thing_cost_as_much_as_one() -> None:
    of_four = [Item(0, (1,))] * 4
    assert cheapest_union([*(Item(5) for _ in range(4)), *of_four], {1: 19}, 4) == [4, 5, 6, 7]
    assert cheapest_union([*(Item(5) for _ in range(4)), *of_four], {1: 19}, 3) == [0, 1, 2]


@pytest.mark.parametrize(("size", "shared", "widest"), [(12, 8, 4), (12, 12, 4), (12, 26, 3), (13, 9, 8), (13, 16, 5)])
def test_the_gap_of_the_greedy_curves_is_small(size: int, shared: int, widest: int) -> None:
    """Random instances that hang together, of which nothing is searched completely, against brute force."""
    chance, gaps = random.Random(size * shared), []  # noqa: S311 - no secret
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(min_union, "EFFORT", 0)
        for _ in range(25):
            instance = tangled(chance, size, shared, widest)
            count = chance.randint(1, size - 1)
            cost = union_cost(cheapest_union(*instance, count), *instance)
            gaps.append(cost / brute_force(instance, count) - 1)
    assert statistics.fmean(gaps) <= 0.05
    assert max(gaps) <= 0.5


def test_a_large_count_costs_at_most_one_group_more_than_the_least() -> None:
    """With true curves: the lower bound is that of parts of groups, which nobody can have."""
    chance = random.Random(7)  # noqa: S311 - no secret
    for count in (150, 400, 700):
        items, costs = whole_nodes(chance, 1000)
        cost = union_cost(cheapest_union(items, costs, count), items, costs)
        bound = least_in_parts((items, costs), count)
        assert bound <= cost <= bound + max(costs.values())
        assert cost <= 1.05 * bound


def test_a_thousand_items_take_no_time_to_speak_of() -> None:
    """A bound ten times as wide as the aim, for machines that do other things; `make bench` has the figure."""
    chance = random.Random(9)  # noqa: S311 - no secret
    for instance in (whole_nodes(chance, 1000), tangled(chance, 1000, 1000, 6)):
        for count in (1, 4, 50, 500):
            began = time.process_time()
            cheapest_union(*instance, count)
            assert time.process_time() - began < 0.5

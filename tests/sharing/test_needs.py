"""How much a claim asks for, what it has of it, and which nodes would do for the rest."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sharing.build import (
    RECALLED,
    back_for,
    claim,
    claimed_node,
    index,
    lent_node,
    loan,
    node,
    pod,
)
from tidegate.api import CapacityClaim
from tidegate.sharing.needs import (
    amount,
    asks_too_much,
    fewest,
    lacking,
    surplus,
    wanted_nodes,
    words_of,
)


def coming(name: str, gpus: int = 8) -> list[Any]:
    """A node on its way back for claim c1."""
    return [lent_node(name, gpus=gpus), loan(name, gpus=gpus, done=RECALLED, back=back_for("c1"))]


HAS = [claimed_node("a", gpus=8), *coming("b", gpus=4), node("c", gpus=4), node("d", gpus=2)]


@pytest.mark.parametrize(
    ("wish", "lacks", "nodes"),
    [
        (claim(nodes=None), 0, 1),
        (claim(nodes=2), 0, 2),
        (claim(nodes=4), 2, 4),
        (claim(gpus=8), 0, 2),
        (claim(gpus=12), 0, 2),
        (claim(gpus=13), 1, 3),
        (claim(gpus=16), 4, 3),
        (claim(gpus=17), 5, 4),
        (claim(gpus=99), 87, 4),
    ],
    ids=lambda value: words_of(amount(value), value) if isinstance(value, CapacityClaim) else str(value),
)
def test_held_nodes_and_those_on_their_way_count_and_the_rest_is_packed(
    wish: CapacityClaim, lacks: int, nodes: int
) -> None:
    seen = index(*HAS, wish)
    assert lacking(wish, seen.pools["batch"], seen) == lacks
    assert wanted_nodes(wish, seen) == nodes


def test_a_claim_on_a_pool_that_is_gone_keeps_the_number_it_had() -> None:
    wish = claim(gpus=8, pool_name="gone")
    assert wanted_nodes(wish, index(wish)) == 0


@pytest.mark.parametrize(
    ("wish", "too_much"),
    [
        (claim(nodes=4), False),
        (claim(nodes=5), True),
        (claim(gpus=18), False),
        (claim(gpus=19), True),
        (claim(nodes=1, node_selector={"zone": "b"}), False),
        (claim(nodes=2, node_selector={"zone": "b"}), True),
        (claim(gpus=5, node_selector={"zone": "b"}), True),
        (claim(nodes=9, holder="web", automatic=True), False),
    ],
)
def test_what_the_pool_does_not_have_is_too_much(wish: CapacityClaim, too_much: bool) -> None:
    seen = index(*HAS[:-2], node("c", gpus=4, labels={"zone": "b"}), node("d", gpus=2), wish)
    assert asks_too_much(wish, seen.pools["batch"], seen) is too_much


@pytest.mark.parametrize(
    ("sizes", "wanted", "chosen"),
    [
        ([8, 8], 0, []),
        ([8, 8, 8], 8, [8]),
        ([8, 8, 8], 9, [8, 8]),
        ([4, 2, 8, 1], 3, [4]),
        ([4, 2, 8, 1], 9, [8, 1]),
        ([4, 4, 2], 5, [4, 2]),
        ([0, 0, 4], 9, [4]),
        ([], 1, []),
    ],
)
def test_the_fewest_and_none_larger_than_it_needs_to_be(sizes: list[int], wanted: int, chosen: list[int]) -> None:
    assert fewest(sizes, lambda size: size, wanted) == chosen


@given(st.lists(st.integers(0, 9), max_size=7), st.integers(0, 40))
def test_no_smaller_set_would_do(sizes: list[int], wanted: int) -> None:
    chosen = fewest(sizes, lambda size: size, wanted)
    if sum(sizes) < wanted:
        assert sorted(chosen) == sorted(size for size in sizes if size)
        return
    assert sum(chosen) >= wanted
    largest = sorted(sizes, reverse=True)
    assert sum(largest[: max(len(chosen) - 1, 0)]) < wanted or not chosen


def spare(*things: Any, wish: CapacityClaim) -> list[str]:
    seen = index(*things, wish)
    return [one.name for one in surplus(wish, seen.pools["batch"], seen)]


HELD = [claimed_node("a", gpus=8), claimed_node("b", gpus=4), claimed_node("c", gpus=4)]


@pytest.mark.parametrize(
    ("wish", "names"),
    [
        (claim(nodes=3), []),
        (claim(nodes=2), ["c"]),
        (claim(nodes=1), ["c", "b"]),
        (claim(gpus=16), []),
        (claim(gpus=13), []),
        (claim(gpus=12), ["c"]),
        (claim(gpus=8), ["a"]),
        (claim(gpus=1), ["a", "c"]),
        (claim(nodes=1, holder="web", automatic=True), []),
    ],
)
def test_what_is_beyond_the_amount_is_spare(wish: CapacityClaim, names: list[str]) -> None:
    held = [claimed_node("a"), claimed_node("b"), claimed_node("c")] if not wish.spec.gpus else HELD
    assert spare(*held, wish=wish) == names


def test_a_node_with_a_pod_of_the_claim_is_not_spare() -> None:
    used = [pod("p", on="c", claim="c1"), pod("q", on="b", claim="c1")]
    assert spare(*HELD, *used, wish=claim(nodes=1)) == ["a"]
    assert spare(*HELD, pod("p", on="c", claim="c1", namespace="other"), wish=claim(nodes=2)) == ["c"]


def test_nothing_is_spare_while_others_are_still_on_their_way() -> None:
    assert spare(claimed_node("a"), *coming("b"), *coming("c"), wish=claim(nodes=1)) == []

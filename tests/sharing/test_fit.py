"""Whether a pod could run on a node, and how many nodes pods need."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sharing.build import index, lent_node, loan, node, pod, pool, slurmd
from tidegate.sharing.fit import could_run, may_run
from tidegate.sharing.places import Need
from tidegate.sharing.snapshot import Node, Pod, Taint, Toleration

TAINTED = node(taints=[Taint("site/a100", "", "NoSchedule")])


@pytest.mark.parametrize(
    ("wish", "target", "fits"),
    [
        (pod(), node(), True),
        (pod(gpus=8), node(), True),
        (pod(gpus=9), node(), False),
        (pod(resource="amd.com/gpu"), node(), False),
        (pod(cpus=64), node(), True),
        (pod(cpus=64.001), node(), False),
        (pod(memory_mib=512_001), node(), False),
        (pod(node_selector={"zone": "a"}), node(), False),
        (pod(node_selector={"zone": "a"}), node(labels={"zone": "a"}), True),
        (pod(), TAINTED, False),
        (pod(tolerations=[Toleration("site/a100", "Exists")]), TAINTED, True),
        (pod(), lent_node(), True),
        (pod(), node(unschedulable=True), True),
    ],
)
def test_selectors_taints_and_room_decide_where_a_pod_may_run(wish: Pod, target: Node, fits: bool) -> None:
    assert may_run(wish, target) is fits


@pytest.mark.parametrize(
    ("requirement", "holds"),
    [
        (("zone", "In", ("a", "b")), True),
        (("zone", "In", ("b",)), False),
        (("zone", "NotIn", ("b",)), True),
        (("zone", "NotIn", ("a",)), False),
        (("missing", "NotIn", ("a",)), True),
        (("zone", "Exists", ()), True),
        (("missing", "Exists", ()), False),
        (("missing", "DoesNotExist", ()), True),
        (("zone", "DoesNotExist", ()), False),
        (("rank", "Gt", ("4",)), True),
        (("rank", "Gt", ("5",)), False),
        (("rank", "Lt", ("6",)), True),
        (("zone", "Gt", ("1",)), False),
        (("missing", "Lt", ("1",)), False),
        (("metadata.name", "In", ("gpu-1",)), True),
        (("metadata.name", "In", ("gpu-2",)), False),
        (("zone", "Unknown", ("a",)), False),
    ],
)
def test_required_affinity_is_read_as_the_scheduler_reads_it(
    requirement: tuple[str, str, tuple[str, ...]], holds: bool
) -> None:
    target = node(labels={"zone": "a", "rank": "5"})
    assert may_run(pod(required_affinity=[(requirement,)]), target) is holds


def test_one_term_of_the_affinity_is_enough_but_it_must_hold_whole() -> None:
    a, b, c = ("zone", "In", ("a",)), ("zone", "In", ("b",)), ("rank", "Exists", ())
    target = node(labels={"zone": "a"})
    assert may_run(pod(required_affinity=[(b,), (a,)]), target)
    assert not may_run(pod(required_affinity=[(a, c), (b,)]), target)


@pytest.mark.parametrize(
    ("target", "there", "fits"),
    [
        (node(), [], True),
        (node(unschedulable=True), [], False),
        (node(ready=False), [], False),
        (node(), [pod("x", on="gpu-1", gpus=4)], True),
        (node(), [pod("x", on="gpu-1", gpus=5)], False),
        (node(), [pod("x", on="gpu-1", gpus=0, cpus=61)], False),
        (node(), [pod("x", on="gpu-1", gpus=0, memory_mib=511_500)], False),
        (lent_node(), [slurmd()], False),
    ],
)
def test_what_is_bound_to_a_node_takes_room_from_a_pod(target: Node, there: list[Pod], fits: bool) -> None:
    wish = pod(gpus=4, cpus=4)
    assert could_run(wish, target, index(target, wish, *there)) is fits


def needed(pods: list[Pod], held: list[Node], fresh: list[Node], *there: Any) -> int:
    loans = [loan(node.name) for node in fresh]
    return Need(pods, held, pool(), index(*held, *fresh, *loans, *pods, *there)).nodes


def many(count: int, **more: Any) -> list[Pod]:
    return [pod(f"w{n}", **more) for n in range(count)]


FRESH = [node(f"gpu-{n}") for n in range(1, 5)]


@pytest.mark.parametrize(
    ("pods", "count"),
    [
        ([], 0),
        (many(1), 1),
        (many(8), 1),
        (many(9), 2),
        (many(3, gpus=5), 3),
        (many(2, gpus=8), 2),
        (many(9, gpus=8), 4),
        (many(2, gpus=9), 0),
        (many(1, node_selector={"zone": "nowhere"}), 0),
        (many(2, gpus=1, cpus=40), 2),
        (many(2, gpus=1, memory_mib=300_000), 2),
    ],
)
def test_pods_need_as_many_nodes_as_they_fill(pods: list[Pod], count: int) -> None:
    assert needed(pods, [], FRESH) == count


def test_room_on_held_nodes_is_used_first() -> None:
    held = [node("held")]
    assert needed(many(8), held, FRESH) == 0
    assert needed(many(9), held, FRESH) == 1
    assert needed(many(5), held, FRESH, pod("x", on="held", gpus=4)) == 1


def test_a_held_node_without_cpus_left_does_not_serve_a_pod() -> None:
    assert needed(many(1, cpus=40), [node("held")], FRESH, pod("x", on="held", cpus=40)) == 1


def test_pods_that_stay_on_a_node_take_room_there_and_the_slurmd_pod_does_not() -> None:
    one = [lent_node()]
    assert needed(many(2, cpus=31), [], one, slurmd()) == 1
    assert needed(many(1, cpus=62), [], one, slurmd(), pod("log", on="gpu-1", gpus=0, cpus=4)) == 0


def test_only_nodes_that_the_pod_may_use_count() -> None:
    west = node("west", labels={"zone": "west"})
    assert needed(many(2, gpus=8, node_selector={"zone": "west"}), [], [node("east"), west]) == 1

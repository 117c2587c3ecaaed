"""What pods are told for which no claim is made, and how often."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sharing.build import ago, claim, decided, index, node, only, pod, snapshot
from tests.sharing.test_claims import LENT_NODE
from tests.sharing.test_places import ONE_EACH, lent
from tidegate.api.names import AUTOMATIC_LABEL
from tidegate.sharing.commands import TellPod
from tidegate.sharing.snapshot import Pod, Taint, Toleration
from tidegate.sharing.waiting import track_told
from tidegate.sharing.why_not import why_not

NOTHING_FITS = "no claim is made: no node on loan could run it, they are "
TAINT = Taint("site/a100", "", "NoSchedule")


def told(*things: Any, **more: Any) -> list[str]:
    return [command.pod.name for command in only(decided(*things, **more), TellPod)]


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (pod(gpus=9), "too small for it"),
        (pod(cpus=65), "too small for it"),
        (pod(node_selector={"zone": "c"}), "not selected by its node selector or affinity"),
        (pod(node_selector={"zone": "a"}), "tainted, which it does not tolerate"),
        (
            pod(tolerations=[Toleration("site/a100", "Exists")], node_selector={"zone": "c"}),
            "not selected by its node selector or affinity",
        ),
    ],
)
def test_a_pod_that_no_node_on_loan_could_ever_run_is_told_why(wish: Pod, words: str) -> None:
    nodes, *rest = lent("a")
    things = [node(nodes.name, labels=nodes.labels, taints=[*nodes.taints, TAINT]), *rest]
    assert why_not(wish, index(wish, *things)) == NOTHING_FITS + words


def test_all_obstacles_are_named() -> None:
    first, second, *rest = lent("ab")
    small = node(second.name, labels=second.labels, taints=second.taints, gpus=2)
    wish = pod(gpus=4, node_selector={"zone": "b"})
    words = "not selected by its node selector or affinity or too small for it"
    assert why_not(wish, index(wish, first, small, *rest)) == NOTHING_FITS + words


@pytest.mark.parametrize(
    "things",
    [
        [pod(gpus=9), node()],
        [pod(gpus=9, labels={AUTOMATIC_LABEL: "false"}), *LENT_NODE],
        [pod(gpus=9, gated=True), *LENT_NODE],
        [pod(gpus=9, claim="mine"), *LENT_NODE],
        [pod(gpus=0, cpus=1000), *LENT_NODE],
        [pod(), *LENT_NODE],
        [pod(gpus=9, owner="web"), *LENT_NODE, claim("auto", holder="web", automatic=True)],
    ],
)
def test_who_needs_no_claim_or_has_one_or_wants_none_is_told_nothing(things: list[Any]) -> None:
    assert told(*things) == []


def test_a_pod_that_an_open_node_could_run_is_told_nothing() -> None:
    wish = pod(node_selector={"zone": "c"})
    things = [wish, *lent(), node("open", labels={"zone": "c"})]
    assert told(*things, waiting_since={wish.uid: ago(1)}) == []
    assert told(*things) == ["web-1"], "after a while the open node is not what it waits for"


def test_other_pods_in_the_way_are_told_of() -> None:
    siblings = [pod(f"w{number}", on=f"lent-{number}") for number in range(2)]
    wish = pod(apart=[ONE_EACH])
    assert why_not(wish, index(wish, *siblings, *lent())).startswith(
        "no claim is made: nodes on loan could run it, but"
    )


def test_each_pod_is_told_once_and_of_many_the_oldest() -> None:
    many = [pod(f"w{number}", owner="web", gpus=9) for number in range(20)]
    assert told(*many, *LENT_NODE) == [one.name for one in sorted(many, key=lambda one: one.name)[:8]]
    assert told(*many, *LENT_NODE, told=[one.uid for one in many]) == []


def test_what_was_said_is_remembered_as_long_as_the_pod_waits() -> None:
    wish = pod(gpus=9)
    things: list[Any] = [wish, *LENT_NODE]
    world = snapshot(*things)
    said = [TellPod(wish, "words")]
    assert track_told(frozenset(), [], world) == frozenset()
    assert track_told(frozenset({"uid-gone"}), said, world) == {wish.uid}
    assert track_told(frozenset({wish.uid}), [], snapshot()) == frozenset()

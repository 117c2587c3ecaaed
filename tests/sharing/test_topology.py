"""Where one more pod may go beside others: spread, affinity and anti-affinity as kube-scheduler has them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sharing.build import index, node, pod
from tidegate.sharing.snapshot import Node, Pod, PodsNearby, Requirement, Spread
from tidegate.sharing.topology import Topology

HOST, ZONE = "kubernetes.io/hostname", "zone"
WEB: Requirement = ("app", "In", ("web",))


def web(name: str = "new", **more: Any) -> Pod:
    return pod(name, labels={"app": "web"}, **more)


def meant(key: str = ZONE, selector: tuple[Requirement, ...] | None = (WEB,), *, beside: Any = None) -> PodsNearby:
    return PodsNearby(key, selector, () if beside is not None else ("team",), beside)


def nodes(zones: str = "aabbc") -> list[Node]:
    """Nodes n0, n1 and so on, each in the zone of its letter; `-` is in none."""
    return [
        node(f"n{number}", labels={HOST: f"n{number}", **({ZONE: zone} if zone != "-" else {})})
        for number, zone in enumerate(zones)
    ]


def allowed(wish: Pod, *there: Pod, zones: str = "aabbc", laid: tuple[tuple[Pod, int], ...] = (), **more: Any) -> str:
    """The numbers of the nodes where the pod may go."""
    site = nodes(zones)
    topology = Topology(index(*site, *there, **more))
    for one, number in laid:
        topology.lay(one, site[number])
    return "".join(str(number) for number, target in enumerate(site) if topology.allows(wish, target))


@pytest.mark.parametrize(
    ("there", "skew", "where"),
    [
        ([], 1, "01234"),
        (["n0"], 1, "234"),
        (["n0", "n2"], 1, "4"),
        (["n0", "n2", "n4"], 1, "01234"),
        (["n0", "n1"], 2, "234"),
        (["n0"], 2, "01234"),
    ],
)
def test_pods_are_spread_over_places_as_evenly_as_asked(there: list[str], skew: int, where: str) -> None:
    bound = [web(f"w{number}", on=name) for number, name in enumerate(there)]
    assert allowed(web(spread=[Spread(meant(), skew)]), *bound) == where


def test_a_place_that_the_pod_may_not_use_counts_only_where_the_pod_says_so() -> None:
    here: dict[str, Any] = {"required_affinity": [(("zone", "In", ("a", "b")),)]}
    bound = [web("w0", on="n0"), web("w1", on="n2")]
    # Whether the node is selected is not asked here: n4 is not, and still allowed.
    assert allowed(web(spread=[Spread(meant(), 1)], **here), *bound) == "01234"
    assert allowed(web(spread=[Spread(meant(), 1, all_nodes=True)], **here), *bound) == "4"


def test_a_node_that_is_at_no_place_is_not_for_pods_that_are_spread_or_together() -> None:
    assert allowed(web(spread=[Spread(meant(), 1)]), zones="a-") == "0"
    assert allowed(web(together=[meant()]), zones="a-") == "0"
    assert allowed(web(apart=[meant()]), web("w0", on="n0"), zones="a-") == "1"


def test_a_pod_that_its_own_constraint_does_not_mean_adds_nothing() -> None:
    assert allowed(pod(spread=[Spread(meant(), 1)]), web("w0", on="n0")) == "01234"
    assert allowed(pod(spread=[Spread(meant(), 1)]), web("w0", on="n0"), web("w1", on="n1")) == "234"


@pytest.mark.parametrize(
    ("rule", "there", "where"),
    [
        (meant(), [], "01234"),
        (meant(), [web("w0", on="n0")], "234"),
        (meant(HOST), [web("w0", on="n0")], "1234"),
        (meant(), [web("w0", on="n0", namespace="other")], "01234"),
        (meant(), [web("w0", on="n0", gpus=0)], "01234"),
        (meant(), [web("w0", on="n0", deleting=True)], "01234"),
        (meant(), [web("w0", on="gone")], "01234"),
        (meant(selector=None), [web("w0", on="n0")], "01234"),
        (meant(selector=()), [pod("w0", on="n0")], "234"),
        (meant(selector=(("app", "NotIn", ("db",)),)), [web("w0", on="n0")], "234"),
        (meant(beside=()), [web("w0", on="n0", namespace="other")], "234"),
        (meant(beside=(("tier", "In", ("x",)),)), [web("w0", on="n0", namespace="other")], "234"),
        (meant(beside=(("tier", "In", ("y",)),)), [web("w0", on="n0", namespace="other")], "01234"),
    ],
)
def test_pods_stay_apart_from_those_that_they_name(rule: PodsNearby, there: list[Pod], where: str) -> None:
    assert allowed(web(apart=[rule]), *there, namespaces={"other": {"tier": "x"}}) == where


def test_pods_that_are_there_keep_others_off() -> None:
    loner = pod("loner", on="n0", apart=[meant()])
    assert allowed(web(), loner) == "234"
    assert allowed(pod("other"), loner) == "01234"
    assert allowed(web(namespace="other"), loner) == "01234"


def test_pods_go_where_those_are_that_they_want_near() -> None:
    assert allowed(web(together=[meant()]), web("w0", on="n2")) == "23"
    assert allowed(pod(together=[meant(HOST)]), web("w0", on="n2")) == "2"


def test_the_first_of_a_group_may_go_anywhere_and_what_is_not_known_is_taken_for_granted() -> None:
    assert allowed(web(together=[meant()])) == "01234"
    assert allowed(pod(together=[meant()])) == "01234"


def test_pods_that_were_laid_count() -> None:
    assert allowed(web(spread=[Spread(meant(), 1)]), laid=((web("x"), 0), (web("y"), 2))) == "4"
    assert allowed(web(apart=[meant()]), laid=((web("x"), 0),)) == "234"
    assert allowed(web(), laid=((pod("x", apart=[meant()]), 0),)) == "234"


def test_pods_that_are_laid_between_two_looks_count() -> None:
    site = nodes()
    topology = Topology(index(*site, web("w0", on="n0")))
    evenly, alone = web("a", spread=[Spread(meant(), 1)]), web("b", apart=[meant(HOST)])
    assert not topology.allows(evenly, site[1])
    assert topology.allows(alone, site[1])
    for number in (2, 4):
        topology.lay(evenly, site[number])
    assert topology.allows(evenly, site[1])
    topology.lay(alone, site[1])
    assert not topology.allows(alone, site[1])
    assert not topology.allows(web("c"), site[1]), "the one that was laid keeps it off"

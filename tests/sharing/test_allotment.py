"""Which nodes each claim gets: amounts, gangs, classes and quotas, in the one order of all claims."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sharing.build import (
    CLEAN,
    RECALLED,
    ago,
    back_for,
    claim,
    claimed_node,
    decided,
    index,
    job,
    lent_node,
    loan,
    node,
    one,
    only,
    pod,
    pool,
    slurm,
    slurm_node,
    slurmd,
)
from tidegate.api import CapacityClaimStatus, LoanReturn
from tidegate.sharing.allotment import allot
from tidegate.sharing.commands import HoldNode, RecallLoan, TolerateFence, WriteClaimStatus


def lent(*numbers: int, gpus: int = 8, priority: int = -100, labels: dict[str, str] | None = None) -> list[Any]:
    """Nodes in Slurm, without jobs unless a Slurm says otherwise."""
    things: list[Any] = []
    for number in numbers:
        name = f"gpu-{number}"
        things += [lent_node(name, gpus=gpus, labels=labels), loan(name, gpus=gpus, priority=priority)]
        things.append(slurmd(f"{name}-1", on=name, gpus=gpus))
    return things


def coming(number: int, claim_name: str = "", gpus: int = 8) -> list[Any]:
    """A node on its way back, for a claim or for nobody."""
    name = f"gpu-{number}"
    back: LoanReturn = back_for(claim_name, reason="Claimed" if claim_name else "IdleInSlurm")
    return [lent_node(name, gpus=gpus), loan(name, gpus=gpus, done=RECALLED, back=back)]


def got(*things: Any, **more: Any) -> dict[str, list[str]]:
    """Nodes by name of the claim that gets them now, those that are recalled with a star."""
    names: dict[str, list[str]] = {}
    allotment = allot(index(*things, **more))
    for hold in allotment.holds:
        names.setdefault(hold.claim_uid.removeprefix("uid-"), []).append(hold.node.name)
    for recall in allotment.recalls:
        assert recall.back.claim is not None
        names.setdefault(recall.back.claim.name, []).append(f"{recall.loan.spec.node_name}*")
    return names


def waits(*things: Any, name: str = "c1", **more: Any) -> tuple[str, str]:
    """Reason and message of a claim that gets not all it lacks."""
    blocker = allot(index(*things, **more)).waits[f"uid-{name}"]
    return blocker.reason, blocker.message


def satisfied(*things: Any, name: str = "c1", **more: Any) -> tuple[str, str]:
    """Reason and message of condition Satisfied, as it would be written."""
    (write,) = [c for c in only(decided(*things, **more), WriteClaimStatus) if c.claim.metadata.name == name]
    condition = write.status.condition("Satisfied")
    assert condition is not None
    return condition.reason, condition.message


# --- amounts


@pytest.mark.parametrize(
    ("gpus", "names"),
    [
        (1, ["small"]),
        (4, ["middle"]),
        (8, ["large"]),
        (9, ["large", "small"]),
        (13, ["large", "middle", "small"]),
        (15, ["large", "middle", "small", "gpu-1*"]),
        (30, ["large", "middle", "small", "gpu-2*"]),
        (31, ["large", "middle", "small", "gpu-2*", "gpu-1*"]),
    ],
)
def test_gpus_are_packed_onto_free_nodes_and_then_onto_the_fewest_loans(gpus: int, names: list[str]) -> None:
    free = [node("small", gpus=2), node("middle", gpus=4), node("large", gpus=8)]
    loans = [*lent(1, gpus=8), *lent(2, gpus=16)]
    assert got(*free, *loans, claim(gpus=gpus)) == {"c1": names}


def test_of_loans_that_would_do_alike_those_that_lose_least() -> None:
    things = [*lent(1, 2, gpus=4), *lent(3, 4, gpus=8)]
    busy = slurm(*[slurm_node(f"gpu-{n}") for n in range(1, 5)], job(3, on="gpu-3"), job(1, on="gpu-1"))
    assert got(*things, busy, claim(gpus=8)) == {"c1": ["gpu-4*"]}
    assert got(*things, busy, claim(gpus=4)) == {"c1": ["gpu-2*"]}
    assert got(*things, busy, claim(gpus=18)) == {"c1": ["gpu-4*", "gpu-3*", "gpu-2*"]}


def test_claims_that_may_have_the_same_nodes_end_one_job_of_two_nodes_rather_than_two_jobs() -> None:
    running = slurm(
        *(slurm_node(f"gpu-{n}", "ALLOCATED", gpus_used=8) for n in (1, 2, 3, 4)),
        job(1, on=("gpu-1", "gpu-2"), gpus=16, started=ago(100)),
        job(3, on="gpu-3", started=ago(150)),
        job(4, on="gpu-4", started=ago(160)),
    )
    older, younger = claim(created=ago(50)), claim("c2", created=ago(40))
    assert got(*lent(1, 2, 3, 4), running, older) == {"c1": ["gpu-3*"]}
    assert got(*lent(1, 2, 3, 4), running, older, younger) == {"c1": ["gpu-1*"], "c2": ["gpu-2*"]}
    other = claim("c2", created=ago(40), recall_class="fast")
    assert got(*lent(1, 2, 3, 4), running, older, other) == {"c1": ["gpu-3*"], "c2": ["gpu-4*"]}


def test_held_and_coming_nodes_count_with_the_gpus_they_have() -> None:
    things = [claimed_node("a", gpus=8), *coming(1, "c1", gpus=4), node("b", gpus=4), node("c", gpus=8)]
    assert got(*things, claim(gpus=12)) == {}
    assert got(*things, claim(gpus=13)) == {"c1": ["b"]}


def test_only_nodes_with_the_claims_labels_are_given() -> None:
    zone = {"zone": "b"}
    things = [node("a"), node("b", labels=zone), *lent(1), *lent(2, labels=zone)]
    assert got(*things, claim(nodes=2, node_selector=zone)) == {"c1": ["b", "gpu-2*"]}
    words = "asks for 3 nodes, pool batch has 2 with the labels zone=b; lower nodes or change poolName"
    assert satisfied(*things, claim(nodes=3, node_selector=zone)) == ("MoreThanPool", words)
    words = "asks for 17 GPUs, pool batch has 16 with the labels zone=b; lower gpus or change poolName"
    assert satisfied(*things, claim(gpus=17, node_selector=zone)) == ("MoreThanPool", words)


# --- gangs

BLOCKED = lent(9, priority=5000)
"""A node that no claim here may recall."""


def gang(name: str = "c1", **more: Any) -> Any:
    return claim(name, gang=True, **more)


def handed_over(name: str = "c1", **more: Any) -> Any:
    return gang(name, status=CapacityClaimStatus(started=ago(50)), **more)


def test_a_gang_gets_all_that_it_lacks_in_one_go() -> None:
    assert got(node("a"), *lent(1, 2), gang(nodes=3)) == {"c1": ["a", "gpu-1*", "gpu-2*"]}


@pytest.mark.parametrize(
    "things",
    [
        [node("a"), *lent(1), *BLOCKED],
        [claimed_node("a"), *lent(1), *BLOCKED],
        [*coming(2, "c1"), node("a"), *BLOCKED],
        [node("a"), *coming(1), node("z", unschedulable=True)],
    ],
)
def test_a_gang_gets_nothing_while_not_all_can_be_had(things: list[Any]) -> None:
    assert got(*things, gang(nodes=3)) == {}
    assert got(*things, claim(nodes=3)) != {}, "unlike other claims"


def test_a_gang_that_waits_says_what_it_has_and_what_could_be_had() -> None:
    things = [claimed_node("a"), *lent(1), *BLOCKED, *lent(8, priority=5000)]
    assert waits(*things, gang(nodes=4)) == (
        "GangWaits",
        "wants 4 nodes at once, has 1 of them, 1 node can be had now; nothing is recalled before all can be had",
    )
    assert waits(node("a", gpus=4), *BLOCKED, gang(gpus=12)) == (
        "GangWaits",
        "wants 12 GPUs at once, 4 GPUs can be had now; nothing is recalled before all can be had",
    )


def test_of_two_gangs_only_the_stronger_begins_with_what_is_enough_for_one() -> None:
    free = [node("a"), node("b"), node("c")]
    old, young = gang("old", nodes=2, created=ago(90)), gang("young", nodes=2, created=ago(10))
    assert got(*free, young, old) == {"old": ["a", "b"]}
    important = gang("young", nodes=2, created=ago(10), priority_class_name="top")
    assert got(*free, important, old, priority_classes={"top": 9000}) == {"young": ["a", "b"]}


def test_a_weaker_gang_does_not_begin_with_nodes_that_a_stronger_one_waits_for() -> None:
    held = [claimed_node("a", claim="other"), claim("other", created=ago(300))]
    strong, weak = gang("strong", nodes=3, created=ago(90)), gang("weak", nodes=1, created=ago(10))
    assert got(*held, node("b"), node("c"), strong, weak) == {}
    assert waits(*held, node("b"), node("c"), strong, weak, name="weak")[0] == "GangWaits"
    plain = claim("weak", nodes=1, created=ago(10))
    assert got(*held, node("b"), node("c"), strong, plain) == {"weak": ["b"]}, "others serve their pods one by one"


def test_nobody_waits_for_a_gang_that_could_not_be_whole_if_all_claims_ended() -> None:
    strong, weak = gang("strong", nodes=3, created=ago(90)), gang("weak", nodes=2, created=ago(10))
    assert got(node("a"), node("b"), *BLOCKED, strong, weak) == {"weak": ["a", "b"]}


def test_a_gang_takes_nothing_from_a_weaker_one_that_has_begun() -> None:
    weak = [claimed_node("a", claim="weak"), *coming(1, "weak"), gang("weak", nodes=2, created=ago(10))]
    assert got(*weak, *lent(2), gang("strong", nodes=2, created=ago(90))) == {}


def test_pods_of_a_gang_may_come_only_after_it_was_said_to_have_all_nodes() -> None:
    held = [claimed_node("a"), claimed_node("b"), pod("p", claim="c1")]
    commands = decided(*held, gang(nodes=2))
    assert not only(commands, TolerateFence)
    written = one(commands, WriteClaimStatus).status
    assert written.is_true("Satisfied")
    assert written.started is not None
    assert one(decided(*held, gang(nodes=2, status=written)), TolerateFence).pod.name == "p"


def test_a_gang_that_was_handed_over_gets_its_nodes_back_one_by_one() -> None:
    things = [claimed_node("a"), *lent(1), *BLOCKED, pod("p", claim="c1")]
    assert got(*things, handed_over(nodes=3)) == {"c1": ["gpu-1*"]}
    assert one(decided(*things, handed_over(nodes=3)), TolerateFence).pod.name == "p"


def test_a_silent_slurm_lets_no_gang_begin() -> None:
    silent = slurm(observed=None, error="no route to host")
    assert got(node("a"), *lent(1), silent, gang(nodes=2)) == {}
    assert waits(node("a"), *lent(1), silent, gang(nodes=2))[0] == "SlurmSilent"


# --- recall classes

LADDERS = pool(recall={"fast": {"minimumPriority": 2000}, "quick": {"minimumPriority": 500}})


@pytest.mark.parametrize(
    ("recall_class", "priority", "sentence"),
    [
        ("graceful", 0, ""),
        ("quick", 500, ""),
        ("fast", 2000, ""),
        (
            "fast",
            1999,
            "recall.fast.minimumPriority of pool batch is 2000, the claim has 1999; use recallClass graceful or quick",
        ),
        (
            "quick",
            499,
            "recall.quick.minimumPriority of pool batch is 500, the claim has 499; use recallClass graceful",
        ),
    ],
)
def test_a_class_is_for_claims_that_are_important_enough(recall_class: str, priority: int, sentence: str) -> None:
    things = [*lent(1), node("a"), LADDERS, claim(recall_class=recall_class, priority_class_name="mine")]
    classes = {"mine": priority}
    if not sentence:
        assert got(*things, priority_classes=classes) == {"c1": ["a"]}
        return
    assert got(*things, priority_classes=classes) == {}
    assert satisfied(*things, priority_classes=classes) == ("ClassNotAllowed", sentence)


def test_without_any_class_the_way_out_is_a_higher_priority() -> None:
    steep = pool(recall={name: {"minimumPriority": 5000} for name in ("graceful", "quick", "fast")})
    assert satisfied(*lent(1), steep, claim())[1].endswith("the claim has 1000; use a higher priorityClassName")
    assert satisfied(*lent(1), steep, pod(owner="web"), claim("a", holder="web", automatic=True), name="a")[0] == (
        "ClassNotAllowed"
    )


@pytest.mark.parametrize(
    ("wanted", "priority", "used"),
    [("fast", 2000, "fast"), ("fast", 1999, "quick"), ("fast", 499, "graceful"), ("graceful", 9999, "graceful")],
)
def test_an_automatic_claim_has_the_fastest_class_it_may_use(wanted: str, priority: int, used: str) -> None:
    auto = claim("auto", holder="web", automatic=True, recall_class=wanted, priority_class_name="mine")
    things = [*lent(1), LADDERS, pod(owner="web"), auto]
    assert one(decided(*things, priority_classes={"mine": priority}), RecallLoan).back.recall_class == used


# --- quotas


def limited(*quotas: dict[str, Any]) -> Any:
    return pool(claims={"quotas": list(quotas)})


TEAM_2 = limited({"namespace": "team", "nodes": 2})


def test_claims_share_a_quota_in_their_order() -> None:
    free = [node(name) for name in "abcd"]
    first, second = claim("first", nodes=1, created=ago(90)), claim("second", nodes=2, created=ago(10))
    assert got(*free, TEAM_2, first, second) == {"first": ["a"], "second": ["b"]}
    assert waits(*free, TEAM_2, first, second, name="second") == (
        "QuotaExceeded",
        "wants 2 nodes, but namespace team may claim 2 nodes of pool batch at a time: team/first has 1",
    )
    together = gang("second", nodes=2, created=ago(10))
    assert got(*free, TEAM_2, first, together) == {"first": ["a"]}
    assert waits(*free, TEAM_2, first, together, name="second")[0] == "QuotaExceeded"


def test_what_is_held_or_on_its_way_is_used() -> None:
    things = [claimed_node("a", claim="old"), *coming(1, "old"), node("b"), TEAM_2, claim("old", nodes=2)]
    assert got(*things, claim("new")) == {}
    assert satisfied(*things, claim("new"), name="new") == (
        "QuotaExceeded",
        "wants 1 node, but namespace team may claim 2 nodes of pool batch at a time: team/old has 2",
    )


@pytest.mark.parametrize(
    ("quota", "counted"),
    [
        ({"nodes": 0}, True),
        ({"namespace": "team", "nodes": 0}, True),
        ({"namespace": "other", "nodes": 0}, False),
        ({"priorityClassName": "high", "nodes": 0}, True),
        ({"priorityClassName": "low", "nodes": 0}, False),
        ({"namespace": "team", "priorityClassName": "high", "nodes": 0}, True),
        ({"namespace": "team", "priorityClassName": "low", "nodes": 0}, False),
    ],
)
def test_a_quota_counts_the_claims_that_it_names(quota: dict[str, Any], counted: bool) -> None:
    assert (got(node("a"), limited(quota), claim()) == {}) is counted


def test_a_claim_without_class_counts_as_one_of_the_clusters_default() -> None:
    quota = limited({"priorityClassName": "low", "nodes": 0})
    assert got(node("a"), quota, claim(priority_class_name=None)) == {"c1": ["a"]}
    assert got(node("a"), quota, claim(priority_class_name=None), default_priority_class="low") == {}


def test_every_quota_that_counts_a_claim_has_to_have_room() -> None:
    quotas = limited({"nodes": 3}, {"namespace": "team", "nodes": 1})
    assert got(node("a"), node("b"), quotas, claim("a", nodes=1), claim("b", nodes=1)) == {"a": ["a"]}


@pytest.mark.parametrize("wish", [claim(nodes=3), claim(gpus=17), gang(nodes=3)])
def test_a_claim_that_no_quota_could_ever_have_gets_nothing(wish: Any) -> None:
    free = [node(name) for name in "abcd"]
    assert got(*free, TEAM_2, wish) == {}
    assert satisfied(*free, TEAM_2, wish) == (
        "QuotaExceeded",
        "wants 3 nodes, but namespace team may claim 2 nodes of pool batch at a time; "
        "ask for less, or for more in the pool's claims.quotas",
    )


def test_an_automatic_claim_is_served_as_far_as_its_quota_goes() -> None:
    pods = [pod(f"w{n}", owner="web", gpus=8) for n in range(3)]
    auto = claim("auto", holder="web", automatic=True, nodes=3)
    assert got(*lent(1, 2, 3), *pods, TEAM_2, auto) == {"auto": ["gpu-1*", "gpu-2*"]}


def test_a_lowered_quota_takes_nothing_away() -> None:
    held = [claimed_node("a"), claimed_node("b")]
    commands = decided(*held, limited({"nodes": 1}), claim(nodes=2))
    assert {type(command).__name__ for command in commands if "Free" in type(command).__name__} == set()
    assert satisfied(*held, limited({"nodes": 1}), claim(nodes=2))[0] == "Held"


# --- one order for all


def test_no_node_is_given_twice() -> None:
    things = [node("a"), *coming(1), *lent(2), claim("x", created=ago(90)), claim("y"), claim("z", created=ago(5))]
    assert got(*things) == {"x": ["a"], "y": ["gpu-1*"], "z": ["gpu-2*"]}


def test_the_command_that_holds_names_the_claim() -> None:
    assert one(decided(node("a"), claim()), HoldNode).claim_uid == "uid-c1"


# --- nodes that a claim which is over has not let go of yet


def opening(name: str, **more: Any) -> Any:
    return claimed_node(name, claim="gone", **more)


def test_no_loan_is_recalled_in_place_of_a_node_that_is_about_to_open() -> None:
    assert got(opening("a"), *lent(1), claim()) == {}
    assert waits(opening("a"), *lent(1), claim()) == ("Opening", "about to be free: a")
    assert got(opening("a"), *lent(1, 2), claim(nodes=2)) == {"c1": ["gpu-1*"]}
    assert got(opening("a"), node("b"), *lent(1), claim(nodes=2)) == {"c1": ["b"]}


def test_a_loan_that_let_go_of_its_node_hands_nothing_over_and_its_node_is_waited_for() -> None:
    let_go = [node("gpu-9"), loan("gpu-9", done=CLEAN, back=back_for("", reason="IdleInSlurm"))]
    assert got(*let_go, *lent(1), claim()) == {}
    assert waits(*let_go, *lent(1), claim()) == ("Opening", "about to be free: gpu-9")
    assert got(*let_go, *lent(1), claim(nodes=2)) == {"c1": ["gpu-1*"]}


def test_a_gang_waits_for_a_node_that_is_about_to_open_with_all_that_it_lacks() -> None:
    things = [opening("a"), node("b"), *lent(1), claim(nodes=3, gang=True)]
    assert got(*things) == {}
    assert waits(*things)[0] == "Opening"
    assert got(opening("a"), node("b"), claim(nodes=1, gang=True)) == {"c1": ["b"]}


@pytest.mark.parametrize(
    "things",
    [
        [claimed_node("a", claim="other"), claim("other", created=ago(90))],
        [opening("a", unschedulable=True)],
        [opening("a", labels={"tidegate.dev/lendable": "no"})],
        [opening("a"), pod("web-1", on="a", gpus=8)],
    ],
)
def test_a_node_that_will_not_be_free_is_not_waited_for(things: list[Any]) -> None:
    assert got(*things, *lent(1), claim()) == {"c1": ["gpu-1*"]}


def test_pods_of_an_automatic_claim_wait_for_a_node_that_is_about_to_open() -> None:
    things = [*lent(1), pod("web-1", owner="web", gpus=8, unschedulable=True)]
    auto = claim("auto", holder="web", automatic=True)
    assert got(*things, auto) == {"auto": ["gpu-1*"]}
    assert got(opening("a"), *things, auto) == {}

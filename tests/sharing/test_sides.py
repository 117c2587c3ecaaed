"""What Kubernetes keeps of a pool, and how much it takes back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sharing.build import (
    LENT,
    RECALLED,
    RETURNED,
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
from tidegate.api import CapacityClaim
from tidegate.sharing.commands import CreateLoan, RecallLoan, WriteClaimStatus
from tidegate.sharing.explain import explain
from tidegate.sharing.sides import sides


def lent(number: int, **more: Any) -> list[Any]:
    name = f"gpu-{number}"
    return [lent_node(name), loan(name, **more), slurmd(f"{name}-1", on=name)]


def running(*numbers: int) -> Any:
    nodes = [slurm_node(f"gpu-{n}", "ALLOCATED", gpus_used=8) for n in numbers]
    return slurm(*nodes, *[job(n, on=f"gpu-{n}", started=ago(500 + n)) for n in numbers])


def terms_of(**kubernetes: Any) -> Any:
    return pool(lending={"kubernetes": kubernetes})


@pytest.mark.parametrize(
    ("there", "count"),
    [
        ([node()], 1),
        ([claimed_node()], 1),
        ([node(), pod(on="gpu-1")], 1),
        ([node(unschedulable=True), pod(on="gpu-1")], 1),
        ([node(ready=False), pod(on="gpu-1")], 1),
        ([node(unschedulable=True)], 0),
        ([node(ready=False)], 0),
        ([node(gpus=0)], 0),
        (lent(1), 0),
        (lent(1, done=RECALLED), 0),
        ([lent_node(), loan(done=RETURNED)], 0),
    ],
)
def test_used_free_and_held_nodes_are_kubernetes_own(there: list[Any], count: int) -> None:
    found = index(*there)
    assert sides(found.pools["batch"], found).kubernetes == count


def test_nodes_on_their_way_back_are_counted_as_coming() -> None:
    found = index(node("gpu-9"), *lent(1), *lent(2, done=RECALLED, back=back_for()))
    assert (sides(found.pools["batch"], found).kubernetes, sides(found.pools["batch"], found).coming) == (1, 1)


@pytest.mark.parametrize(("cap", "room"), [(None, 2), (9, 2), (4, 2), (3, 1), (2, 0), (0, 0)])
def test_the_cap_leaves_room_for_recalls(cap: int | None, room: int) -> None:
    terms = terms_of(cap=cap) if cap is not None else terms_of()
    coming = lent(3, done=RECALLED, back=back_for())
    found = index(terms, node("gpu-9"), *lent(1), *lent(2), *coming)
    assert sides(found.pools["batch"], found).may_take_back == room


# --- the floor

BUSY = slurm(*[job(n) for n in range(1, 10)])


@pytest.mark.parametrize(("floor", "count"), [(0, 4), (1, 3), (3, 1), (4, 0), (9, 0)])
def test_what_is_lent_leaves_kubernetes_its_floor(floor: int, count: int) -> None:
    nodes = [node(f"gpu-{n}") for n in range(1, 5)]
    assert len(only(decided(*nodes, BUSY, terms_of(floor=floor)), CreateLoan)) == count


def test_used_and_held_nodes_are_part_of_the_floor() -> None:
    there = [node("gpu-1"), node("gpu-2"), pod(on="gpu-2"), claimed_node("gpu-3"), claim()]
    assert len(only(decided(*there, BUSY, terms_of(floor=2)), CreateLoan)) == 1
    assert len(only(decided(*there, BUSY, terms_of(floor=3)), CreateLoan)) == 0


def test_a_job_of_several_nodes_is_not_hoped_for_beyond_the_floor() -> None:
    two = slurm(job(gpus=16, cpus=16, node_count=2))
    nodes = [node(f"gpu-{n}") for n in range(1, 4)]
    assert len(only(decided(*nodes, two, terms_of(floor=1)), CreateLoan)) == 2
    assert len(only(decided(*nodes, two, terms_of(floor=2)), CreateLoan)) == 0


@pytest.mark.parametrize(("floor", "count"), [(0, 0), (1, 0), (2, 1), (3, 2), (9, 2)])
def test_loans_come_back_when_kubernetes_has_fewer_than_its_floor(floor: int, count: int) -> None:
    found = only(decided(node("gpu-9"), *lent(1), *lent(2), running(1, 2), terms_of(floor=floor)), RecallLoan)
    assert [command.back.reason for command in found] == ["KubernetesFloor"] * count


def test_nodes_on_their_way_back_are_part_of_the_floor() -> None:
    coming = lent(2, done=RECALLED, back=back_for())
    assert not only(decided(*lent(1), *coming, running(1, 2), terms_of(floor=1)), RecallLoan)


def test_explain_says_when_the_floor_keeps_nodes() -> None:
    nodes = [node(f"gpu-{n}") for n in range(1, 3)]
    terms = terms_of(floor=2)
    status = terms.status.with_condition(ago(60), "Ready", True, "Working").model_copy(
        update={"demand_nodes": 2, "startable_nodes": 2}
    )
    found = explain("node", "gpu-1", "", index(terms.model_copy(update={"status": status}), *nodes, BUSY))
    assert found.blocked_by == "KubernetesFloor: Kubernetes has 2 nodes of pool batch and keeps kubernetes.floor 2"


# --- the cap


def claims(*things: Any) -> tuple[int, dict[str, tuple[str, str]]]:
    """How many recalls there are, and each claim's reason and message."""
    commands = decided(*things)
    said = {}
    for write in only(commands, WriteClaimStatus):
        condition = write.status.condition("Satisfied")
        assert condition is not None
        said[write.claim.metadata.name] = condition.reason, condition.message
    return len(only(commands, RecallLoan)), said


THREE = [*lent(1), *lent(2), *lent(3), running(1, 2, 3)]


def wish(name: str = "c1", nodes: int = 3, **more: Any) -> CapacityClaim:
    return claim(name, nodes=nodes, **more)


@pytest.mark.parametrize(("cap", "recalled"), [(0, 0), (1, 1), (2, 2), (3, 3), (None, 3)])
def test_claims_recall_up_to_the_cap(cap: int | None, recalled: int) -> None:
    count, _ = claims(*THREE, terms_of(cap=cap) if cap is not None else terms_of(), wish())
    assert count == recalled


def test_two_claims_share_the_cap_in_their_order() -> None:
    commands = decided(*THREE, terms_of(cap=2), wish("b", 2, created=ago(5)), wish("a", 1, created=ago(50)))
    assert sorted(c.back.claim.name for c in only(commands, RecallLoan) if c.back.claim) == ["a", "b"]


def test_a_claim_that_the_cap_stops_says_so() -> None:
    words = "pool batch takes no node back for Kubernetes beyond its kubernetes.cap 1"
    used = [node("gpu-9"), pod(on="gpu-9")]
    assert claims(*THREE, *used, terms_of(cap=1), wish()) == (0, {"c1": ("KubernetesCap", words)})


def test_a_claim_that_could_recall_nothing_anyway_does_not_blame_the_cap() -> None:
    _, said = claims(*THREE, terms_of(cap=0), wish(priority_class_name="low"))
    assert said["c1"][0] == "NothingToRecall"


def test_explain_repeats_the_reason_of_the_claim() -> None:
    terms, there = terms_of(cap=0), [*THREE, wish()]
    write = one(decided(*there, terms), WriteClaimStatus)
    said = write.claim.model_copy(update={"status": write.status})
    found = explain("claim", "c1", "", index(*THREE, terms, said))
    assert found.blocked_by.startswith("KubernetesCap: pool batch takes no node back")


def test_free_nodes_are_held_and_returning_ones_given_whatever_the_cap() -> None:
    coming = lent(3, done=RECALLED, back=back_for(reason="IdleInSlurm"))
    commands = decided(*lent(1), *coming, node("gpu-9"), running(1, 3), terms_of(cap=2), wish(nodes=3))
    assert [c.loan.spec.node_name for c in only(commands, RecallLoan)] == ["gpu-3"]


def test_headroom_recalls_stop_at_the_cap_and_the_floor_does_not() -> None:
    terms = {"headroom": {"low": 3, "high": 5}, "kubernetes": {"floor": 1, "cap": 3}}
    used = [node("gpu-9"), pod(on="gpu-9")]
    found = only(decided(*THREE, *used, pool(lending=terms)), RecallLoan)
    assert [command.back.reason for command in found] == ["HeadroomLow"] * 2
    short = {"kubernetes": {"floor": 2, "cap": 2}}
    found = only(decided(*THREE, *used, pool(lending=short)), RecallLoan)
    assert [command.back.reason for command in found] == ["KubernetesFloor"]


@pytest.mark.parametrize("done", [LENT, RECALLED])
def test_the_slurm_cap_still_counts_first(done: tuple[str, ...]) -> None:
    back = back_for() if done == RECALLED else None
    terms = pool(lending={"cap": 1, "kubernetes": {"cap": 0}})
    found = only(decided(*lent(1), *lent(2, done=done, back=back), running(1, 2), terms), RecallLoan)
    assert len(found) == (1 if done == LENT else 0)

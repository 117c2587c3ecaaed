"""When claims are over, and what becomes of their nodes and pods."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.sharing.build import (
    LENT,
    NOW,
    RECALLED,
    ago,
    back_for,
    claim,
    claimed_node,
    decided,
    index,
    lent_node,
    loan,
    node,
    one,
    only,
    pod,
)
from tidegate.api import CapacityClaim, CapacityClaimStatus, Condition, OwnerReference
from tidegate.sharing.commands import (
    FreeNode,
    FreeSurplus,
    HoldNode,
    RecallLoan,
    TieToHolder,
    WriteClaimStatus,
)
from tidegate.sharing.lifetime import ends_at


def started(seconds: float) -> CapacityClaimStatus:
    return CapacityClaimStatus(started=ago(seconds))


def gathering(seconds: float) -> CapacityClaimStatus:
    """Since when a gang has had some of its nodes."""
    condition = Condition(type="Gathering", status="True", reason="NodesMissing", last_transition_time=ago(seconds))
    return CapacityClaimStatus(conditions=(condition,), wanted_nodes=2)


def gang(seconds: float, **more: Any) -> CapacityClaim:
    return claim(nodes=2, gang=True, gather_seconds=60, status=gathering(seconds), **more)


@pytest.mark.parametrize(
    ("wish", "reason", "in_seconds"),
    [
        (claim(), None, 0),
        (claim(ttl_seconds=100, created=ago(30)), "TimeToLive", 70),
        (claim(duration_seconds=100), None, 0),
        (claim(duration_seconds=100, status=started(30)), "Ended", 70),
        (claim(duration_seconds=100, ttl_seconds=90, created=ago(40), status=started(30)), "TimeToLive", 50),
        (claim(duration_seconds=100, ttl_seconds=190, created=ago(40), status=started(30)), "Ended", 70),
        (gang(10), "GangIncomplete", 50),
        (gang(10, ttl_seconds=40, created=ago(30)), "TimeToLive", 10),
        (claim(nodes=2, gang=True, status=started(30)), None, 0),
        (claim(nodes=2, status=gathering(9999)), None, 0),
    ],
)
def test_the_first_end_counts(wish: CapacityClaim, reason: str | None, in_seconds: int) -> None:
    end = ends_at(wish, index(wish))
    if reason is None:
        assert end is None
        return
    assert end is not None
    assert (end.reason, end.time) == (reason, NOW + timedelta(seconds=in_seconds))


def expired(*things: Any) -> tuple[str, str]:
    """Reason and message of condition Expired, as it would be written."""
    written = one(decided(*things), WriteClaimStatus).status
    condition = written.condition("Expired")
    assert condition is not None
    assert condition.status == "True"
    assert (written.nodes, written.held_nodes) == ((), 0)
    return condition.reason, condition.message


def test_the_duration_counts_from_when_it_was_first_satisfied() -> None:
    fresh = one(decided(claimed_node(), claim(duration_seconds=60)), WriteClaimStatus).status
    assert fresh.started == NOW
    lost = one(decided(node("x"), node(), claim(status=started(30))), WriteClaimStatus).status
    assert (lost.is_true("Satisfied"), lost.started) == (False, ago(30)), "it stays, whatever is lost later"


def test_at_its_end_the_nodes_are_let_go_and_pods_stay() -> None:
    things = [claimed_node(), pod(on="gpu-1", claim="c1"), claim(duration_seconds=60, status=started(60))]
    assert expired(*things) == (
        "Ended",
        "its durationSeconds 60 are over; its nodes are let go, pods that run there stay",
    )
    assert one(decided(*things), FreeNode).node.name == "gpu-1"


def test_a_gang_says_since_when_it_gathers_and_when_that_is_over() -> None:
    coming = [lent_node("b"), loan("b", done=RECALLED, back=back_for("c1"))]
    wish = claim(nodes=2, gang=True)
    written = one(decided(claimed_node("a"), *coming, wish), WriteClaimStatus).status
    condition = written.condition("Gathering")
    assert condition is not None
    assert (condition.status, condition.message) == (
        "True",
        "1 of 2 nodes are held; none is handed over before all are",
    )
    whole = [claimed_node("a"), claimed_node("b"), claim(nodes=2, gang=True, status=written)]
    after = one(decided(*whole), WriteClaimStatus).status
    assert (after.is_true("Gathering"), after.started) == (False, NOW)


def test_a_gang_that_lost_all_it_had_gathers_anew() -> None:
    written = one(decided(node("a", ready=False), node("b"), gang(10)), WriteClaimStatus).status
    condition = written.condition("Gathering")
    assert condition is not None
    assert (condition.status, condition.reason) == ("False", "NoNodes")


def test_a_gang_that_gathers_for_too_long_is_over_and_says_who_has_what() -> None:
    others = [claimed_node("b", claim="other"), claim("other"), lent_node("c"), loan("c", priority=5000)]
    things = [claimed_node("a"), *others, gang(60)]
    (write,) = [c for c in only(decided(*things), WriteClaimStatus) if c.claim.metadata.name == "c1"]
    condition = write.status.condition("Expired")
    assert condition is not None
    assert (condition.reason, condition.message) == (
        "GangIncomplete",
        "not all of its nodes came within gatherSeconds 60; those that did are let go: "
        "it had 1 of 2 nodes; Slurm (priority 5000) has 1, claim team/other has 1",
    )
    freed = one(decided(*things), FreeNode)
    assert freed.node.name == "a"


def test_a_loan_that_comes_back_for_a_claim_that_ended_goes_to_the_next() -> None:
    coming = [lent_node("a"), loan("a", done=RECALLED, back=back_for("c1"))]
    over = claim(duration_seconds=60, status=started(60))
    back = one(decided(*coming, over, claim("next")), RecallLoan).back
    assert back.claim is not None
    assert back.claim.name == "next"


# --- fewer nodes than before


def test_what_is_spare_is_let_go_and_the_rest_named() -> None:
    held = [claimed_node(name) for name in "abc"]
    (freed,) = only(decided(*held, claim(nodes=2)), FreeSurplus)
    assert (freed.node.name, freed.claim.metadata.name, freed.keeps) == ("c", "c1", ("a", "b"))
    assert not only(decided(*held, claim(nodes=3)), FreeSurplus)
    assert not only(decided(*held, claim(nodes=2)), FreeNode)


def test_a_lowered_claim_stays_satisfied_and_holds_no_other_node() -> None:
    commands = decided(*[claimed_node(name) for name in "abc"], node("d"), claim(nodes=1))
    assert one(commands, WriteClaimStatus).status.is_true("Satisfied")
    assert not only(commands, HoldNode)


# --- the holder


def test_an_explicit_claim_is_tied_to_its_holder_once() -> None:
    wish = claim(holder="web")
    assert wish.spec.holder_ref is not None
    tie = one(decided(node(), wish), TieToHolder)
    assert (tie.claim, tie.holder) == (wish, wish.spec.holder_ref)
    owner = OwnerReference.model_validate(wish.spec.holder_ref.to_json())
    assert not only(decided(node(), claim(holder="web", owners=(owner,))), TieToHolder)
    assert not only(decided(node(), claim()), TieToHolder)


def test_an_automatic_claim_has_its_owner_from_the_start() -> None:
    things = [lent_node(), loan(done=LENT), pod(owner="web"), claim("auto", holder="web", automatic=True)]
    assert not only(decided(*things), TieToHolder)

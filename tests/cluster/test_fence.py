"""The patches that fence a node and take the fence off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tidegate.api.names import FENCE_TAINT, LOAN_LABEL, claim_fence
from tidegate.cluster import fence

Json = dict[str, Any]
FOREIGN: Json = {"key": "site/x", "value": "", "effect": "NoExecute", "timeAdded": "2026-11-21T10:00:00Z"}


def ours(value: str) -> Json:
    return {"key": FENCE_TAINT, "value": value, "effect": "NoSchedule"}


def node(*taints: Json, **labels: str) -> Json:
    found = {LOAN_LABEL if key == "loan" else key: value for key, value in labels.items()}
    spec: Json = {"taints": list(taints)} if taints else {}
    return {"metadata": {"name": "gpu-1", "resourceVersion": "42", "labels": found}, "spec": spec}


def patch(*taints: Json, **metadata: Any) -> Json:
    return {"metadata": {"resourceVersion": "42", **metadata}, "spec": {"taints": list(taints)}}


def test_a_loan_fences_with_taint_and_label_in_one_patch_of_the_version_that_was_seen() -> None:
    expected = patch(FOREIGN, ours("l-1"), labels={LOAN_LABEL: "l-1"})
    assert fence.fence_for_loan(node(FOREIGN), "l-1") == expected
    assert fence.fence_for_loan(node(ours("l-1"), FOREIGN, loan="l-1"), "l-1") == expected


def test_a_claim_holds_a_free_node() -> None:
    assert fence.fence_for_claim(node(FOREIGN), "u1") == patch(FOREIGN, ours(claim_fence("u1")))
    assert fence.fence_for_claim(node(), "u1") == patch(ours(claim_fence("u1")))


def test_the_claims_fence_takes_the_place_of_the_loans_at_once() -> None:
    swapped = patch(FOREIGN, ours(claim_fence("u1")))
    assert fence.swap_fence(node(ours("l-1"), FOREIGN), "l-1", "u1") == swapped
    assert fence.swap_fence(node(ours("l-1"), FOREIGN, loan="l-1"), "l-1", "u1") == patch(
        FOREIGN, ours(claim_fence("u1")), labels={LOAN_LABEL: None}
    )
    assert fence.swap_fence(node(ours(claim_fence("u1")), FOREIGN), "l-1", "u1") == swapped


def test_a_fence_is_removed_with_the_label_of_its_loan_and_nothing_else() -> None:
    assert fence.remove_loan_fence(node(ours("l-1"), FOREIGN, loan="l-1"), "l-1") == patch(
        FOREIGN, labels={LOAN_LABEL: None}
    )
    assert fence.remove_loan_fence(node(ours("l-1"), loan="l-2"), "l-1") == patch()
    assert fence.remove_claim_fence(node(FOREIGN, ours(claim_fence("u1"))), "u1") == patch(FOREIGN)


def test_only_the_loans_own_label_is_removed_and_taints_are_not_named() -> None:
    assert fence.remove_label(node(ours("l-1"), loan="l-1"), "l-1") == {
        "metadata": {"resourceVersion": "42", "labels": {LOAN_LABEL: None}}
    }
    assert fence.remove_label(node(loan="l-2"), "l-1") == {"metadata": {"resourceVersion": "42"}}


def test_the_fence_of_somebody_else_stays() -> None:
    held = node(ours(claim_fence("u2")), FOREIGN)
    attempts: list[tuple[Callable[..., Json], tuple[str, ...]]] = [
        (fence.fence_for_loan, ("l-1",)),
        (fence.fence_for_claim, ("u1",)),
        (fence.swap_fence, ("l-1", "u1")),
        (fence.remove_loan_fence, ("l-1",)),
        (fence.remove_claim_fence, ("u1",)),
    ]
    for attempt, names in attempts:
        with pytest.raises(ValueError, match=r"^Node gpu-1 is fenced for claim_u2; that fence is left as it is\.$"):
            attempt(held, *names)


def test_a_node_with_the_label_of_another_loan_is_not_fenced() -> None:
    with pytest.raises(ValueError, match="Node gpu-1 has the label of loan l-0"):
        fence.fence_for_loan(node(loan="l-0"), "l-1")

"""The patches that fence a node and take the fence off.

Each is built from the Node as the API server just gave it and carries that resourceVersion: a node that changed in
between refuses the patch. Taints and labels of others stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tidegate.api.names import FENCE_TAINT, LOAN_LABEL, claim_fence

Json = Mapping[str, Any]
Patch = dict[str, Any]


def fence_for_loan(node: Json, loan_name: str) -> Patch:
    """Taint and label of the loan in one patch. Raises `ValueError` when the node has a fence or label of another."""
    label = _labels(node).get(LOAN_LABEL, loan_name)
    if label != loan_name:
        raise ValueError(f"Node {node['metadata']['name']} has the label of loan {label}; it is left as it is.")
    return _patch(node, {loan_name}, loan_name, {"labels": {LOAN_LABEL: loan_name}})


def fence_for_claim(node: Json, claim_uid: str) -> Patch:
    """The fence that holds a free node for a claim. Raises `ValueError` when somebody else's fence is there."""
    return _patch(node, {claim_fence(claim_uid)}, claim_fence(claim_uid))


def swap_fence(node: Json, loan_name: str, claim_uid: str) -> Patch:
    """The loan's fence becomes the claim's at once, and the loan's label goes, too: nobody gets in between.

    Raises `ValueError` when somebody else's fence is there.
    """
    return _patch(node, {loan_name, claim_fence(claim_uid)}, claim_fence(claim_uid), _without_label(node, loan_name))


def remove_loan_fence(node: Json, loan_name: str) -> Patch:
    """The node is open again, without fence and label of the loan. Raises `ValueError` when the fence is another's."""
    return _patch(node, {loan_name}, None, _without_label(node, loan_name))


def remove_claim_fence(node: Json, claim_uid: str) -> Patch:
    """The node is open again. Raises `ValueError` when the fence is another's."""
    return _patch(node, {claim_fence(claim_uid)}, None)


def remove_label(node: Json, loan_name: str) -> Patch:
    """No slurmd pod of the loan can be bound any more; taints, and the label of another loan, stay."""
    return {"metadata": {"resourceVersion": node["metadata"]["resourceVersion"], **_without_label(node, loan_name)}}


def fence_of(node: Json) -> str | None:
    """The value of our taint on a raw Node: the loan or claim that holds it; None when nobody does."""
    return next((taint.get("value", "") for taint in _taints(node) if taint["key"] == FENCE_TAINT), None)


def _patch(node: Json, holders: set[str], fence: str | None, metadata: Patch | None = None) -> Patch:
    """Set the fence, or take it off, unless somebody else than `holders` has one there."""
    held_by = fence_of(node)
    if held_by is not None and held_by not in holders:
        raise ValueError(f"Node {node['metadata']['name']} is fenced for {held_by}; that fence is left as it is.")
    taints = [dict(taint) for taint in _taints(node) if taint["key"] != FENCE_TAINT]
    if fence is not None:
        taints.append({"key": FENCE_TAINT, "value": fence, "effect": "NoSchedule"})
    version = {"resourceVersion": node["metadata"]["resourceVersion"]}
    return {"metadata": version | (metadata or {}), "spec": {"taints": taints}}


def _without_label(node: Json, loan_name: str) -> Patch:
    """Takes the loan's label off, and nobody else's."""
    return {"labels": {LOAN_LABEL: None}} if _labels(node).get(LOAN_LABEL) == loan_name else {}


def _labels(node: Json) -> Mapping[str, str]:
    return node["metadata"].get("labels") or {}


def _taints(node: Json) -> Sequence[Json]:
    return (node.get("spec") or {}).get("taints") or ()

"""Every name that Tidegate puts on objects of the cluster: group, taint, labels, annotations, finalizers."""

from __future__ import annotations

import hashlib
from typing import Literal

GROUP = "tidegate.dev"
VERSION = "v1alpha1"
API_VERSION: Literal["tidegate.dev/v1alpha1"] = "tidegate.dev/v1alpha1"

FENCE_TAINT = f"{GROUP}/fence"
"""Key of the NoSchedule taint that keeps everybody off a node but the one whom its value names."""
LOAN_LABEL = f"{GROUP}/loan"
"""On a Node: the loan whose slurmd pod may be bound there. On a slurmd pod: its loan."""
CLAIM_LABEL = f"{GROUP}/claim"
"""On a pod: the explicit CapacityClaim in its namespace that it is for. On an automatic claim: the controller's UID."""
AUTOMATIC_LABEL = f"{GROUP}/automatic-claims"
"""On a pod or a namespace: whether Tidegate makes claims for pending GPU pods. The pod's goes first."""
POOL_LABEL = f"{GROUP}/pool"
SERVICE_LABEL = f"{GROUP}/inference-service"
"""On all that Tidegate makes for an InferenceService, and on its pods: its name."""
FINGERPRINT = f"{GROUP}/made-from"
"""Annotation on what is made for an InferenceService: a digest of what it was made from."""

RELEASED_ANNOTATION = f"{GROUP}/released"
"""On a Node, written by `tidegate node release`: loans that started before this moment do not count as flaps."""

RETURN_FINALIZER = f"{GROUP}/return"
"""On a NodeLoan and a BatchPool: nothing of it may vanish before its nodes are home."""

DRAIN_REASON_PREFIX = "tidegate:"
"""Every drain reason of ours in Slurm starts so; a drain with another reason is somebody else's."""

JOINING_REASON = f"{DRAIN_REASON_PREFIX} joins"
"""The reason of the drain with which slurmd registers where Slurm has to be told of reservations before jobs come."""

RESERVATION_PREFIX = "tidegate-"
"""Every reservation of ours in Slurm is named so; others are somebody else's and neither read nor touched."""

_CLAIM_FENCE_PREFIX = "claim_"
"""The underscore keeps it apart from every loan: node names have none."""


def claim_fence(claim_uid: str) -> str:
    """The fence value that holds a node for the claim with this UID."""
    return _CLAIM_FENCE_PREFIX + claim_uid


def claim_of_fence(fence: str) -> str | None:
    """The UID of the claim that a fence value names, or None when it names a loan."""
    return fence.removeprefix(_CLAIM_FENCE_PREFIX) if fence.startswith(_CLAIM_FENCE_PREFIX) else None


def reservation_name(claim_uid: str) -> str:
    """The name of the Slurm reservation for the claim with this UID: its first part is enough to tell it apart."""
    return RESERVATION_PREFIX + claim_uid[:8]


_LOAN_NAME_LENGTH = 56
"""`slurmd-<loan>` shall be no longer than a label value may be: 63."""
_SLURM_NAME_LENGTH = 63


def loan_name(node_name: str, number: int) -> str:
    """The name of a node's loan with this number: `<node>-<number>`, at most 56 characters.

    It can be the name of an object, a label value and a taint value. The name of a node that is too long for that is
    cut and gets a hash, so that two long names stay two.
    """
    suffix = f"-{number}"
    return _shortened(node_name, _LOAN_NAME_LENGTH - len(suffix)) + suffix


def slurm_node_name(node_name: str) -> str:
    """What a node is called in Slurm: the first label of its name, at most 63 characters.

    A name that starts with a bare number, such as an address, is kept whole (`10.0.0.7` is `node-10-0-0-7`): its first
    label would not tell it from its neighbours. Nodes that differ only after the first label get the same name.
    """
    first = node_name.partition(".")[0]
    name = "node-" + node_name.replace(".", "-") if first.isdigit() else first
    return _shortened(name, _SLURM_NAME_LENGTH)


def _shortened(name: str, length: int) -> str:
    if len(name) <= length:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: length - len(digest) - 1].rstrip('-.')}-{digest}"

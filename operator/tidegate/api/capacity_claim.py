"""CapacityClaim: a wish for nodes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from tidegate.api.batch_pool import Label, RecallClass
from tidegate.api.names import API_VERSION
from tidegate.api.resource import FITS_LABEL, Metadata, Model, Status, Time, cel


class HolderReference(Model):
    """The controller (or bare pod) in the claim's namespace whose pods the nodes are for."""

    api_version: str = Field(description="Such as `apps/v1`.", min_length=1, max_length=253)
    kind: str = Field(description="Such as `ReplicaSet`.", min_length=1, max_length=63)
    name: str = Field(description="Its name.", min_length=1, max_length=253)
    uid: str = Field(description="Its UID.", min_length=1, max_length=64)


class CapacityClaimSpec(Model):
    """How many nodes of which pool, for whom, how important and how fast."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.holderRef) == has(oldSelf.holderRef) "
                "&& (!has(self.holderRef) || self.holderRef == oldSelf.holderRef)",
                "`holderRef` cannot be changed: delete the claim and make a new one",
            ),
            (
                "!has(self.nodes) || !has(self.gpus)",
                "the amount is either in `nodes` or in `gpus`: leave one of them away",
            ),
            (
                "has(self.startTime) == has(oldSelf.startTime) "
                "&& (!has(self.startTime) || self.startTime == oldSelf.startTime)",
                "`startTime` cannot be changed: delete the claim and make a new one",
            ),
            (
                "!has(self.startTime) || has(self.durationSeconds)",
                "a claim with a `startTime` is a reservation and needs an end: set `durationSeconds`",
            ),
            (
                "!has(self.startTime) || !has(self.ttlSeconds)",
                "`ttlSeconds` counts from when the claim was made: with a `startTime` set `durationSeconds` alone",
            ),
        )
    )

    pool_name: str = Field(
        description="The BatchPool whose nodes are claimed.",
        min_length=1,
        max_length=253,
        json_schema_extra=cel(("self == oldSelf", "`poolName` cannot be changed: delete the claim and make a new one")),
    )
    nodes: int | None = Field(
        default=None,
        description="How many nodes; 1 where neither `nodes` nor `gpus` is said. Where it is lowered, nodes on which "
        "none of the claim's pods run are let go.",
        ge=1,
        le=10000,
    )
    gpus: int | None = Field(
        default=None,
        description="How many GPUs, instead of `nodes`. Whole nodes are held, as few as have them.",
        ge=1,
        le=100000,
    )
    node_selector: dict[str, Label] = Field(
        default={},
        description="Labels that the nodes must have beside those that the pool selects.",
        max_length=16,
        json_schema_extra=cel(
            ("self == oldSelf", "`nodeSelector` cannot be changed: delete the claim and make a new one")
        ),
    )
    gang: bool = Field(
        default=False,
        description="Whether the nodes are of use only all together. Then none is handed over before all are held, and "
        "none is recalled before all can be had; what was freed is held while the rest is being freed.",
    )
    gather_seconds: int = Field(
        default=900,
        description="A gang that still lacks nodes this long after it got the first one lets go of them and is over.",
        ge=1,
        le=86400,
    )
    holder_ref: HolderReference | None = Field(
        default=None,
        description="Whose pods the nodes are for. Without it: the pods of this namespace with the label "
        "`tidegate.dev/claim: <name of the claim>`.",
    )
    priority_class_name: str | None = Field(
        default=None,
        description="PriorityClass of the claim; the cluster's default (or 0) when absent. "
        "Only loans of a strictly lower priority are recalled.",
        min_length=1,
        max_length=253,
    )
    recall_class: RecallClass = Field(
        default="quick", description="Which ladder of the pool is walked to get the nodes."
    )
    start_time: Time | None = Field(
        default=None,
        description="The claim is a reservation: its nodes are needed from then on. They are taken back early enough, "
        "and until then lent nodes go on running jobs. Needs `durationSeconds`.",
    )
    duration_seconds: int | None = Field(
        default=None,
        description="The claim ends this long after its `startTime`, or after it was first satisfied, and lets go of "
        "its nodes; pods that run there stay. No end of this kind when absent.",
        ge=1,
        le=31536000,
    )
    ttl_seconds: int | None = Field(
        default=None,
        description="The claim expires this long after it was made and lets go of its nodes; never when absent.",
        ge=1,
        le=2592000,
    )


MOST_CONSIDERED = 8


class ConsideredNode(Model):
    """What was found out about one node for the claim."""

    node_name: str = Field(description="The node.", min_length=1, max_length=253)
    answer: str = Field(
        description="One CamelCase word: `Coming`, `Free`, `Recallable`, `Protected`, `AsImportant`, `Promised` "
        "(to another claim), `Held` (by another claim), `DoesNotFit`, `InUse`, or what set the node aside.",
        min_length=1,
        max_length=64,
    )
    message: str = Field(description="What taking it would cost, or what keeps it.", max_length=512)


class CapacityClaimStatus(Status):
    """What was got.

    Conditions: `Satisfied` (all nodes are held, or its pods are bound), `Gathering` (a gang holds or recalls some of
    its nodes and lacks others), `SlurmTold` (Slurm plans for the start of a reservation), `StartedLate` (a reservation
    did not start when it was promised) and `Expired` (it is over).
    """

    nodes: tuple[Annotated[str, Field(max_length=253)], ...] = Field(
        default=(),
        description="Nodes that are held for the claim.",
        max_length=10000,
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    held_nodes: int = Field(default=0, description="How many nodes are held.", ge=0)
    wanted_nodes: int = Field(
        default=0, description="How many nodes it takes; of an amount in GPUs the fewest that have them.", ge=0
    )
    promised_start: Time | None = Field(
        default=None,
        description="The start that was promised to a reservation when it was accepted: its `startTime`, or later "
        "where that was too soon to take nodes back.",
    )
    started: Time | None = Field(
        default=None, description="When it was first satisfied, and not before its `startTime`."
    )
    priority: int | None = Field(default=None, description="The priority that its PriorityClass stands for.")
    considered: tuple[ConsideredNode, ...] = Field(
        default=(),
        description="While it waits: the nodes that come into question, the nearest first, "
        "as they were when condition `Satisfied` last said something new.",
        max_length=MOST_CONSIDERED,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["nodeName"]},
    )
    expected: Time | None = Field(
        default=None,
        description="While it waits: when it should have all its nodes at the latest, judged at the same moment; "
        "absent when nobody knows.",
    )


class CapacityClaim(Model):
    """A wish for nodes of a BatchPool. People make them; Tidegate makes one for a controller with pending GPU pods."""

    model_config = ConfigDict(json_schema_extra=cel(FITS_LABEL))

    api_version: Literal["tidegate.dev/v1alpha1"] = API_VERSION
    kind: Literal["CapacityClaim"] = "CapacityClaim"
    metadata: Metadata
    spec: CapacityClaimSpec
    status: CapacityClaimStatus = CapacityClaimStatus()

    @property
    def is_over(self) -> bool:
        """Whether the claim holds nothing any more: served, expired or being deleted."""
        satisfied = self.status.condition("Satisfied")
        served = satisfied is not None and satisfied.status == "True" and satisfied.reason == "Served"
        return served or self.status.is_true("Expired") or self.metadata.deletion_timestamp is not None

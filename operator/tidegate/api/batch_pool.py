"""BatchPool: the Slurm side that borrows nodes, and on which terms."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel

from tidegate.api.lending import Lending, OpenWindow
from tidegate.api.names import API_VERSION
from tidegate.api.recommended import Recommended
from tidegate.api.resource import FITS_LABEL, Metadata, Model, Status, Time, cel

RecallClass = Literal["graceful", "quick", "fast"]
RECALL_CLASSES: tuple[RecallClass, ...] = ("graceful", "quick", "fast")
"""From the slowest to the fastest."""
VictimPolicy = Literal["LeastLostWork", "NewestFirst", "LowestPriority", "Spread"]
Label = Annotated[str, Field(max_length=63)]


class Ladder(Model):
    """The bounded steps that take a node's jobs off it, in order. Each job moves on as soon as its step is done."""

    drain_seconds: int = Field(description="Jobs may end by themselves for this long.", ge=0, le=604800)
    checkpoint_seconds: int = Field(
        description="Then jobs that declare a signal get it, and may save and end for this long.", ge=0, le=86400
    )
    requeue_seconds: int = Field(
        description="Then jobs are requeued; what is still on the node after this long is ended by `DOWN`.",
        ge=1,
        le=3600,
    )
    minimum_priority: int | None = Field(
        default=None,
        description="Claims of a lower priority may not use the class; all may when absent.",
        ge=-1000000000,
        le=1000000000,
    )


class Protection(Model):
    """What a job may count on before it is taken for a claim or for headroom."""

    minimum_run_seconds: int = Field(
        default=0, description="A job that has not run for this long is not taken.", ge=0, le=604800
    )
    after_restarts: int = Field(
        default=3,
        description="A job that was requeued this often, by whomever, is protected in each further run.",
        ge=1,
        le=1000,
    )
    protected_seconds: int = Field(
        default=14400,
        description="Such a run is not taken for this long: the job gets that far, and no claim waits longer for it. "
        "0 protects no job.",
        ge=0,
        le=2592000,
    )


class Recall(Model):
    """How nodes are taken back."""

    automatic_class: RecallClass = Field(
        default="quick",
        description="The class of claims that Tidegate makes for pending GPU pods, and of returns without a claim.",
    )
    graceful: Ladder = Field(
        default=Ladder(drain_seconds=600, checkpoint_seconds=120, requeue_seconds=30),
        description="The ladder for claims that can wait.",
    )
    quick: Ladder = Field(
        default=Ladder(drain_seconds=0, checkpoint_seconds=60, requeue_seconds=30),
        description="The ladder for claims that want the node soon, but give jobs time to save their work.",
    )
    fast: Ladder = Field(
        default=Ladder(drain_seconds=0, checkpoint_seconds=5, requeue_seconds=15),
        description="The ladder for claims that cannot wait: jobs are requeued after a few seconds.",
    )
    victim_policy: VictimPolicy = Field(
        default="LeastLostWork",
        description="Which nodes are taken: `LeastLostWork` those whose jobs lose the fewest GPU-seconds together; "
        "`NewestFirst` those whose jobs have run the shortest; `LowestPriority` first the loans of the lowest "
        "priority; `Spread` no job of a user who lost one within a day, while others did not.",
    )
    protection: Protection = Field(
        default=Protection(),
        description="What a job may count on before it is taken for a claim or for headroom. A node that must go home "
        "all the same (loan deleted, pool stopped, cap lowered, node unhealthy) goes.",
    )
    non_requeueable_jobs: Literal["Protect", "Cancel"] = Field(
        default="Protect",
        description="What happens to a job that may not be requeued: with `Protect` its nodes are not taken for a "
        "claim or for headroom, and where they must go home all the same it may end within `nonRequeueableSeconds`; "
        "with `Cancel` its nodes are taken last, and it is cancelled when its checkpoint time is over. "
        "Either way the loan reports it.",
    )
    non_requeueable_seconds: int = Field(
        default=86400,
        description="With `Protect`, a job that may not be requeued is cancelled this long after its node had to go "
        "home.",
        ge=1,
        le=604800,
    )

    @field_validator("graceful", "quick", "fast", mode="before")
    @classmethod
    def _complete(cls, given: Any, info: ValidationInfo) -> Any:
        """Steps that are left away have the times of their class, as the API server fills them in."""
        if not isinstance(given, dict) or info.field_name is None:
            return given
        default: Ladder = cls.model_fields[info.field_name].default
        return default.to_json() | {to_camel(key): value for key, value in given.items()}


class Quota(Model):
    """How many nodes of the pool some claims may have together at a time."""

    namespace: str | None = Field(
        default=None, description="Counts claims of this namespace only.", min_length=1, max_length=63
    )
    priority_class_name: str | None = Field(
        default=None, description="Counts claims that name this PriorityClass only.", min_length=1, max_length=253
    )
    nodes: int = Field(description="Most nodes that they may hold or wait for at a time.", ge=0, le=10000)


class Claims(Model):
    """What may be claimed."""

    automatic: Literal["OptOut", "OptIn"] = Field(
        default="OptOut",
        description="For which pending GPU pods Tidegate makes claims by itself. `OptOut`: for all but those whose "
        'label `tidegate.dev/automatic-claims` is "false". `OptIn`: for those where it is "true". '
        "A pod without the label has that of its namespace.",
    )
    quotas: tuple[Quota, ...] = Field(
        default=(),
        description="How many nodes may be claimed at a time; each claim has to keep to every quota that counts it. "
        "One without namespace and PriorityClass counts all claims.",
        max_length=128,
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )


class Slurmd(Model):
    """The pod that runs slurmd on a lent node."""

    image: str = Field(
        description="Image whose entrypoint takes slurmd's arguments. "
        "Its Slurm must be no newer than the controller's.",
        min_length=1,
        max_length=512,
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="As in any container."
    )
    template: dict[str, Any] = Field(
        default_factory=dict,
        description="Optional pod template (metadata and spec) that is laid under ours: volumes, mounts, environment. "
        "Its container named `slurmd` is merged with ours; node, tolerations, priority and resources are always ours.",
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
    )


class BatchPoolSpec(Model):
    """Which nodes may be lent to which Slurm partition, and on which terms."""

    node_selector: dict[str, Label] = Field(
        description="Labels of the nodes that may be lent. At least one, so that no pool takes all nodes by mistake. "
        "No node may be in two pools.",
        max_length=16,
        json_schema_extra=cel(
            (
                "size(self) > 0",
                'must have a label of the nodes, such as `tidegate.dev/lendable: "true"`: no pool may take all nodes',
            )
        ),
    )
    gpu_resource_names: tuple[Annotated[str, Field(min_length=1, max_length=253)], ...] = Field(
        default=("nvidia.com/gpu",),
        description="Extended resources that count as GPUs, of any vendor.",
        min_length=1,
        max_length=8,
        json_schema_extra={
            "x-kubernetes-list-type": "set",
            **cel(("self.all(name, name.contains('/'))", "must be extended resources, such as `nvidia.com/gpu`")),
        },
    )
    slurm_cluster_name: str = Field(description="The SlurmCluster that borrows.", min_length=1, max_length=253)
    partition: str = Field(
        description="The Slurm partition whose pending jobs are the demand, together with those of the partitions "
        "that the SlurmCluster's `priorities` name and that have the same NodeSets.",
        min_length=1,
        max_length=64,
        json_schema_extra=cel(("!self.matches('[ ,]')", "must be one partition; make a pool for each partition")),
    )
    features: tuple[Annotated[str, Field(max_length=64)], ...] = Field(
        default=("lent",),
        description="Features that lent nodes register with; the partition's NodeSet selects on one of them.",
        min_length=1,
        max_length=16,
        json_schema_extra={
            "x-kubernetes-list-type": "set",
            **cel(
                (
                    "self.all(feature, feature.matches('^[A-Za-z0-9_.-]+$'))",
                    "must be Slurm features: letters, digits, `_`, `.` and `-` only, one in each entry",
                )
            ),
        },
    )
    lever: Literal["Pod"] = Field(
        default="Pod", description="How a node joins Slurm. `Pod`: one slurmd pod for each loan."
    )
    priority: int = Field(
        default=-100,
        description="How important loans of this pool are. Only claims of a strictly higher priority recall them; "
        "pods without a PriorityClass have 0.",
        ge=-1000000000,
        le=1000000000,
    )
    mode: Literal["Enforce", "Recommend"] = Field(
        default="Enforce",
        description="`Recommend` decides everything and touches nothing: what it would have done is in "
        "`status.recommended`, in events and in metrics. Loans that are out come home first.",
    )
    stop_policy: Literal["None", "Hold", "HoldAndDrain"] = Field(
        default="None",
        description="`Hold` starts no new loan; `HoldAndDrain` returns those there are, too. `None` lends.",
    )
    slurmd: Slurmd = Field(description="The pod that runs slurmd on a lent node.")
    lending: Lending = Field(default=Lending(), description="When nodes are lent and when they go home by themselves.")
    recall: Recall = Field(default=Recall(), description="How nodes are taken back.")
    claims: Claims = Field(default=Claims(), description="What may be claimed.")
    history_limit: int = Field(
        default=50, description="Ended loans of the pool that are kept to look at.", ge=0, le=1000
    )


class NodeCounts(Model):
    """Nodes of the pool by owner."""

    kubernetes: int = Field(default=0, description="Nodes that Kubernetes owns and may lend.", ge=0)
    quarantined: int = Field(
        default=0,
        description="Nodes that Kubernetes owns and that are not lent for a while: their flap budget is used up.",
        ge=0,
    )
    joining: int = Field(default=0, description="Nodes on their way to Slurm.", ge=0)
    lent: int = Field(default=0, description="Nodes that Slurm owns.", ge=0)
    returning: int = Field(default=0, description="Nodes on their way back.", ge=0)
    claimed: int = Field(default=0, description="Nodes that are held for a claim.", ge=0)


class Quarantine(Model):
    """A node that changed hands too often."""

    node: str = Field(description="The node.", min_length=1, max_length=253)
    until: Time = Field(description="It is not lent before. `tidegate node release` ends it at once.")
    reason: str = Field(
        description="Why its last loan ended, as in that loan's condition `Recalled`.", min_length=1, max_length=128
    )


MOST_QUARANTINED = 256
"""Longer lists of quarantined nodes are cut; the count is not."""


class BatchPoolStatus(Status):
    """Who owns the pool's nodes. Condition `Ready`: the pool can lend and recall."""

    nodes: NodeCounts = Field(default=NodeCounts(), description="Nodes of the pool by owner.")
    quarantined: tuple[Quarantine, ...] = Field(
        default=(),
        description="Nodes at home that are not lent for a while, because they changed hands as often as the flap "
        "budget allows. At most 256 are listed.",
        max_length=MOST_QUARANTINED,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["node"]},
    )
    demand_nodes: int = Field(default=0, description="Nodes that pending jobs could use beyond those lent.", ge=0)
    startable_nodes: int = Field(
        default=0, description="How many of these would let jobs start, with the nodes that may be lent now.", ge=0
    )
    window: OpenWindow | None = Field(default=None, description="The window of `lending.windows` that is open now.")
    recommended: Recommended | None = Field(
        default=None, description="With `mode: Recommend`, what the pool would have done."
    )


class BatchPool(Model):
    """Nodes that may be lent to a Slurm partition while Kubernetes leaves them idle, and the terms."""

    model_config = ConfigDict(json_schema_extra=cel(FITS_LABEL))

    api_version: Literal["tidegate.dev/v1alpha1"] = API_VERSION
    kind: Literal["BatchPool"] = "BatchPool"
    metadata: Metadata
    spec: BatchPoolSpec
    status: BatchPoolStatus = BatchPoolStatus()

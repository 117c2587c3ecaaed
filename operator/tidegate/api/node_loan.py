"""NodeLoan: one node's trip to Slurm and back, the record that survives every crash."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from tidegate.api.batch_pool import RecallClass
from tidegate.api.names import API_VERSION
from tidegate.api.resource import FITS_LABEL, Metadata, Model, Status, Time, cel

LEND_STEPS = ("Fenced", "Vacated", "Joined", "Lent")
RETURN_STEPS = ("Recalled", "Drained", "Left", "Clean", "Returned")
OVERDUE = "Overdue"


class ClaimReference(Model):
    """The claim that a node goes to."""

    namespace: str = Field(description="Namespace of the CapacityClaim.", min_length=1, max_length=63)
    name: str = Field(description="Name of the CapacityClaim.", min_length=1, max_length=253)
    uid: str = Field(description="UID of the CapacityClaim.", min_length=1, max_length=64)


class LoanReturn(Model):
    """Why and how fast the node comes back."""

    reason: str = Field(
        description="One CamelCase word, such as `Claimed` or `IdleInSlurm`: the reason of condition `Recalled`.",
        min_length=1,
        max_length=128,
        json_schema_extra=cel(
            (
                "self.matches('^[A-Za-z][A-Za-z0-9_]*$')",
                "must be one CamelCase word, such as `Maintenance`; sentences go into `message`",
            )
        ),
    )
    message: str = Field(default="", description="One sentence for people.", max_length=1024)
    recall_class: RecallClass = Field(description="Which ladder of the pool is walked.")
    claim: ClaimReference | None = Field(default=None, description="The claim that the node is handed to.")


class TakenFor(Model):
    """The pending job for which the node was taken from pods of lower priority."""

    job_id: int = Field(description="Slurm's job id.", ge=1, le=4294967295)
    priority: int = Field(
        description="The job's priority: only pods of a strictly lower one are evicted for it.",
        ge=-1000000000,
        le=1000000000,
    )
    nodes: int = Field(
        description="How many nodes are to be on loan for the job together. With fewer, no pod is evicted from any.",
        ge=1,
        le=10000,
    )


_LASTING = ("poolName", "nodeName", "slurmNodeName", "gpuResourceName", "gpus", "priority")
"""What stays as it was when the loan was made."""


class NodeLoanSpec(Model):
    """Which node is lent to which pool, and whether it is wanted back. People change only `wanted`."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                " && ".join(f"self.{name} == oldSelf.{name}" for name in _LASTING),
                "only `wanted` and `back` of a loan can be changed: set `wanted: Returned` to get the node back, "
                "other terms need a new loan",
            ),
            (
                "has(self.takenFor) == has(oldSelf.takenFor) "
                "&& (!has(self.takenFor) || self.takenFor == oldSelf.takenFor)",
                "`takenFor` of a loan cannot be changed: it says why the loan was made",
            ),
            (
                "oldSelf.wanted != 'Returned' || self.wanted == 'Returned'",
                "a loan that is wanted back cannot go back to `Lent`: leave `wanted: Returned`, "
                "lending the node again is a new loan",
            ),
            (
                "!has(self.back) || self.wanted == 'Returned'",
                "`back` says why the node returns: set `wanted: Returned` with it, or leave `back` away",
            ),
        )
    )

    pool_name: str = Field(description="The BatchPool that borrows.", min_length=1, max_length=253)
    node_name: str = Field(description="The node.", min_length=1, max_length=253)
    slurm_node_name: str = Field(description="What the node is called in Slurm.", min_length=1, max_length=64)
    gpu_resource_name: str = Field(description="The resource that counts its GPUs.", min_length=1, max_length=253)
    gpus: int = Field(description="GPUs that are lent: all of the node.", ge=1, le=1024)
    priority: int = Field(
        description="The pool's priority when the loan was made. Only claims of a strictly higher priority than "
        "`status.priority` recall it: that counts the jobs on the node, too.",
        ge=-1000000000,
        le=1000000000,
    )
    taken_for: TakenFor | None = Field(
        default=None,
        description="The urgent job for which the node was taken from pods of lower priority; absent when it was free.",
    )
    wanted: Literal["Lent", "Returned"] = Field(
        default="Lent", description="Where the loan shall end up. `Returned` is one-way: lending again is a new loan."
    )
    back: LoanReturn | None = Field(
        default=None,
        description="Why and how the node returns, once it is wanted back. "
        "Without it the ladder is the one of the pool's `automaticClass`.",
    )


class TouchedJob(Model):
    """A job that was on the node when it was recalled, and what was done about it."""

    job_id: int = Field(description="Slurm's job id.", ge=1)
    action: Literal["Waited", "Signalled", "Requeued", "Cancelled", "EndedByDown"] = Field(
        description="The last thing that was done: waited for, signalled, requeued, cancelled, or ended by `DOWN`."
    )
    time: Time = Field(description="When that was done.")
    requeueable: bool = Field(description="Whether Slurm may requeue it.")
    user: str = Field(default="", description="Whose job it is.", max_length=253)
    gpus: int = Field(default=0, description="GPUs of the whole job.", ge=0)
    start_time: Time | None = Field(default=None, description="When this run of the job had started.")


class Ledger(Model):
    """What the loan gave and what it cost."""

    lent_seconds: int = Field(default=0, description="How long Slurm owned the node.", ge=0)
    requeued_jobs: int = Field(default=0, description="Jobs that the recall requeued.", ge=0)
    cancelled_jobs: int = Field(default=0, description="Jobs that may not be requeued and were cancelled.", ge=0)
    lost_gpu_seconds: int = Field(
        default=0,
        description="GPU-seconds of requeued and cancelled runs since their start, an upper bound of lost work.",
        ge=0,
    )


class NodeLoanStatus(Status):
    """How far the trip is. In order: Fenced, Vacated, Joined, Lent, Recalled, Drained, Left, Clean, Returned."""

    state: str = Field(
        default="", description="The newest condition in one word, for people; programs read conditions.", max_length=32
    )
    message: str = Field(default="", description="What happens next or what blocks it.", max_length=1024)
    deadline: Time | None = Field(
        default=None, description="When the present step is overdue and its next rung is taken."
    )
    priority: int | None = Field(
        default=None,
        description="How important the loan is: that of the most important job on the node, and at least "
        "`spec.priority`. A node that was taken for a pending job is as important as that job.",
    )
    jobs: tuple[TouchedJob, ...] = Field(
        default=(),
        description="Jobs that the recall touched.",
        max_length=256,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["jobId"]},
    )
    ledger: Ledger = Field(default=Ledger(), description="What the loan gave and what it cost.")


class NodeLoan(Model):
    """One trip of one node to a BatchPool and back. Tidegate makes them; delete one to get its node back."""

    model_config = ConfigDict(json_schema_extra=cel(FITS_LABEL))

    api_version: Literal["tidegate.dev/v1alpha1"] = API_VERSION
    kind: Literal["NodeLoan"] = "NodeLoan"
    metadata: Metadata
    spec: NodeLoanSpec
    status: NodeLoanStatus = NodeLoanStatus()

    @property
    def is_over(self) -> bool:
        """Whether nothing of the loan is left on the node or in Slurm."""
        return self.status.is_true("Returned")

    @property
    def is_wanted_back(self) -> bool:
        """Whether the node shall return; deleting the object asks for that, too."""
        return self.spec.wanted == "Returned" or self.metadata.deletion_timestamp is not None

"""What a decision may ask for: one small value for each effect on the world. Each is safe to repeat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tidegate.api import (
    BatchPool,
    BatchPoolStatus,
    CapacityClaim,
    CapacityClaimSpec,
    CapacityClaimStatus,
    HolderReference,
    InferenceService,
    InferenceServiceStatus,
    LoanReturn,
    NodeLoan,
    NodeLoanSpec,
    NodeLoanStatus,
    SlurmCluster,
    SlurmClusterStatus,
)
from tidegate.sharing.snapshot import Node, Owner, Pod, SeenInSlurm, SlurmReservation


class _OnLoan:
    """Commands with one key are applied one after the other: here, those on the loan's node."""

    __slots__ = ()
    loan: NodeLoan

    @property
    def key(self) -> str:
        return f"node/{self.loan.spec.node_name}"


class _OnNode:
    __slots__ = ()
    node: Node

    @property
    def key(self) -> str:
        return f"node/{self.node.name}"


class _OnClaim:
    __slots__ = ()
    claim: CapacityClaim

    @property
    def key(self) -> str:
        return f"claim/{self.claim.metadata.namespace}/{self.claim.metadata.name}"


class _OnPool:
    __slots__ = ()
    pool: BatchPool

    @property
    def key(self) -> str:
        return f"pool/{self.pool.metadata.name}"


class _OnService:
    __slots__ = ()
    service: InferenceService

    @property
    def key(self) -> str:
        return f"service/{self.service.metadata.namespace}/{self.service.metadata.name}"


@dataclass(frozen=True, slots=True)
class CreateLoan:
    """Record a new loan. Its name holds a number, so that two operators cannot record the same trip twice."""

    name: str
    spec: NodeLoanSpec

    @property
    def key(self) -> str:
        """Commands with one key are applied one after the other."""
        return f"node/{self.spec.node_name}"


@dataclass(frozen=True, slots=True)
class FenceNode(_OnNode):
    """Put the loan's taint and label on the node in one patch, if the node is still as it was seen."""

    loan: NodeLoan
    node: Node


@dataclass(frozen=True, slots=True)
class ConfirmVacated(_OnLoan):
    """Ask the API server itself, after the fence, whether a GPU pod of others is on the node; say `Vacated` if not."""

    loan: NodeLoan
    pool: BatchPool


@dataclass(frozen=True, slots=True)
class EvictPod(_OnLoan):
    """Evict a pod of others from a node that is taken for a job, by the Eviction API, which keeps their budgets.

    Only if the loans of `gang` (names) are still all that the job has and each holds its fence; and if the API server
    would let the `others`, too, go: nobody is evicted for a job that gets half of its nodes.
    """

    loan: NodeLoan
    pod: Pod
    gang: tuple[str, ...]
    others: tuple[Pod, ...]


@dataclass(frozen=True, slots=True)
class CreateSlurmdPod(_OnLoan):
    """Run slurmd on the fenced node. It asks for what it offers to Slurm."""

    loan: NodeLoan
    pool: BatchPool
    cluster: SlurmCluster
    cpus: int
    memory_mib: int
    drained: bool = False
    """Whether it registers drained, so that no job comes before we let them in."""


@dataclass(frozen=True, slots=True)
class ResumeSlurmNode(_OnLoan):
    """Let jobs come to a node that registered drained, if nobody else drained it since and it is not wanted back."""

    cluster_name: str
    loan: NodeLoan


@dataclass(frozen=True, slots=True)
class UnlabelNode(_OnNode):
    """Take the loan's label off the node, so that no slurmd pod of the loan can be bound any more."""

    loan: NodeLoan
    node: Node


@dataclass(frozen=True, slots=True)
class DeleteSlurmdPod(_OnLoan):
    """Delete this very slurmd pod (by UID), if Slurm itself says that nothing can start on its node."""

    cluster_name: str
    loan: NodeLoan
    pod: Pod


@dataclass(frozen=True, slots=True)
class ReleaseNode(_OnLoan):
    """Check at the sources that nothing of the loan is left, then swap its fence for the claim's, or take it off."""

    loan: NodeLoan
    cluster_name: str
    claim_uid: str | None


@dataclass(frozen=True, slots=True)
class HoldNode(_OnNode):
    """Fence a free node for a claim, if the node is still as it was seen."""

    node: Node
    claim_uid: str


@dataclass(frozen=True, slots=True)
class FreeNode(_OnNode):
    """Take a claim's fence off a node, if the node is still as it was seen."""

    node: Node
    claim_uid: str


@dataclass(frozen=True, slots=True)
class FreeSurplus(_OnNode):
    """Take the fence of a live claim off a node that it needs no more, if it asks for no more and has the rest."""

    node: Node
    claim: CapacityClaim
    keeps: tuple[str, ...]
    """The nodes that stay held for the claim."""


@dataclass(frozen=True, slots=True)
class DrainSlurmNode(_OnLoan):
    """Let Slurm start nothing new on the node."""

    cluster_name: str
    loan: NodeLoan
    reason: str


@dataclass(frozen=True, slots=True)
class SignalJob(_OnLoan):
    """Send a job the signal that it declared, so that it can save its work."""

    cluster_name: str
    loan: NodeLoan
    job_id: int
    signal: str


@dataclass(frozen=True, slots=True)
class RequeueJob(_OnLoan):
    """Put a job back into the queue."""

    cluster_name: str
    loan: NodeLoan
    job_id: int


@dataclass(frozen=True, slots=True)
class CancelJob(_OnLoan):
    """Cancel a job that may not be requeued."""

    cluster_name: str
    loan: NodeLoan
    job_id: int


@dataclass(frozen=True, slots=True)
class DownSlurmNode(_OnLoan):
    """The last rung: Slurm ends or requeues whatever is still on the node."""

    cluster_name: str
    loan: NodeLoan
    reason: str


@dataclass(frozen=True, slots=True)
class DeleteSlurmNode(_OnLoan):
    """Delete the dynamic node record of the loan."""

    cluster_name: str
    loan: NodeLoan


@dataclass(frozen=True, slots=True)
class AnnounceReservation:
    """Tell Slurm from when until when it must keep jobs off nodes; make the reservation or change it."""

    cluster_name: str
    claim: CapacityClaim
    reservation: SlurmReservation

    @property
    def key(self) -> str:
        return f"reservation/{self.cluster_name}/{self.reservation.name}"


@dataclass(frozen=True, slots=True)
class WithdrawReservation:
    """End a reservation of ours in Slurm."""

    cluster_name: str
    reservation_name: str

    @property
    def key(self) -> str:
        return f"reservation/{self.cluster_name}/{self.reservation_name}"


@dataclass(frozen=True, slots=True)
class RecallLoan(_OnLoan):
    """Turn a loan around, or name the claim that a returning node goes to."""

    loan: NodeLoan
    back: LoanReturn
    seen: SeenInSlurm | None = None
    """Where the choice depends on what runs there: it is made anew if that is more by now."""


@dataclass(frozen=True, slots=True)
class WriteLoanStatus(_OnLoan):
    """Write the status of a loan and the events that tell of what changed in it."""

    loan: NodeLoan
    status: NodeLoanStatus


@dataclass(frozen=True, slots=True)
class EndLoan(_OnLoan):
    """Drop the finalizer of a loan that is over, so that it can be deleted."""

    loan: NodeLoan


@dataclass(frozen=True, slots=True)
class ForgetLoan(_OnLoan):
    """Delete an ended loan that is beyond the history limit."""

    loan: NodeLoan


@dataclass(frozen=True, slots=True)
class CreateClaim:
    """Make the automatic claim of a controller with pending GPU pods."""

    namespace: str
    name: str
    owner: Owner
    spec: CapacityClaimSpec

    @property
    def key(self) -> str:
        return f"claim/{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class ResizeClaim(_OnClaim):
    """Say how many nodes an automatic claim is for, now that more of its controller's pods are pending."""

    claim: CapacityClaim
    nodes: int


@dataclass(frozen=True, slots=True)
class TieToHolder(_OnClaim):
    """Make the holder an owner of its claim, so that the garbage collector deletes the claim with it."""

    claim: CapacityClaim
    holder: HolderReference


@dataclass(frozen=True, slots=True)
class TolerateFence:
    """Let a pending pod of the claim onto the nodes that are held for it."""

    pod: Pod
    claim_uid: str

    @property
    def key(self) -> str:
        return f"pod/{self.pod.key}"


@dataclass(frozen=True, slots=True)
class TellPod:
    """Tell by an event on a pending pod why no claim is made for it."""

    pod: Pod
    message: str

    @property
    def key(self) -> str:
        return f"pod/{self.pod.key}"


@dataclass(frozen=True, slots=True)
class WriteClaimStatus(_OnClaim):
    """Write the status of a claim and the events that tell of what changed in it."""

    claim: CapacityClaim
    status: CapacityClaimStatus


@dataclass(frozen=True, slots=True)
class ForgetClaim(_OnClaim):
    """Delete an automatic claim that has been over for a while."""

    claim: CapacityClaim


@dataclass(frozen=True, slots=True)
class Advice:
    """What a pool that only recommends would do with a node now, and why."""

    would: Literal["Lend", "Recall"]
    node: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class WritePoolStatus(_OnPool):
    """Write the status of a pool, and tell what it would have done."""

    pool: BatchPool
    status: BatchPoolStatus
    advice: tuple[Advice, ...] = ()


@dataclass(frozen=True, slots=True)
class GuardPool(_OnPool):
    """Put the finalizer on a pool before its first loan, or drop it once a deleted pool has none left."""

    pool: BatchPool
    guarded: bool


@dataclass(frozen=True, slots=True)
class WriteClusterStatus:
    """Write the status of a Slurm cluster."""

    cluster: SlurmCluster
    status: SlurmClusterStatus

    @property
    def key(self) -> str:
        return f"cluster/{self.cluster.metadata.name}"


@dataclass(frozen=True, slots=True)
class ApplyPart(_OnService):
    """Make or correct one object of an InferenceService, if the service is still as it was seen."""

    service: InferenceService
    kind: str
    """`Service`, `PodDisruptionBudget`, `Deployment`, or `CapacityClaim` for the warm replicas."""
    amount: int
    """Replicas of the Deployment, nodes of the claim."""
    fingerprint: str


@dataclass(frozen=True, slots=True)
class WriteServiceStatus(_OnService):
    """Write the status of an InferenceService and the events that tell of what changed in it."""

    service: InferenceService
    status: InferenceServiceStatus


Command = (
    CreateLoan
    | FenceNode
    | ConfirmVacated
    | EvictPod
    | CreateSlurmdPod
    | ResumeSlurmNode
    | UnlabelNode
    | DeleteSlurmdPod
    | ReleaseNode
    | HoldNode
    | FreeNode
    | FreeSurplus
    | DrainSlurmNode
    | SignalJob
    | RequeueJob
    | CancelJob
    | DownSlurmNode
    | DeleteSlurmNode
    | AnnounceReservation
    | WithdrawReservation
    | RecallLoan
    | WriteLoanStatus
    | EndLoan
    | ForgetLoan
    | CreateClaim
    | ResizeClaim
    | TieToHolder
    | TolerateFence
    | TellPod
    | WriteClaimStatus
    | ForgetClaim
    | WritePoolStatus
    | GuardPool
    | WriteClusterStatus
    | ApplyPart
    | WriteServiceStatus
)

"""The custom resources of group `tidegate.dev`: pydantic models, the source of `crds/`."""

from tidegate.api.batch_pool import (
    RECALL_CLASSES,
    BatchPool,
    BatchPoolSpec,
    BatchPoolStatus,
    Ladder,
    NodeCounts,
    Quota,
    RecallClass,
)
from tidegate.api.capacity_claim import CapacityClaim, CapacityClaimSpec, CapacityClaimStatus, HolderReference
from tidegate.api.lending import KubernetesSide, Lending, OpenWindow, Window
from tidegate.api.node_loan import (
    LEND_STEPS,
    OVERDUE,
    RETURN_STEPS,
    ClaimReference,
    Ledger,
    LoanReturn,
    NodeLoan,
    NodeLoanSpec,
    NodeLoanStatus,
    TakenFor,
    TouchedJob,
)
from tidegate.api.resource import Condition, Metadata, Model, OwnerReference, Status
from tidegate.api.slurm_cluster import JobPriority, SlurmCluster, SlurmClusterSpec, SlurmClusterStatus

__all__ = [
    "LEND_STEPS",
    "OVERDUE",
    "RECALL_CLASSES",
    "RETURN_STEPS",
    "BatchPool",
    "BatchPoolSpec",
    "BatchPoolStatus",
    "CapacityClaim",
    "CapacityClaimSpec",
    "CapacityClaimStatus",
    "ClaimReference",
    "Condition",
    "HolderReference",
    "JobPriority",
    "KubernetesSide",
    "Ladder",
    "Ledger",
    "Lending",
    "LoanReturn",
    "Metadata",
    "Model",
    "NodeCounts",
    "NodeLoan",
    "NodeLoanSpec",
    "NodeLoanStatus",
    "OpenWindow",
    "OwnerReference",
    "Quota",
    "RecallClass",
    "SlurmCluster",
    "SlurmClusterSpec",
    "SlurmClusterStatus",
    "Status",
    "TakenFor",
    "TouchedJob",
    "Window",
]

"""What was seen of the world at one moment: the only input of every decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tidegate.api import BatchPool, CapacityClaim, InferenceService, NodeLoan, SlurmCluster
from tidegate.api.names import FENCE_TAINT, LOAN_LABEL


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint of a Node."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Toleration:
    """A toleration of a Pod; an empty key with operator Exists tolerates everything."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def tolerates(self, taint: Taint) -> bool:
        """As the scheduler decides it (corev1 Toleration.ToleratesTaint)."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        return self.operator == "Exists" or (bool(self.key) and self.value == taint.value)


@dataclass(frozen=True, slots=True)
class Node:
    """A Kubernetes Node. `gpus` holds allocatable extended resources by resource name."""

    name: str
    uid: str
    resource_version: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    taints: tuple[Taint, ...]
    unschedulable: bool
    ready: bool
    gpus: Mapping[str, int]
    cpu_millis: int
    memory_mib: int
    deleting: bool = False

    @property
    def fence(self) -> str | None:
        """The value of our taint: the loan or claim that holds the node; None when nobody does."""
        for taint in self.taints:
            if taint.key == FENCE_TAINT:
                return taint.value
        return None

    @property
    def loan_label(self) -> str | None:
        """The loan whose slurmd pod may be bound here."""
        return self.labels.get(LOAN_LABEL)


@dataclass(frozen=True, slots=True)
class Owner:
    """The controller of a pod, or the pod itself when it is bare."""

    api_version: str
    kind: str
    name: str
    uid: str


Requirement = tuple[str, str, tuple[str, ...]]
"""Key, operator (`In`, `NotIn`, `Exists`, `DoesNotExist`, and for nodes `Gt` and `Lt`) and values."""


@dataclass(frozen=True, slots=True)
class PodsNearby:
    """Pods that a pod wants near or away: those that match, in one place each value of the topology key stands for."""

    topology_key: str
    selector: tuple[Requirement, ...] | None
    """All must hold; None selects no pod."""
    namespaces: tuple[str, ...]
    namespace_selector: tuple[Requirement, ...] | None = None
    """Namespaces beside those that are named."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A topology spread constraint that must hold (DoNotSchedule)."""

    pods: PodsNearby
    max_skew: int
    all_nodes: bool = False
    """Whether also places count that the pod's node selector and affinity forbid (nodeAffinityPolicy Ignore)."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A Pod that is not finished. `node` is empty while it is not bound; `gpus` counts extended resources by name."""

    namespace: str
    name: str
    uid: str
    node: str
    phase: str
    gpus: Mapping[str, int]
    cpu_millis: int
    memory_mib: int
    priority: int
    priority_class_name: str
    owner: Owner
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    tolerations: tuple[Toleration, ...]
    node_selector: Mapping[str, str]
    required_affinity: tuple[tuple[Requirement, ...], ...]
    """Node affinity that must hold: any of the terms, each a tuple of (key, operator, values) that must all hold."""
    unschedulable: bool
    """The scheduler tried and found no node (condition PodScheduled False, reason Unschedulable)."""
    gated: bool
    created: datetime
    deleting: bool
    waiting_reason: str = ""
    """Why a container does not start, such as `ErrImageNeverPull`, or why the kubelet refused the pod, in its words."""
    scheduler_message: str = ""
    spread: tuple[Spread, ...] = ()
    together: tuple[PodsNearby, ...] = ()
    """Required pod affinity."""
    apart: tuple[PodsNearby, ...] = ()
    """Required pod anti-affinity."""
    grace_seconds: int = 30
    """How long it may take to end."""

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def loan(self) -> str | None:
        """The loan whose slurmd this pod runs, or None for pods of others."""
        return self.labels.get(LOAN_LABEL)


@dataclass(frozen=True, slots=True)
class SlurmNode:
    """A node record of Slurm. `states` are upper-case words: a base state and flags."""

    name: str
    states: frozenset[str]
    reason: str = ""
    extra: str = ""
    comment: str = ""
    features: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    gpus: int = 0
    gpus_used: int = 0
    cpus: int = 0
    cpus_used: int = 0
    memory_mib: int = 0
    memory_mib_used: int = 0
    last_busy: datetime | None = None

    @property
    def is_drained(self) -> bool:
        """Whether somebody drained it; unlike DOWN alone, that outlives a slurmd that comes back."""
        return "DRAIN" in self.states

    @property
    def takes_nothing(self) -> bool:
        """Whether Slurm starts nothing new on it, because it is drained or down."""
        return bool(self.states & {"DRAIN", "DOWN", "FAIL"})

    @property
    def is_busy(self) -> bool:
        """Whether Slurm says that something runs or is being cleaned up there."""
        return bool(self.states & {"ALLOCATED", "MIXED", "COMPLETING"})

    def runs_more_than(self, before: SlurmNode | None) -> bool:
        """Whether something was started there since; None where there was no record before."""
        if before is None or (self.is_busy and not before.is_busy):
            return self.is_busy
        return self.gpus_used > before.gpus_used or self.cpus_used > before.cpus_used


@dataclass(frozen=True, slots=True)
class SeenInSlurm:
    """The record of a loan's node as a decision saw it; None where slurmd had not registered yet."""

    cluster_name: str
    record: SlurmNode | None


_HOLDING = frozenset(
    {"RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING", "STOPPED", "RESIZING"}
)


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """A job that is not finished. `nodes` are the nodes it runs on; amounts of pending jobs are what it asks for."""

    job_id: int
    user: str
    states: frozenset[str]
    reason: str = ""
    partitions: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    node_count: int = 1
    cpus: int = 1
    """CPUs of the whole job."""
    memory_mib_per_node: int = 0
    gpus: int = 0
    """GPUs of the whole job."""
    may_spread: bool = False
    """Slurm may lay it over more nodes than `node_count`: GPUs were asked for the whole job, or for its tasks."""
    constraints: str = ""
    """Slurm's feature expression, such as `lent&a100`."""
    required_nodes: tuple[str, ...] = ()
    exclusive: bool = False
    array_tasks: int = 1
    """Tasks of a pending job array that have not started yet; 1 for any other job."""
    requeueable: bool = True
    """A batch job whose owner lets it be requeued."""
    comment: str = ""
    priority: int = 0
    qos: str = ""
    restarts: int = 0
    """How often it was requeued, by whomever."""
    time_limit_seconds: int | None = None
    """How long a run may take; None without a limit."""
    eligible_time: datetime | None = None
    """Since when it may start, as far as its own wishes go."""
    start_time: datetime | None = None
    end_time: datetime | None = None
    """When its time limit ends."""

    @property
    def is_pending(self) -> bool:
        """Whether it waits for nodes."""
        return "PENDING" in self.states

    @property
    def holds_nodes(self) -> bool:
        """Whether it runs or is being cleaned up."""
        return not self.states.isdisjoint(_HOLDING)


@dataclass(frozen=True, slots=True)
class SlurmReservation:
    """Nodes on which Slurm starts no job that would run into the time between `start` and `end`."""

    name: str
    nodes: tuple[str, ...]
    """In order."""
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class SlurmState:
    """The last observation of a Slurm cluster. Without `observed` (or when it is old) nothing may be concluded."""

    observed: datetime | None = None
    """When the request of the last complete, error-free answer was sent."""
    error: str = ""
    """One sentence why the newest attempt failed; empty when it did not."""
    reason: str = ""
    """CamelCase word for the failure, such as `Unreachable`, `TokenExpired`, `NoCommonVersion`."""
    release: str = ""
    data_parser: str = ""
    capabilities: frozenset[str] = frozenset()
    partitions: frozenset[str] = frozenset()
    node_sets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The NodeSets of each partition that has any."""
    nodes: Mapping[str, SlurmNode] = field(default_factory=dict)
    jobs: Mapping[int, SlurmJob] = field(default_factory=dict)
    reservations: Mapping[str, SlurmReservation] = field(default_factory=dict)
    """Only those that Tidegate made, which their names tell."""


@dataclass(frozen=True, slots=True)
class Part:
    """What was made for an InferenceService: its Deployment, Service or PodDisruptionBudget."""

    uid: str
    owner_uid: str
    """The service that controls it."""
    fingerprint: str
    revision: str = ""
    """Changes when somebody changes what it shall be."""
    as_applied: bool = False
    """Nobody changed it since this process applied it."""
    replicas: int = 0
    """Of a Deployment, like all below: how many it is told to have."""
    existing: int = 0
    ready: int = 0
    updated: int = 0
    """Replicas of the present spec."""
    settled: bool = True
    """Its controller has seen the present spec."""
    problem: str = ""
    """Why no replica can be made, in its controller's words."""


@dataclass(frozen=True, slots=True)
class DisruptionBudget:
    """A PodDisruptionBudget: how many of the pods that it selects may be evicted now."""

    namespace: str
    name: str
    selector: tuple[Requirement, ...] | None
    """What its pods' labels must all satisfy; None selects nothing."""
    allowed: int
    """0 while its status does not speak of its present spec."""
    part: Part | None = None
    """What it is of an InferenceService, where it was made for one."""

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The API server did not take what was made of an InferenceService."""

    generation: int
    """Of the service that it was made of."""
    message: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole world that a decision looks at."""

    nodes: Mapping[str, Node]
    pods: tuple[Pod, ...]
    pools: tuple[BatchPool, ...]
    clusters: Mapping[str, SlurmCluster]
    slurm: Mapping[str, SlurmState]
    """By name of the SlurmCluster."""
    loans: tuple[NodeLoan, ...]
    claims: tuple[CapacityClaim, ...]
    priority_classes: Mapping[str, int]
    default_priority_class: str = ""
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The labels of each namespace."""
    owners: Mapping[str, tuple[Owner, ...]] = field(default_factory=dict)
    """By the UID of a pod's controller those above it, the nearest first; one that is not here was not read."""
    disruption_budgets: tuple[DisruptionBudget, ...] = ()
    idle_since: Mapping[str, datetime] = field(default_factory=dict)
    """Nodes without a GPU pod of others, and since when that was seen."""
    waiting_since: Mapping[str, datetime] = field(default_factory=dict)
    """Since when each pod, by UID, was seen to wait for GPUs in vain."""
    told: frozenset[str] = frozenset()
    """UIDs of the pods that were told why no claim is made for them."""
    template_problems: Mapping[str, str] = field(default_factory=dict)
    """Pools of whose template no slurmd pod can be made, each with one sentence why."""
    services: tuple[InferenceService, ...] = ()
    parts: Mapping[str, Part] = field(default_factory=dict)
    """By `Kind namespace/name`."""
    service_problems: Mapping[str, str] = field(default_factory=dict)
    """Services (`namespace/name`) of whose template no replica can be made, each with one sentence why."""
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    """By the UID of the InferenceService: that the API server did not take what was made of it."""
    gate_image: str = ""
    """The image that the gate of each replica runs from; without it no replica is made."""

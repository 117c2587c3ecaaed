"""Small worlds for tests of decisions: every part has sane defaults, a test names only what it is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from tidegate.api import (
    BatchPool,
    BatchPoolSpec,
    BatchPoolStatus,
    CapacityClaim,
    CapacityClaimSpec,
    CapacityClaimStatus,
    ClaimReference,
    Condition,
    InferenceService,
    JobPriority,
    LoanReturn,
    Metadata,
    NodeLoan,
    NodeLoanSpec,
    NodeLoanStatus,
    OwnerReference,
    Recommended,
    SlurmCluster,
    SlurmClusterSpec,
    TakenFor,
)
from tidegate.api.names import CLAIM_LABEL, FENCE_TAINT, LOAN_LABEL, RETURN_FINALIZER, claim_fence, slurm_node_name
from tidegate.sharing.commands import Command
from tidegate.sharing.decide import decide
from tidegate.sharing.index import Index, extra_of
from tidegate.sharing.snapshot import (
    DisruptionBudget,
    Node,
    Owner,
    Part,
    Pod,
    PodsNearby,
    Refusal,
    SlurmJob,
    SlurmNode,
    SlurmReservation,
    SlurmState,
    Snapshot,
    Spread,
    Taint,
    Toleration,
)

C = TypeVar("C")
NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
GPU = "nvidia.com/gpu"
SELECTOR = {"tidegate.dev/lendable": "true"}

FENCED = ("Fenced",)
VACATED = (*FENCED, "Vacated")
LENT = (*VACATED, "Joined", "Lent")
RECALLED = (*LENT, "Recalled")
DRAINED = (*RECALLED, "Drained")
LEFT = (*DRAINED, "Left")
CLEAN = (*LEFT, "Clean")
RETURNED = (*CLEAN, "Returned")


def ago(seconds: float, now: datetime = NOW) -> datetime:
    """The moment that many seconds before."""
    return now - timedelta(seconds=seconds)


def node(
    name: str = "gpu-1",
    *,
    gpus: int = 8,
    cpus: int = 64,
    memory_mib: int = 512_000,
    fence: str | None = None,
    label: str | None = None,
    taints: Iterable[Taint] = (),
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    ready: bool = True,
    unschedulable: bool = False,
    deleting: bool = False,
    resource: str = GPU,
) -> Node:
    """A healthy free node of the pool; `fence` is the value of our taint, `label` the loan that it lets in."""
    ours = (Taint(FENCE_TAINT, fence, "NoSchedule"),) if fence else ()
    return Node(
        name=name,
        uid=f"uid-{name}",
        resource_version="1",
        labels={**SELECTOR, **({LOAN_LABEL: label} if label else {}), **(labels or {})},
        annotations=annotations or {},
        taints=(*taints, *ours),
        unschedulable=unschedulable,
        ready=ready,
        gpus={resource: gpus} if gpus else {},
        cpu_millis=cpus * 1000,
        memory_mib=memory_mib,
        deleting=deleting,
    )


def lent_node(name: str = "gpu-1", *, loan: str = "", **more: Any) -> Node:
    """A node that carries the fence and the label of its loan."""
    return node(name, fence=loan or f"{name}-1", label=loan or f"{name}-1", **more)


def claimed_node(name: str = "gpu-1", *, claim: str = "c1", **more: Any) -> Node:
    """A node that is held for the claim of that name."""
    return node(name, fence=claim_fence(f"uid-{claim}"), **more)


def pod(
    name: str = "web-1",
    *,
    namespace: str = "team",
    on: str = "",
    gpus: int = 1,
    cpus: float = 1,
    memory_mib: int = 1000,
    priority: int = 0,
    priority_class_name: str = "",
    owner: str = "",
    owner_kind: str = "ReplicaSet",
    claim: str = "",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    created: datetime | None = None,
    grace_seconds: int = 30,
    unschedulable: bool | None = None,
    gated: bool = False,
    deleting: bool = False,
    tolerations: Iterable[Toleration] = (),
    node_selector: Mapping[str, str] | None = None,
    required_affinity: Sequence[tuple[tuple[str, str, tuple[str, ...]], ...]] = (),
    resource: str = GPU,
    spread: Iterable[Spread] = (),
    together: Iterable[PodsNearby] = (),
    apart: Iterable[PodsNearby] = (),
) -> Pod:
    """A GPU pod: running `on` a node, or pending and found unschedulable. `owner` names its ReplicaSet."""
    return Pod(
        namespace=namespace,
        name=name,
        uid=f"uid-{name}",
        node=on,
        phase="Running" if on else "Pending",
        gpus={resource: gpus} if gpus else {},
        cpu_millis=int(cpus * 1000),
        memory_mib=memory_mib,
        priority=priority,
        priority_class_name=priority_class_name,
        owner=Owner("apps/v1", owner_kind, owner, f"uid-{owner}") if owner else Owner("v1", "Pod", name, f"uid-{name}"),
        labels={**(labels or {}), **({CLAIM_LABEL: claim} if claim else {})},
        annotations=annotations or {},
        tolerations=tuple(tolerations),
        node_selector=node_selector or {},
        required_affinity=tuple(required_affinity),
        unschedulable=not on if unschedulable is None else unschedulable,
        gated=gated,
        created=created or ago(60),
        deleting=deleting,
        spread=tuple(spread),
        together=tuple(together),
        apart=tuple(apart),
        grace_seconds=grace_seconds,
    )


def budget(name: str = "web", *, allowed: int = 0, namespace: str = "team", **labels: str) -> DisruptionBudget:
    """A PodDisruptionBudget over the pods with these labels; over all of the namespace without any."""
    selector = tuple((key, "In", (value,)) for key, value in labels.items())
    return DisruptionBudget(namespace, name, selector, allowed)


def slurmd(
    loan: str = "gpu-1-1",
    *,
    on: str = "gpu-1",
    phase: str = "Running",
    gpus: int = 8,
    cpus: float = 60,
    memory_mib: int = 500_000,
    deleting: bool = False,
    waiting_reason: str = "",
    scheduler_message: str = "",
) -> Pod:
    """The slurmd pod of a loan."""
    name = f"slurmd-{loan}"
    return Pod(
        namespace="tidegate",
        name=name,
        uid=f"uid-{name}",
        node=on,
        phase=phase,
        gpus={GPU: gpus},
        cpu_millis=int(cpus * 1000),
        memory_mib=memory_mib,
        priority=1_000_000,
        priority_class_name="tidegate-slurmd",
        owner=Owner("tidegate.dev/v1alpha1", "NodeLoan", loan, f"uid-{loan}"),
        labels={LOAN_LABEL: loan},
        annotations={},
        tolerations=(),
        node_selector={},
        required_affinity=(),
        unschedulable=False,
        gated=False,
        created=ago(60),
        deleting=deleting,
        waiting_reason=waiting_reason,
        scheduler_message=scheduler_message,
    )


def pool(
    name: str = "batch",
    *,
    lending: Mapping[str, Any] | None = None,
    recall: Mapping[str, Any] | None = None,
    guarded: bool = True,
    deleted: datetime | None = None,
    created: datetime | None = None,
    template: Mapping[str, Any] | None = None,
    recommended: Recommended | None = None,
    **spec: Any,
) -> BatchPool:
    """A pool of all lendable nodes, lending at once; `lending` and `recall` in the words of the resource."""
    fields: dict[str, Any] = {
        "nodeSelector": SELECTOR,
        "slurmClusterName": "slurm",
        "partition": "lent",
        "slurmd": {"image": "slurmd:24.11", "template": template or {}},
        "lending": {"idleSeconds": 60, "idleReturnSeconds": 60, **(lending or {})},
        "recall": recall or {},
        **spec,
    }
    return BatchPool(
        metadata=Metadata(
            name=name,
            uid=f"uid-{name}",
            resource_version="1",
            generation=1,
            creation_timestamp=created or ago(100_000),
            deletion_timestamp=deleted,
            finalizers=(RETURN_FINALIZER,) if guarded else (),
        ),
        spec=BatchPoolSpec.model_validate(fields),
        status=BatchPoolStatus(recommended=recommended),
    )


def loan(
    node_name: str = "gpu-1",
    *,
    name: str = "",
    pool_name: str = "batch",
    done: Sequence[str] = LENT,
    since: datetime | None = None,
    created: datetime | None = None,
    back: LoanReturn | None = None,
    wanted: str = "",
    gpus: int = 8,
    priority: int = -100,
    shown: int | None = None,
    taken_for: TakenFor | None = None,
    deleted: datetime | None = None,
    finalizers: tuple[str, ...] = (RETURN_FINALIZER,),
    **status: Any,
) -> NodeLoan:
    """A loan that has done these steps, the last of them at `since`; recalled ones are wanted back.

    `priority` is the pool's, `shown` that of its status where it is another.
    """
    since = since or ago(10)
    created = created or ago(3000)
    returning = wanted == "Returned" or (not wanted and ("Recalled" in done or back is not None))
    conditions = tuple(
        Condition(type=step, status="True", reason="Done", last_transition_time=since, observed_generation=1)
        for step in done
    )
    status = {"priority": priority if shown is None else shown, **status}
    fields = {"state": done[-1] if done else "", "conditions": conditions, "observed_generation": 1, **status}
    return NodeLoan(
        metadata=Metadata(
            name=name or f"{node_name}-1",
            uid=f"uid-{name or node_name + '-1'}",
            resource_version="1",
            generation=1,
            creation_timestamp=created,
            deletion_timestamp=deleted,
            finalizers=finalizers,
        ),
        spec=NodeLoanSpec(
            pool_name=pool_name,
            node_name=node_name,
            slurm_node_name=slurm_node_name(node_name),
            gpu_resource_name=GPU,
            gpus=gpus,
            priority=priority,
            taken_for=taken_for,
            wanted="Returned" if returning else "Lent",
            back=back or (back_for() if returning else None),
        ),
        status=NodeLoanStatus(**fields),
    )


def back_for(claim: str = "", *, reason: str = "Claimed", recall_class: str = "quick") -> LoanReturn:
    """Why a loan returns: for the claim of that name, or for nobody."""
    reference = ClaimReference(namespace="team", name=claim, uid=f"uid-{claim}") if claim else None
    return LoanReturn.model_validate(
        {"reason": reason, "message": "wanted", "recall_class": recall_class, "claim": reference}
    )


def claim(
    name: str = "c1",
    *,
    nodes: int | None = 1,
    gpus: int | None = None,
    pool_name: str = "batch",
    priority_class_name: str | None = "high",
    recall_class: str = "quick",
    ttl_seconds: int | None = None,
    holder: str = "",
    automatic: bool = False,
    created: datetime | None = None,
    deleted: datetime | None = None,
    owners: tuple[OwnerReference, ...] = (),
    status: CapacityClaimStatus | None = None,
    **spec: Any,
) -> CapacityClaim:
    """An explicit claim, or with `holder` the claim for the pods of that ReplicaSet; `spec` has its rarer fields."""
    reference = {"api_version": "apps/v1", "kind": "ReplicaSet", "name": holder, "uid": f"uid-{holder}"}
    return CapacityClaim(
        metadata=Metadata(
            name=name,
            namespace="team",
            uid=f"uid-{name}",
            resource_version="1",
            generation=1,
            creation_timestamp=created or ago(30),
            deletion_timestamp=deleted,
            labels={CLAIM_LABEL: f"uid-{holder}"} if automatic else {},
            owner_references=owners or ((OwnerReference.model_validate(reference),) if automatic else ()),
        ),
        spec=CapacityClaimSpec.model_validate(
            {
                "pool_name": pool_name,
                "nodes": None if gpus else nodes,
                "gpus": gpus,
                "holder_ref": reference if holder else None,
                "priority_class_name": priority_class_name,
                "recall_class": recall_class,
                "ttl_seconds": ttl_seconds,
                **spec,
            }
        ),
        status=status or CapacityClaimStatus(),
    )


def slurm_node(
    name: str = "gpu-1",
    *states: str,
    loan: str | None = None,
    extra: str | None = None,
    reason: str = "",
    gpus: int = 8,
    gpus_used: int = 0,
    cpus: int = 60,
    cpus_used: int = 0,
    memory_mib: int = 500_000,
    partitions: tuple[str, ...] = ("lent",),
    last_busy: datetime | None = None,
) -> SlurmNode:
    """The record that a node's first loan registered, idle."""
    return SlurmNode(
        name=name,
        states=frozenset(states or ("IDLE", "DYNAMIC_NORM")),
        reason=reason,
        extra=extra if extra is not None else extra_of(loan or f"{name}-1"),
        features=("lent",),
        partitions=partitions,
        gpus=gpus,
        gpus_used=gpus_used,
        cpus=cpus,
        cpus_used=cpus_used,
        memory_mib=memory_mib,
        last_busy=last_busy,
    )


def job(
    job_id: int = 1,
    *,
    on: str | Sequence[str] = (),
    states: Iterable[str] = (),
    gpus: int = 8,
    cpus: int = 8,
    started: datetime | None = None,
    **more: Any,
) -> SlurmJob:
    """A job that runs `on` these nodes, or a pending one of the pool's partition."""
    nodes = (on,) if isinstance(on, str) else tuple(on)
    return SlurmJob(
        job_id=job_id,
        user=more.pop("user", "ada"),
        states=frozenset(states or (("RUNNING",) if nodes else ("PENDING",))),
        partitions=more.pop("partitions", ("lent",)),
        nodes=nodes,
        node_count=more.pop("node_count", max(len(nodes), 1)),
        cpus=cpus,
        gpus=gpus,
        start_time=started or (ago(1000) if nodes else None),
        **more,
    )


def slurm(
    *parts: SlurmNode | SlurmJob | SlurmReservation,
    observed: datetime | None = NOW,
    capabilities: Iterable[str] = ("requeue",),
    partitions: Iterable[str] = ("lent",),
    node_sets: Mapping[str, str] | None = None,
    error: str = "",
    reason: str = "",
) -> SlurmState:
    """A fresh, complete observation of Slurm with these nodes, jobs and reservations."""
    return SlurmState(
        observed=observed,
        error=error,
        reason=reason,
        release="24.11.5",
        data_parser="v0.0.41",
        capabilities=frozenset(capabilities),
        partitions=frozenset(partitions),
        node_sets={name: frozenset(sets.split(",")) for name, sets in (node_sets or {}).items()},
        nodes={part.name: part for part in parts if isinstance(part, SlurmNode)},
        jobs={part.job_id: part for part in parts if isinstance(part, SlurmJob)},
        reservations={part.name: part for part in parts if isinstance(part, SlurmReservation)},
    )


def cluster(
    name: str = "slurm", *, poll_seconds: int = 5, priorities: Iterable[Mapping[str, Any]] = ()
) -> SlurmCluster:
    """The SlurmCluster that pools lend to; `priorities` in the words of the resource."""
    return SlurmCluster(
        metadata=Metadata(name=name, uid=f"uid-{name}", resource_version="1", generation=1),
        spec=SlurmClusterSpec(
            endpoint="http://slurmrestd:6820",
            credentials_secret_name="slurm",
            controller_address="slurm:6817",
            poll_seconds=poll_seconds,
            priorities=tuple(JobPriority.model_validate(entry) for entry in priorities),
        ),
    )


def snapshot(
    *things: Node
    | Pod
    | BatchPool
    | NodeLoan
    | CapacityClaim
    | InferenceService
    | SlurmCluster
    | SlurmState
    | DisruptionBudget,
    idle_since: Mapping[str, datetime] | None = None,
    priority_classes: Mapping[str, int] | None = None,
    default_priority_class: str = "",
    template_problems: Mapping[str, str] | None = None,
    namespaces: Mapping[str, Mapping[str, str]] | None = None,
    waiting_since: Mapping[str, datetime] | None = None,
    told: Iterable[str] = (),
    owners: Mapping[str, tuple[Owner, ...]] | None = None,
    parts: Mapping[str, Part] | None = None,
    service_problems: Mapping[str, str] | None = None,
    refusals: Mapping[str, Refusal] | None = None,
    gate_image: str = "tidegate:1",
) -> Snapshot:
    """A world of these things; beside them one pool, one SlurmCluster and a Slurm that answers. Nodes idle for long.

    Pods wait for a minute. All controllers of pods are at the top unless `owners` says what was read.
    """
    nodes = {thing.name: thing for thing in things if isinstance(thing, Node)}
    pools = tuple(thing for thing in things if isinstance(thing, BatchPool)) or (pool(),)
    clusters = [thing for thing in things if isinstance(thing, SlurmCluster)] or [cluster()]
    pods = tuple(thing for thing in things if isinstance(thing, Pod))
    state = next((thing for thing in things if isinstance(thing, SlurmState)), slurm())
    return Snapshot(
        nodes=nodes,
        pods=pods,
        pools=pools,
        clusters={one.metadata.name: one for one in clusters},
        slurm={clusters[0].metadata.name: state},
        loans=tuple(thing for thing in things if isinstance(thing, NodeLoan)),
        claims=tuple(thing for thing in things if isinstance(thing, CapacityClaim)),
        priority_classes={"low": -200, "high": 1000, **(priority_classes or {})},
        default_priority_class=default_priority_class,
        waiting_since={pod.uid: ago(60) for pod in pods} if waiting_since is None else waiting_since,
        told=frozenset(told),
        namespaces=namespaces or {},
        owners={pod.owner.uid: () for pod in pods} if owners is None else owners,
        disruption_budgets=tuple(thing for thing in things if isinstance(thing, DisruptionBudget)),
        idle_since=dict.fromkeys(nodes, ago(10_000)) if idle_since is None else idle_since,
        template_problems=template_problems or {},
        services=tuple(thing for thing in things if isinstance(thing, InferenceService)),
        parts=parts or {},
        service_problems=service_problems or {},
        refusals=refusals or {},
        gate_image=gate_image,
    )


def index(*things: Any, now: datetime = NOW, **more: Any) -> Index:
    """The Index of such a world."""
    return Index(snapshot(*things, **more), now)


def decided(*things: Any, now: datetime = NOW, **more: Any) -> list[Command]:
    """What is decided in such a world."""
    return decide(snapshot(*things, **more), now)


def only(commands: Iterable[Command], kind: type[C]) -> list[C]:
    """The commands of that kind."""
    return [command for command in commands if isinstance(command, kind)]


def one(commands: Iterable[Command], kind: type[C]) -> C:
    """The one command of that kind."""
    found = only(commands, kind)
    assert len(found) == 1, f"{len(found)} x {kind.__name__} in {[type(c).__name__ for c in commands]}"
    return found[0]


def names(commands: Iterable[Command]) -> list[str]:
    """The kinds of the commands, in order."""
    return [type(command).__name__ for command in commands]

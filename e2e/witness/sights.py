"""What the witness saw at one moment, as small values made from the raw JSON of both sides."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

FENCE = "tidegate.dev/fence"
LOAN_LABEL = "tidegate.dev/loan"
CLAIM_FENCE = "claim_"
OUR_DRAIN = "tidegate:"

Json = Mapping[str, Any]

_OPEN = frozenset({"IDLE", "MIXED", "ALLOCATED"})
_SHUT = frozenset({"DRAIN", "DRAINING", "DRAINED", "DOWN", "FAIL", "INVAL", "INVALID", "INVALID_REG", "NOT_RESPONDING"})
_HOLDING = frozenset({"RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"})


@dataclass(frozen=True)
class Taint:
    """A taint of a Node."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True)
class KubeNode:
    """A Node of Kubernetes."""

    name: str
    resource_version: str
    taints: tuple[Taint, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    cordoned: bool = False
    gpus: int = 0

    @property
    def fence(self) -> str | None:
        """The value of Tidegate's taint."""
        return next((t.value for t in self.taints if t.key == FENCE and t.effect == "NoSchedule"), None)

    @property
    def is_open(self) -> bool:
        """Whether kube-scheduler may put anybody's GPU pod here."""
        return self.fence is None and not self.cordoned


@dataclass(frozen=True)
class KubePod:
    """A Pod that is bound to a node; `tolerated` are the fence values it tolerates, `*` for all."""

    key: str
    uid: str
    node: str
    phase: str
    gpus: int = 0
    loan: str = ""
    tolerated: frozenset[str] = frozenset()

    @property
    def is_foreign_gpu_pod(self) -> bool:
        """Somebody else's pod that holds GPUs."""
        return self.gpus > 0 and not self.loan and self.phase not in ("Succeeded", "Failed")

    def tolerates(self, fence: str) -> bool:
        """Whether the pod may pass a fence of that value."""
        return "*" in self.tolerated or fence in self.tolerated


@dataclass(frozen=True)
class Loan:
    """A NodeLoan: where, whether it is wanted back, and what it says about jobs (id to action)."""

    name: str
    node: str
    slurm_node: str
    wanted_back: bool = False
    jobs: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """A CapacityClaim by UID; `over` when it was served, expired or is being deleted. Asks for nodes, or for GPUs."""

    uid: str
    key: str
    over: bool = False
    nodes: int = 1
    gpus: int = 0


@dataclass(frozen=True)
class KubeSight:
    """Kubernetes at one moment. Nodes were read first and claims last."""

    nodes: Mapping[str, KubeNode] = field(default_factory=dict)
    pods: tuple[KubePod, ...] = ()
    loans: Mapping[str, Loan] = field(default_factory=dict)
    claims: Mapping[str, Claim] = field(default_factory=dict)


@dataclass(frozen=True)
class SlurmNode:
    """A node record of Slurm."""

    name: str
    states: frozenset[str]
    reason: str = ""
    comment: str = ""
    extra: str = ""

    @property
    def is_open(self) -> bool:
        """Whether slurmctld may start a job here."""
        return bool(self.states & _OPEN) and not self.states & _SHUT

    @property
    def foreign_drain(self) -> str | None:
        """The reason of a drain that is not Tidegate's; None when there is no such drain."""
        return self.reason if "DRAIN" in self.states and not self.reason.startswith(OUR_DRAIN) else None


@dataclass(frozen=True)
class SlurmJob:
    """A job, whether it waits, runs or is over."""

    job_id: int
    states: frozenset[str]
    nodes: frozenset[str] = frozenset()
    requeueable: bool = True
    signal: int = 0
    """The signal that ended it, 0 for none."""
    restarts: int = 0
    reason: str = ""

    @property
    def holds_nodes(self) -> bool:
        """Whether something of it is on its nodes."""
        return bool(self.states & _HOLDING)


@dataclass(frozen=True)
class SlurmSight:
    """Slurm at one moment."""

    nodes: Mapping[str, SlurmNode] = field(default_factory=dict)
    jobs: Mapping[int, SlurmJob] = field(default_factory=dict)

    def jobs_on(self, node: str) -> list[SlurmJob]:
        """Jobs that have something on the node."""
        return [job for job in self.jobs.values() if job.holds_nodes and node in job.nodes]


@dataclass(frozen=True)
class Moment:
    """One look: Kubernetes, then Slurm, then Kubernetes again."""

    time: datetime
    before: KubeSight
    slurm: SlurmSight
    after: KubeSight

    def unchanged_nodes(self) -> list[KubeNode]:
        """Nodes to which nothing happened while Slurm was read."""
        return [
            node
            for name, node in self.after.nodes.items()
            if name in self.before.nodes and self.before.nodes[name].resource_version == node.resource_version
        ]

    def slurm_name(self, node: str) -> str:
        """What a node is called in Slurm: as its loans say, or the first part of its own name."""
        return next(
            (loan.slurm_node for loan in self.after.loans.values() if loan.node == node), node.partition(".")[0]
        )


# --- from raw JSON ----------------------------------------------------------------------------------------------------


def kube_node(raw: Json) -> KubeNode:
    """A Node as the API server writes it."""
    meta, spec = raw["metadata"], raw.get("spec") or {}
    return KubeNode(
        name=meta["name"],
        resource_version=meta["resourceVersion"],
        taints=tuple(Taint(t["key"], t.get("value") or "", t["effect"]) for t in spec.get("taints") or ()),
        labels=meta.get("labels") or {},
        annotations=meta.get("annotations") or {},
        cordoned=bool(spec.get("unschedulable")),
        gpus=_gpus((raw.get("status") or {}).get("allocatable") or {}),
    )


def kube_pod(raw: Json) -> KubePod:
    """A Pod as the API server writes it."""
    meta, spec = raw["metadata"], raw["spec"]
    return KubePod(
        key=f"{meta['namespace']}/{meta['name']}",
        uid=meta["uid"],
        node=spec.get("nodeName") or "",
        phase=(raw.get("status") or {}).get("phase", "Pending"),
        gpus=sum(_gpus((one.get("resources") or {}).get("limits") or {}) for one in spec.get("containers") or ()),
        loan=(meta.get("labels") or {}).get(LOAN_LABEL, ""),
        tolerated=frozenset(_tolerated(t) for t in spec.get("tolerations") or () if _concerns_fence(t)),
    )


def _gpus(amounts: Json) -> int:
    return sum(int(amount) for name, amount in amounts.items() if name.endswith("/gpu"))


def _concerns_fence(toleration: Json) -> bool:
    key, effect = toleration.get("key") or "", toleration.get("effect") or ""
    everything = not key and toleration.get("operator") == "Exists"
    return (everything or key == FENCE) and effect in ("", "NoSchedule")


def _tolerated(toleration: Json) -> str:
    return "*" if toleration.get("operator") == "Exists" else str(toleration.get("value") or "")


def loan(raw: Json) -> Loan:
    """A NodeLoan as the API server writes it."""
    meta, spec = raw["metadata"], raw["spec"]
    return Loan(
        name=meta["name"],
        node=spec["nodeName"],
        slurm_node=spec["slurmNodeName"],
        wanted_back=spec.get("wanted") == "Returned" or "deletionTimestamp" in meta,
        jobs={job["jobId"]: job["action"] for job in (raw.get("status") or {}).get("jobs") or ()},
    )


def claim(raw: Json) -> Claim:
    """A CapacityClaim as the API server writes it."""
    meta = raw["metadata"]
    conditions = {c["type"]: c for c in (raw.get("status") or {}).get("conditions") or ()}
    satisfied, expired = conditions.get("Satisfied", {}), conditions.get("Expired", {})
    served = satisfied.get("status") == "True" and satisfied.get("reason") == "Served"
    return Claim(
        uid=meta["uid"],
        key=f"{meta['namespace']}/{meta['name']}",
        over=served or expired.get("status") == "True" or "deletionTimestamp" in meta,
        nodes=(raw.get("spec") or {}).get("nodes", 1),
        gpus=(raw.get("spec") or {}).get("gpus", 0),
    )


def slurm_node(raw: Json) -> SlurmNode:
    """A node as slurmrestd writes it."""
    return SlurmNode(
        name=raw["name"],
        states=frozenset(raw["state"]),
        reason=raw.get("reason") or "",
        comment=raw.get("comment") or "",
        extra=raw.get("extra") or "",
    )


def slurm_job(raw: Json) -> SlurmJob:
    """A job as slurmrestd writes it."""
    signal = ((raw.get("exit_code") or {}).get("signal") or {}).get("id") or {}
    return SlurmJob(
        job_id=raw["job_id"],
        states=frozenset(raw["job_state"]),
        nodes=frozenset(hostnames(raw.get("nodes") or "")),
        requeueable=bool(raw.get("requeue")),
        signal=int(signal.get("number") or 0) if signal.get("set") else 0,
        restarts=int(raw.get("restart_cnt") or 0),
        reason=raw.get("state_reason") or "",
    )


def hostnames(expression: str) -> list[str]:
    """The names in a list such as `gpu[1-3,07],login`."""
    names: list[str] = []
    for part in re.findall(r"[^,\[]+(?:\[[^\]]*\][^,\[]*)?", expression):
        found = re.fullmatch(r"([^\[]*)\[([^\]]*)\](.*)", part)
        if found is None:
            names.append(part)
            continue
        head, ranges, tail = found.groups()
        for piece in ranges.split(","):
            low, _, high = piece.partition("-")
            numbers = range(int(low), int(high or low) + 1)
            names += [f"{head}{number:0{len(low)}d}{tail}" for number in numbers]
    return names

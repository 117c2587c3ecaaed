"""A world in which every decision has its effect at once, so that only who gets which node shows, and in what order.

Jobs that lose their nodes queue again, pods that lose their nodes are made again, and both
schedulers place what fits. Each node holds one thing at a time, because each thing takes whole nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from tests.sharing.build import (
    NOW,
    RETURNED,
    claim,
    cluster,
    job,
    lent_node,
    loan,
    node,
    pod,
    pool,
    slurm,
    slurm_node,
    slurmd,
    snapshot,
)
from tidegate.api import CapacityClaim, NodeLoan, TakenFor
from tidegate.api.names import FENCE_TAINT, claim_fence
from tidegate.sharing.commands import (
    Command,
    CreateClaim,
    CreateLoan,
    ForgetClaim,
    FreeNode,
    HoldNode,
    RecallLoan,
    ResizeClaim,
    TolerateFence,
    WriteClaimStatus,
)
from tidegate.sharing.snapshot import Snapshot, Toleration

STEP_SECONDS = 10
CLASSES = {"low": 100, "mid": 300, "high": 600}
QOS = {"urgent": 500, "soon": 200}
NOTHING = -(10**9)
"""What a free node is worth, on the line of priorities."""


@dataclass
class Job:
    """A job that never ends."""

    job_id: int
    nodes: int
    qos: str
    rank: int = 0
    """Slurm's own priority, which need not agree with what the job is worth."""
    on: tuple[str, ...] = ()

    @property
    def priority(self) -> int:
        """On the number line; jobs of no mapped QOS come last."""
        return QOS.get(self.qos, NOTHING)


@dataclass
class Replica:
    """A pod that takes a node; when it loses it, its controller makes the next one."""

    app: str
    number: int
    priority_class: str
    on: str = ""
    tolerates: set[str] = field(default_factory=set)
    lives: int = 0

    @property
    def name(self) -> str:
        return f"{self.app}-{self.number}-{self.lives}"


@dataclass(frozen=True)
class Move:
    """A node that changed hands: for a claim over a loan, for a job over pods, or by the pool's terms."""

    node: str
    why: str

    @property
    def takes(self) -> bool:
        """Whether somebody had to give the node up for somebody else."""
        return self.why in ("claim", "job")


@dataclass
class SwiftWorld:
    """Nodes of one pool, and who holds them."""

    names: tuple[str, ...]
    lending: dict[str, Any]
    decide: Callable[[Snapshot, datetime], list[Command]]
    pool_priority: int = -100
    now: datetime = NOW
    jobs: list[Job] = field(default_factory=list)
    replicas: list[Replica] = field(default_factory=list)
    claims: dict[str, CapacityClaim] = field(default_factory=dict)
    loans: dict[str, NodeLoan] = field(default_factory=dict)
    past: list[NodeLoan] = field(default_factory=list)
    held: dict[str, str] = field(default_factory=dict)

    def add(self, thing: Job | Replica | CapacityClaim) -> None:
        """Something that wants nodes."""
        match thing:
            case Job():
                self.jobs.append(thing)
            case Replica():
                self.replicas.append(thing)
            case CapacityClaim():
                self.claims[thing.metadata.uid] = thing

    def pass_window(self) -> None:
        """So much time that no loan of before counts as a flap."""
        self.now += timedelta(days=2)

    # --- what everything is worth

    def worth(self, name: str) -> int:
        """The priority of the work that has the node, or for which it is kept."""
        here = [NOTHING]
        if one := self.loans.get(name):
            here += [one.spec.priority, *(job.priority for job in self.jobs if name in job.on)]
            if (why := one.spec.taken_for) and any(job.job_id == why.job_id and not job.on for job in self.jobs):
                here.append(why.priority)
        if (uid := self.held.get(name)) and uid in self.claims:
            here.append(self.priority_of(self.claims[uid]))
        here += [CLASSES[replica.priority_class] for replica in self.replicas if replica.on == name]
        return max(here)

    def priority_of(self, one: CapacityClaim) -> int:
        """What the claim's class is worth."""
        return CLASSES[one.spec.priority_class_name or "low"]

    def measure(self) -> tuple[int, ...]:
        """What all nodes are worth, the most important first: compared like words, this only ever grows."""
        return tuple(sorted(map(self.worth, self.names), reverse=True))

    # --- one step

    def step(self) -> list[Move]:
        """Decide, let it have its effect, and let both schedulers place what waits. What changed hands."""
        self.now += timedelta(seconds=STEP_SECONDS)
        moves = [move for command in self.decide(self.snapshot(), self.now) if (move := self._apply(command))]
        self._slurm_starts_jobs()
        self._kubernetes_binds_pods()
        return moves

    def _apply(self, command: Command) -> Move | None:
        match command:
            case CreateLoan():
                return self._lend(command)
            case RecallLoan():
                return self._recall(command)
            case HoldNode():
                assert not self._is_taken(command.node.name)
                self.held[command.node.name] = command.claim_uid
                return Move(command.node.name, "hold")
            case FreeNode():
                del self.held[command.node.name]
                return Move(command.node.name, "free")
            case CreateClaim():
                self._automatic(command)
            case ResizeClaim():
                self._change(command.claim, nodes=command.nodes)
            case WriteClaimStatus():
                one = self.claims[command.claim.metadata.uid]
                self.claims[one.metadata.uid] = one.model_copy(update={"status": command.status})
            case ForgetClaim():
                del self.claims[command.claim.metadata.uid]
            case TolerateFence():
                next(one for one in self.replicas if one.name == command.pod.name).tolerates.add(command.claim_uid)
        return None

    def _lend(self, command: CreateLoan) -> Move:
        name, spec = command.spec.node_name, command.spec
        taken = spec.taken_for
        for one in self.replicas:
            if one.on == name:
                assert taken, f"{name} was lent although {one.name} runs there"
                one.on, one.lives, one.tolerates = "", one.lives + 1, set()
        assert name not in self.loans
        assert name not in self.held
        self.loans[name] = self._loan(command.name, name, spec.priority, taken)
        return Move(name, "job" if taken else "lend")

    def _loan(self, name: str, on: str, priority: int, taken: TakenFor | None) -> NodeLoan:
        return loan(on, name=name, created=self.now, since=self.now, priority=priority, taken_for=taken)

    def _recall(self, command: RecallLoan) -> Move:
        name = command.loan.spec.node_name
        gone = self.loans.pop(name)
        self.past.append(loan(name, name=gone.metadata.name, done=RETURNED, created=gone.metadata.creation_timestamp))
        for one in self.jobs:
            if name in one.on:
                one.on = ()
        if command.back.claim is None:
            return Move(name, command.back.reason)
        self.held[name] = command.back.claim.uid
        return Move(name, "claim")

    def _automatic(self, command: CreateClaim) -> None:
        made = claim(
            command.name,
            nodes=command.spec.nodes,
            priority_class_name=command.spec.priority_class_name,
            holder=command.owner.name,
            automatic=True,
            created=self.now,
        )
        self.claims[made.metadata.uid] = made

    def _change(self, one: CapacityClaim, **spec: Any) -> None:
        changed = one.model_copy(update={"spec": one.spec.model_copy(update=spec)})
        self.claims[one.metadata.uid] = changed

    def _is_taken(self, name: str) -> bool:
        return name in self.loans or name in self.held or any(one.on == name for one in self.replicas)

    def _slurm_starts_jobs(self) -> None:
        for one in sorted(self.jobs, key=lambda job: (-job.rank, job.job_id)):
            idle = [name for name in sorted(self.loans) if not any(name in other.on for other in self.jobs)]
            if not one.on and len(idle) >= one.nodes:
                one.on = tuple(idle[: one.nodes])

    def _kubernetes_binds_pods(self) -> None:
        waiting = [one for one in self.replicas if not one.on]
        for one in sorted(waiting, key=lambda replica: -CLASSES[replica.priority_class]):
            for name in self.names:
                if name in self.loans or any(other.on == name for other in self.replicas):
                    continue
                if name not in self.held or self.held[name] in one.tolerates:
                    one.on = name
                    break

    # --- what a decision sees

    def snapshot(self) -> Snapshot:
        things: list[Any] = []
        for name in self.names:
            if one := self.loans.get(name):
                things += [lent_node(name, loan=one.metadata.name), one, slurmd(one.metadata.name, on=name)]
            else:
                things.append(node(name, fence=claim_fence(self.held[name]) if name in self.held else None))
        things += [*self.past, *self.claims.values(), *map(self._pod, self.replicas)]
        things.append(cluster(priorities=[{"qos": qos, "priority": worth} for qos, worth in QOS.items()]))
        things.append(pool(lending=self.lending, priority=self.pool_priority))
        things.append(slurm(*self._records(), *map(self._job, self.jobs), observed=self.now))
        return snapshot(*things, priority_classes=CLASSES)

    def _pod(self, one: Replica) -> Any:
        tolerations = [Toleration(FENCE_TAINT, "Equal", claim_fence(uid), "NoSchedule") for uid in one.tolerates]
        worth = CLASSES[one.priority_class]
        return pod(
            one.name, on=one.on, gpus=8, owner=one.app, priority=worth, priority_class_name=one.priority_class,
            tolerations=tolerations,
        )  # fmt: skip

    def _records(self) -> Iterable[Any]:
        for name, one in self.loans.items():
            busy = any(name in job.on for job in self.jobs)
            record = slurm_node(
                name,
                "ALLOCATED" if busy else "IDLE",
                loan=one.metadata.name,
                gpus_used=8 if busy else 0,
                last_busy=self.now if busy else None,
            )
            yield record

    def _job(self, one: Job) -> Any:
        seen = job(one.job_id, on=one.on, node_count=one.nodes, gpus=8 * one.nodes, started=self.now, qos=one.qos)
        return replace(seen, priority=one.rank)

"""A Slurm in memory: a controller, and slurmds and jobs that move on only when a test calls `tick`.

It is faithful where Tidegate's promises rest on Slurm: what DRAIN, DOWN, requeue, signal and delete do to jobs,
COMPLETING, dynamic records that outlive their slurmd, and releases with and without requeue. Contract tests hold it to
real ones.
Nothing in it waits, so that property tests can drive it fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from tidegate.api.names import DRAIN_REASON_PREFIX
from tidegate.sharing.snapshot import SlurmJob, SlurmNode, SlurmReservation, SlurmState
from tidegate.slurm.api import REQUEUE, RESERVATION, SIGNALS
from tidegate.slurm.errors import Busy, Rejected, Unreachable

OnSignal = Literal["ignores", "checkpoints", "exits"]
"""What a job does with a signal: nothing, save its work and go on, or save its work and end well."""

_SINCE = {REQUEUE: (26, 5), RESERVATION: (25, 5)}


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job, for the books: `end_state` is COMPLETED, TIMEOUT, REQUEUED, CANCELLED or NODE_FAIL."""

    nodes: tuple[str, ...]
    start: datetime
    end: datetime
    end_state: str
    lost_seconds: float
    """Work that a later run has to repeat, or that is gone."""


@dataclass(slots=True)
class Job:
    """A job and all that its owner asked for."""

    job_id: int
    user: str
    partition: str
    node_count: int
    gpus_per_node: int
    cpus_per_node: int
    memory_mib_per_node: int
    duration_seconds: float
    time_limit_seconds: float | None
    requeueable: bool
    exclusive: bool
    constraints: tuple[str, ...]
    comment: str
    priority: int
    on_signal: OnSignal
    eligible: datetime
    array_tasks: int = 1
    qos: str = "normal"
    restarts: int = 0
    state: str = "PENDING"
    """PENDING, RUNNING, or how it ended: COMPLETED, TIMEOUT, CANCELLED, NODE_FAIL."""
    nodes: tuple[str, ...] = ()
    """Held from the start until COMPLETING is over."""
    start: datetime | None = None
    completing_until: datetime | None = None
    saved_seconds: float = 0.0
    """Work of earlier runs that a next run need not repeat."""
    checkpoint: datetime | None = None
    """When this run last saved its work."""
    signals: list[str] = field(default_factory=list)

    @property
    def holds_nodes(self) -> bool:
        """Whether it runs or is cleaned up."""
        return bool(self.nodes)


@dataclass(slots=True)
class Node:
    """A node record; `alive` tells whether a slurmd answers behind it."""

    name: str
    gpus: int
    cpus: int
    memory_mib: int
    features: tuple[str, ...]
    extra: str
    comment: str
    alive: bool = True
    drained: bool = False
    down: bool = False
    reason: str = ""
    last_busy: datetime | None = None


class FakeSlurm:
    """`SlurmApi` in memory.

    `partitions` maps each partition to the features of its nodes (one of them is enough). From 25.05 on a `release`
    takes reservations, from 26.05 on it can requeue single jobs. A job that ends is COMPLETING for
    `completing_seconds`; a requeued one may start again after `requeue_delay_seconds` (Slurm's own default is 120).
    """

    def __init__(
        self,
        clock: Callable[[], datetime],
        *,
        release: str = "26.05",
        partitions: Mapping[str, tuple[str, ...]] | None = None,
        completing_seconds: float = 1.0,
        requeue_delay_seconds: float = 5.0,
    ) -> None:
        self._clock = clock
        self.release = release
        self.partitions = dict(partitions or {"lent": ("lent",)})
        self.completing_seconds = completing_seconds
        self.requeue_delay_seconds = requeue_delay_seconds
        self.nodes: dict[str, Node] = {}
        self.jobs: dict[int, Job] = {}
        """All jobs ever, by id."""
        self.history: dict[int, list[Run]] = {}
        """The books: every ended run of each job."""
        self.reservations: dict[str, SlurmReservation] = {}
        self.unreachable = False
        """No answer, and nothing happens."""
        self.loses_answers = False
        """Too slow: what was asked happens, but the caller has given up waiting."""
        self.errors = ""
        """While set, every answer is HTTP 200 with these words in `errors`, and nothing happens."""

    # -- the world around it --------------------------------------------------------------------------------------

    def register(
        self,
        name: str,
        *,
        gpus: int = 2,
        cpus: int = 8,
        memory_mib: int = 60000,
        features: tuple[str, ...] = ("lent",),
        extra: str = "",
        comment: str = "",
        drained: str = "",
    ) -> None:
        """A slurmd starts and registers, for the first time drained if it gives a reason to be.

        A record that exists stays drained if it was, and is no longer DOWN.
        """
        old = self.nodes.get(name)
        if old and not old.alive:
            self._end_all_on(old)
        self.nodes[name] = Node(name, gpus, cpus, memory_mib, features, extra, comment)
        self.nodes[name].drained, self.nodes[name].reason = bool(drained), drained
        if old:
            self.nodes[name].drained, self.nodes[name].reason = old.drained, old.reason

    def alive(self) -> set[str]:
        """Names of the nodes whose slurmd runs and is known."""
        return {name for name, node in self.nodes.items() if node.alive}

    def slurmd_dies(self, name: str) -> None:
        """The node's slurmd is gone, its jobs with it; Slurm has noticed and set it DOWN. The record stays."""
        node = self.nodes[name]
        node.alive = False
        node.down = True
        node.reason = node.reason or "Not responding"
        self._end_all_on(node)

    def admin_drains(self, name: str, reason: str) -> None:
        """Somebody else takes the node out of service."""
        self.nodes[name].drained, self.nodes[name].reason = True, reason

    def admin_resumes(self, name: str) -> None:
        """Somebody puts the node back into service."""
        self.nodes[name].drained, self.nodes[name].reason = False, ""

    def submit(
        self,
        *,
        user: str = "alice",
        partition: str = "lent",
        nodes: int = 1,
        gpus_per_node: int = 1,
        cpus_per_node: int = 1,
        memory_mib_per_node: int = 0,
        duration_seconds: float = 60.0,
        time_limit_seconds: float | None = None,
        requeueable: bool = True,
        exclusive: bool = False,
        constraints: tuple[str, ...] = (),
        comment: str = "",
        priority: int = 0,
        on_signal: OnSignal = "ignores",
        array_tasks: int = 1,
        qos: str = "normal",
    ) -> int:
        """A user submits a batch job, or an array of `array_tasks`; a `tick` may start it. Returns its id."""
        job = Job(
            max(self.jobs, default=0) + 1,
            user,
            partition,
            nodes,
            gpus_per_node,
            cpus_per_node,
            memory_mib_per_node,
            duration_seconds,
            time_limit_seconds,
            requeueable,
            exclusive,
            constraints,
            comment,
            priority,
            on_signal,
            self._clock(),
            array_tasks,
            qos,
        )
        self.jobs[job.job_id] = job
        self.history[job.job_id] = []
        return job.job_id

    def tick(self) -> None:
        """Slurm's own work up to now: jobs and clean-ups end, slurmds register again, what fits starts."""
        now = self._clock()
        for job in list(self.jobs.values()):
            if job.state == "RUNNING" and job.start:
                self._end_if_due(job, job.start, now)
            if job.completing_until and now >= job.completing_until:
                job.completing_until, job.nodes = None, ()
        for node in self.nodes.values():
            if self._on(node.name):
                node.last_busy = now
            if node.alive and not self._on(node.name):
                node.down = False
        self.reservations = {name: r for name, r in self.reservations.items() if now < r.end}
        waiting = [j for j in self.jobs.values() if j.state == "PENDING" and not j.nodes and j.eligible <= now]
        for job in sorted(waiting, key=lambda j: (-j.priority, j.job_id)):
            while (chosen := self._room_for(job)) and self._start(job, chosen, now):
                pass

    # -- SlurmApi -------------------------------------------------------------------------------------------------

    async def observe(self) -> SlurmState:
        """All there is, as one consistent picture."""
        self._receive()
        state = SlurmState(
            observed=self._clock(),
            release=self.release,
            data_parser="v0.0.45" if self._can(REQUEUE) else "v0.0.42",
            capabilities=frozenset(filter(self._can, _SINCE)),
            partitions=frozenset(self.partitions),
            node_sets={name: frozenset(features) for name, features in self.partitions.items()},
            nodes={name: self._node_view(node) for name, node in self.nodes.items()},
            jobs={i: self._job_view(j) for i, j in self.jobs.items() if j.holds_nodes or j.state == "PENDING"},
            reservations=dict(self.reservations),
        )
        self._answer()
        return state

    async def node(self, name: str) -> SlurmNode | None:
        """The record as it is now."""
        self._receive()
        node = self.nodes.get(name)
        view = self._node_view(node) if node else None
        self._answer()
        return view

    async def drain(self, name: str, reason: str) -> None:
        """Nothing new starts on the node; a drain of others keeps their reason."""
        self._receive()
        node = self._known(name)
        if not node.drained or node.reason.startswith(DRAIN_REASON_PREFIX):
            node.drained, node.reason = True, reason
        self._answer()

    async def resume(self, name: str) -> None:
        """The drain is lifted, with its reason."""
        self._receive()
        node = self._known(name)
        if node.drained:
            node.drained, node.reason = False, ""
        self._answer()

    async def down(self, name: str, reason: str) -> None:
        """End or requeue what is on the node."""
        self._receive()
        node = self._known(name)
        if not node.drained or node.reason.startswith(DRAIN_REASON_PREFIX):
            node.reason = reason
        node.drained = node.down = True
        self._end_all_on(node)
        self._answer()

    async def delete_node(self, name: str) -> None:
        """Forget the record; a slurmd behind it goes on unknown."""
        self._receive()
        if name in self.nodes:
            if self._on(name) or self._is_reserved(name):
                raise Busy(f"Slurm cluster fake: node {name} is busy: Requested nodes are busy")
            del self.nodes[name]
        self._answer()

    async def signal_job(self, job_id: int, signal: str) -> None:
        """The job does with it what it was submitted to do."""
        self._receive()
        if signal not in SIGNALS:
            raise Rejected(f"Slurm cluster fake: {signal} is no signal that can be sent to job {job_id}")
        job = self.jobs.get(job_id)
        if job and job.state == "RUNNING":
            job.signals.append(signal)
            if job.on_signal != "ignores":
                job.checkpoint = self._clock()
            if job.on_signal == "exits":
                self._end(job, "COMPLETED", self._clock())
        self._answer()

    async def requeue_job(self, job_id: int) -> None:
        """End the run and put the job back into the queue."""
        self._receive()
        if not self._can(REQUEUE):
            raise Rejected(f"Slurm cluster fake: release {self.release} cannot requeue job {job_id}")
        job = self.jobs.get(job_id)
        if job and job.state == "RUNNING":
            if not job.requeueable:
                raise Rejected(f"Slurm cluster fake: job {job_id}: Requested operation is presently disabled")
            self._end(job, "REQUEUED", self._clock())
        self._answer()

    async def cancel_job(self, job_id: int) -> None:
        """End the job for good."""
        self._receive()
        job = self.jobs.get(job_id)
        if job and job.state == "RUNNING":
            self._end(job, "CANCELLED", self._clock())
        elif job and job.state == "PENDING":
            job.state = "CANCELLED"
            self.history[job_id].append(Run((), self._clock(), self._clock(), "CANCELLED", 0.0))
        self._answer()

    async def reserve(self, reservation: SlurmReservation) -> None:
        """Make a reservation, or change one; the beginning of one that has begun stays."""
        self._receive()
        if not self._can(RESERVATION):
            raise Rejected(f"Slurm cluster fake: release {self.release} takes no reservation by REST")
        known = tuple(name for name in reservation.nodes if name in self.nodes)
        if not known:
            raise Rejected(f"Slurm cluster fake: reservation {reservation.name}: Requested nodes are busy")
        old = self.reservations.get(reservation.name)
        start = old.start if old and old.start <= self._clock() else reservation.start
        self.reservations[reservation.name] = replace(reservation, nodes=known, start=start)
        self._answer()

    async def withdraw(self, reservation_name: str) -> None:
        """End a reservation; one that is gone is fine."""
        self._receive()
        self.reservations.pop(reservation_name, None)
        self._answer()

    async def close(self) -> None:
        """Nothing to let go of."""

    # -- inside ---------------------------------------------------------------------------------------------------

    def _can(self, capability: str) -> bool:
        return tuple(int(part) for part in self.release.split(".")[:2]) >= _SINCE[capability]

    def _receive(self) -> None:
        if self.unreachable:
            raise Unreachable("Slurm cluster fake does not answer")
        if self.errors:
            raise Rejected(f"Slurm cluster fake: {self.errors}")

    def _answer(self) -> None:
        if self.loses_answers:
            raise Unreachable("Slurm cluster fake: no answer within 10 s")

    def _known(self, name: str) -> Node:
        if name not in self.nodes:
            raise Rejected(f"Slurm cluster fake: node {name}: Invalid node name specified")
        return self.nodes[name]

    def _on(self, name: str) -> list[Job]:
        return [job for job in self.jobs.values() if name in job.nodes]

    def _end_if_due(self, job: Job, start: datetime, now: datetime) -> None:
        done = start + timedelta(seconds=max(job.duration_seconds - job.saved_seconds, 0.0))
        limit = None if job.time_limit_seconds is None else start + timedelta(seconds=job.time_limit_seconds)
        if limit and limit < done and limit <= now:
            self._end(job, "TIMEOUT", limit)
        elif done <= now:
            self._end(job, "COMPLETED", done)

    def _start(self, job: Job, chosen: tuple[str, ...], now: datetime) -> bool:
        """Start the job, or the next task of an array. Returns whether tasks are left to start."""
        running, more = job, job.array_tasks > 1
        if more:
            # as in Slurm, a started task gets an id of its own; the last one keeps the array's
            job.array_tasks -= 1
            started = self.submit(on_signal=job.on_signal, duration_seconds=job.duration_seconds)
            running = self.jobs[started]
            for name in Job.__slots__:
                if name not in ("job_id", "array_tasks", "signals"):
                    setattr(running, name, getattr(job, name))
        running.state, running.nodes, running.start, running.checkpoint = "RUNNING", chosen, now, None
        return more

    def _end(self, job: Job, end_state: str, moment: datetime) -> None:
        """The run is over; its nodes are cleaned up for a while."""
        self._close_run(job, end_state, moment)
        job.completing_until = self._clock() + timedelta(seconds=self.completing_seconds)

    def _end_all_on(self, node: Node) -> None:
        """DOWN: jobs end at once, without COMPLETING; what may be requeued waits again."""
        for job in self._on(node.name):
            if job.state == "RUNNING":
                self._close_run(job, "REQUEUED" if job.requeueable else "NODE_FAIL", self._clock())
            job.nodes, job.completing_until = (), None

    def _close_run(self, job: Job, end_state: str, moment: datetime) -> None:
        assert job.start is not None
        saved = (job.checkpoint - job.start).total_seconds() if job.checkpoint else 0.0
        done = (moment - job.start).total_seconds()
        lost = 0.0 if end_state == "COMPLETED" else done - saved
        self.history[job.job_id].append(Run(job.nodes, job.start, moment, end_state, lost))
        job.saved_seconds += saved
        job.start = job.checkpoint = None
        job.state = end_state
        if end_state == "REQUEUED":
            job.state = "PENDING"
            job.restarts += 1
            job.eligible = self._clock() + timedelta(seconds=self.requeue_delay_seconds)

    def _room_for(self, job: Job) -> tuple[str, ...]:
        """Nodes for the job, or none while it does not fit."""
        fitting = [name for name, node in sorted(self.nodes.items()) if self._takes(node, job)]
        return tuple(fitting[: job.node_count]) if len(fitting) >= job.node_count else ()

    def _takes(self, node: Node, job: Job) -> bool:
        features = self.partitions.get(job.partition, ())
        there = self._on(node.name)
        return (
            node.alive
            and not (node.drained or node.down)
            and not self._runs_into_reservation(node, job)
            and bool(set(features) & set(node.features))
            and set(job.constraints) <= set(node.features)
            and not any(other.exclusive or other.completing_until for other in there)
            and not (job.exclusive and there)
            and node.gpus - sum(other.gpus_per_node for other in there) >= job.gpus_per_node
            and node.cpus - sum(other.cpus_per_node for other in there) >= job.cpus_per_node
            and node.memory_mib - sum(other.memory_mib_per_node for other in there) >= job.memory_mib_per_node
        )

    def _is_reserved(self, name: str) -> bool:
        return any(name in r.nodes and r.start <= self._clock() < r.end for r in self.reservations.values())

    def _runs_into_reservation(self, node: Node, job: Job) -> bool:
        now, limit = self._clock(), job.time_limit_seconds
        ours = (r for r in self.reservations.values() if node.name in r.nodes and now < r.end)
        return any(limit is None or now + timedelta(seconds=limit) > r.start for r in ours)

    def _node_view(self, node: Node) -> SlurmNode:
        there = self._on(node.name)
        running = [job for job in there if job.state == "RUNNING"]
        cpus = node.cpus if any(job.exclusive for job in running) else sum(job.cpus_per_node for job in running)
        base = "DOWN" if node.down else "IDLE" if not running else "ALLOCATED" if cpus >= node.cpus else "MIXED"
        flags = {
            "DRAIN": node.drained,
            "COMPLETING": any(job.completing_until for job in there),
            "NOT_RESPONDING": not node.alive,
            "DYNAMIC_NORM": True,
            "RESERVED": self._is_reserved(node.name),
        }
        return SlurmNode(
            name=node.name,
            states=frozenset({base, *(flag for flag, holds in flags.items() if holds)}),
            reason=node.reason,
            extra=node.extra,
            comment=node.comment,
            features=node.features,
            partitions=tuple(name for name, wanted in self.partitions.items() if set(wanted) & set(node.features)),
            gpus=node.gpus,
            gpus_used=sum(job.gpus_per_node for job in running),
            cpus=node.cpus,
            cpus_used=cpus,
            memory_mib=node.memory_mib,
            memory_mib_used=sum(job.memory_mib_per_node for job in running),
            last_busy=node.last_busy,
        )

    def _job_view(self, job: Job) -> SlurmJob:
        completing = {"COMPLETING"} if job.completing_until else set()
        waits = job.state == "PENDING"
        end = job.start + timedelta(seconds=job.time_limit_seconds) if job.start and job.time_limit_seconds else None
        return SlurmJob(
            job_id=job.job_id,
            user=job.user,
            states=frozenset({job.state, *completing}),
            reason="None" if not waits else "BeginTime" if job.eligible > self._clock() else "Resources",
            partitions=(job.partition,),
            nodes=job.nodes,
            node_count=job.node_count,
            cpus=job.cpus_per_node * job.node_count,
            memory_mib_per_node=job.memory_mib_per_node,
            gpus=job.gpus_per_node * job.node_count,
            constraints="&".join(job.constraints),
            exclusive=job.exclusive,
            array_tasks=job.array_tasks,
            requeueable=job.requeueable,
            comment=job.comment,
            priority=job.priority,
            qos=job.qos,
            restarts=job.restarts,
            time_limit_seconds=int(job.time_limit_seconds) if job.time_limit_seconds else None,
            eligible_time=job.eligible,
            start_time=job.start,
            end_time=end,
        )

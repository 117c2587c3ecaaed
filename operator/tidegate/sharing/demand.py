"""How many more nodes the pending Slurm jobs of a pool's partition could use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from operator import attrgetter

from tidegate.api import BatchPool, SlurmCluster
from tidegate.sharing.reservations import Reserved
from tidegate.sharing.snapshot import SlurmJob, SlurmNode, SlurmState

NOT_WAITING_FOR_NODES = frozenset(
    {
        "JobHeldUser",
        "JobHeldAdmin",
        "JobHoldMaxRequeue",
        "JobArrayTaskLimit",
        "Dependency",
        "DependencyNeverSatisfied",
        "BeginTime",
        "BadConstraints",
        "InvalidAccount",
        "InvalidQOS",
        "PartitionDown",
        "PartitionInactive",
        "PartitionTimeLimit",
        "Licenses",
        "Reservation",
        "ReservationDeleted",
    }
)
"""Reasons of pending jobs that more nodes would not help (squeue manual page, JOB REASON CODES).

A requeued job waits with `BeginTime` for some seconds: that is a wait for a clock, and it counts once it is over.
"""

_ANY_NUMBER = 1_000_000
_LIMITS = ("Assoc", "QOS", "MaxJobs", "MaxCpu", "MaxMem")


@dataclass(slots=True)
class Room:
    """What a node still offers to jobs."""

    gpus: int
    cpus: int
    memory_mib: int
    shared: bool = True
    node: str = ""
    """The Slurm node whose room it is; empty for one that is yet to come."""

    def takes(self, gpus: int, cpus: int, memory_mib: int, exclusive: bool) -> bool:
        """Whether that much fits."""
        if exclusive and self.shared is False:
            return False
        return self.gpus >= gpus and self.cpus >= cpus and self.memory_mib >= memory_mib

    def times(self, gpus: int, cpus: int, memory_mib: int) -> int:
        """How often that much fits."""
        asked = ((self.gpus, gpus), (self.cpus, cpus), (self.memory_mib, memory_mib))
        return min((has // wants for has, wants in asked if wants), default=1)


def more_partitions(pool: BatchPool, slurm: SlurmState, cluster: SlurmCluster | None) -> frozenset[str]:
    """Partitions beside its own whose jobs are the pool's demand: those that the cluster's `priorities` name and that
    have the same NodeSets, so that lent nodes are theirs, too."""
    named = {entry.partition for entry in cluster.spec.priorities if entry.partition} if cluster else set()
    sets = slurm.node_sets.get(pool.spec.partition, frozenset())
    return frozenset(name for name in named if sets and sets <= slurm.node_sets.get(name, frozenset()))


def waits_for_nodes(job: SlurmJob, pool: BatchPool, also: frozenset[str] = frozenset()) -> bool:
    """Whether a pending job of the pool's partition, or of one of `also`, would start if there were nodes for it."""
    return (
        job.is_pending
        and (pool.spec.partition in job.partitions or not also.isdisjoint(job.partitions))
        and job.reason not in NOT_WAITING_FOR_NODES
        and not job.reason.startswith(_LIMITS)
        and not job.required_nodes
        and (not job.constraints or satisfies(job.constraints, frozenset(pool.spec.features)))
    )


def satisfies(constraints: str, features: frozenset[str]) -> bool:
    """Whether nodes with these features satisfy the expression: `a&b`, `a|b` and parentheses.

    Counts and exclusive sets (`[a*2&b]`, `[a|b]`) ask for several kinds of nodes; any word that holds will do.
    """
    if not constraints:
        return True
    if "[" in constraints or "*" in constraints:
        return bool(set(re.findall(r"[\w.-]+", constraints)) & features)
    tokens = re.findall(r"[\w.:-]+|[&|,()]", constraints)
    return _any_of(tokens, features)


def _any_of(tokens: list[str], features: frozenset[str]) -> bool:
    result = _all_of(tokens, features)
    while tokens and tokens[0] == "|":
        tokens.pop(0)
        right = _all_of(tokens, features)
        result = result or right
    return result


def _all_of(tokens: list[str], features: frozenset[str]) -> bool:
    result = _one(tokens, features)
    while tokens and tokens[0] in "&,":
        tokens.pop(0)
        right = _one(tokens, features)
        result = result and right
    return result


def _one(tokens: list[str], features: frozenset[str]) -> bool:
    if not tokens:
        return False
    word = tokens.pop(0)
    if word != "(":
        return word in features
    result = _any_of(tokens, features)
    if tokens and tokens[0] == ")":
        tokens.pop(0)
    return result


def waiting_jobs(pool: BatchPool, slurm: SlurmState, also: frozenset[str] = frozenset()) -> list[SlurmJob]:
    """Jobs of the pool's partition and of those of `also` that nodes would help, in the order in which Slurm starts
    them: by priority, then by id."""
    found = [job for job in slurm.jobs.values() if waits_for_nodes(job, pool, also)]
    found.sort(key=attrgetter("job_id"))
    found.sort(key=attrgetter("priority"), reverse=True)
    return found


def nodes_wanted(
    jobs: Iterable[SlurmJob],
    pool: BatchPool,
    nodes: Iterable[SlurmNode],
    coming: int,
    sample: Room,
    most: int,
    reserved: Reserved | None = None,
) -> int:
    """How many nodes beyond the lent ones and those `coming` (joining) the jobs could use, at most `most`.

    Jobs are laid onto rooms in their order: first what is free on nodes that take jobs, then the joining nodes, then
    new ones like `sample`. A job of k nodes counts only if all k are to be had; one that never fits a node does not
    count. For a job that would run into a reservation all that are `reserved` are not to be had.
    """
    rooms = Rooms([_room(node) for node in nodes if _takes_jobs(node, pool)], coming, sample)
    kept: dict[int | None, tuple[int, frozenset[str]]] = {}
    for job in jobs:
        if rooms.new >= most:
            break
        if job.time_limit_seconds not in kept:
            kept[job.time_limit_seconds] = _left_by(reserved, job, most)
        limit, closed = kept[job.time_limit_seconds]
        left = job.array_tasks
        while left > 0 and (laid := rooms.lay(job, left, limit, closed)):
            left -= laid
    return rooms.new


def _left_by(reserved: Reserved | None, job: SlurmJob, most: int) -> tuple[int, frozenset[str]]:
    """How many new nodes reservations leave to jobs with this one's time limit, and which nodes they close."""
    if reserved is None:
        return most, frozenset()
    closed = frozenset(node for node in reserved.closes if reserved.shuts_out(job, node))
    return min(most, reserved.leaves(job)), closed


def nodes_lacking(
    jobs: Iterable[SlurmJob],
    pool: BatchPool,
    nodes: Iterable[SlurmNode],
    coming: int,
    sample: Room,
    reserved: Reserved,
) -> dict[int, int]:
    """How many nodes each of the jobs lacks beside free and `coming` ones, by id, the first of the jobs laid first.

    Of an array one task counts. A job that fits no node of the pool is not in the answer.
    """
    rooms = Rooms([_room(node) for node in nodes if _takes_jobs(node, pool)], coming, sample)
    lacking: dict[int, int] = {}
    for job in jobs:
        before = rooms.new
        if rooms.lay(job, 1, _ANY_NUMBER, _left_by(reserved, job, _ANY_NUMBER)[1]):
            lacking[job.job_id] = rooms.new - before
    return lacking


def nodes_of(job: SlurmJob, sample: Room) -> int:
    """How many nodes the job (or one task of an array) runs on."""
    spread = -(-job.gpus // sample.gpus) if job.may_spread and sample.gpus else 0
    return max(job.node_count, spread, 1)


class Rooms:
    """What nodes still offer, while one job after the other is laid onto them.

    Rooms only shrink, so what did not fit once never fits again: of thousands of jobs that ask for much the same, only
    the first looks at all rooms.
    """

    def __init__(self, rooms: list[Room], coming: int, sample: Room) -> None:
        self._sample = sample
        self._rooms = [*rooms, *(replace(sample) for _ in range(coming))]
        self._with: dict[int, list[Room]] = {}
        """By a number of GPUs the rooms that had so many when they were looked through last."""
        self._looks = 0
        self._too_much: dict[tuple[int, int, bool, int, frozenset[str]], list[tuple[int, int]]] = {}
        self.new = 0
        """How many rooms like the sample were added."""

    def lay(self, job: SlurmJob, tasks: int, limit: int, closed: frozenset[str] = frozenset()) -> int:
        """Lay as many of an array's tasks as one set of rooms takes (a large one must not cost a look for each task).

        At most `limit` rooms may be new, and the rooms of `closed` nodes are left out.
        """
        nodes = nodes_of(job, self._sample)
        gpus, cpus, memory_mib = -(-job.gpus // nodes), -(-job.cpus // nodes), job.memory_mib_per_node
        too_much = self._too_much.setdefault((nodes, gpus, job.exclusive, limit, closed), [])
        if any(cpus >= least and memory_mib >= little for least, little in too_much):
            return 0
        taking = (
            r for r in self._with_gpus(gpus) if r.takes(gpus, cpus, memory_mib, job.exclusive) and r.node not in closed
        )
        chosen = list(islice(taking, nodes))
        missing = nodes - len(chosen)
        if missing and (self.new + missing > limit or not self._sample.takes(gpus, cpus, memory_mib, job.exclusive)):
            too_much.append((cpus, memory_mib))
            return 0
        chosen += self._add(missing)
        count = 1 if job.exclusive else min(tasks, *(room.times(gpus, cpus, memory_mib) for room in chosen))
        for room in chosen:
            room.gpus -= gpus * count
            room.cpus = 0 if job.exclusive else room.cpus - cpus * count
            room.memory_mib -= memory_mib * count
            room.shared = False
        return count

    def _with_gpus(self, gpus: int) -> list[Room]:
        if not gpus:
            return self._rooms
        self._looks += 1
        if self._looks % 64 == 0:
            # Rooms that are full by now are left out from here on.
            self._with.clear()
        if gpus not in self._with:
            self._with[gpus] = [room for room in self._rooms if room.gpus >= gpus]
        return self._with[gpus]

    def _add(self, missing: int) -> list[Room]:
        fresh = [replace(self._sample) for _ in range(missing)]
        self._rooms += fresh
        for gpus, rooms in self._with.items():
            rooms += fresh if self._sample.gpus >= gpus else ()
        self.new += missing
        return fresh


def _takes_jobs(node: SlurmNode, pool: BatchPool) -> bool:
    usable = not node.takes_nothing and not node.states & {"INVALID_REG", "INVAL", "NOT_RESPONDING", "PLANNED_DOWN"}
    return usable and pool.spec.partition in node.partitions


def _room(node: SlurmNode) -> Room:
    return Room(
        gpus=node.gpus - node.gpus_used,
        cpus=node.cpus - node.cpus_used,
        memory_mib=node.memory_mib - node.memory_mib_used,
        shared=not node.is_busy,
        node=node.name,
    )

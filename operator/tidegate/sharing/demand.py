"""How many more nodes the pending Slurm jobs of a pool's partition could use."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tidegate.api import BatchPool
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

_LIMITS = re.compile(r"^(Assoc|QOS|MaxJobs|MaxCpu|MaxMem)")


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


def waits_for_nodes(job: SlurmJob, pool: BatchPool) -> bool:
    """Whether a pending job of the partition would start if there were nodes for it."""
    return (
        job.is_pending
        and pool.spec.partition in job.partitions
        and job.reason not in NOT_WAITING_FOR_NODES
        and not _LIMITS.match(job.reason)
        and not job.required_nodes
        and satisfies(job.constraints, frozenset(pool.spec.features))
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


def nodes_wanted(
    pool: BatchPool, slurm: SlurmState, coming: int, sample: Room, most: int, reserved: Reserved | None = None
) -> int:
    """How many nodes beyond those lent or `coming` (joining) the waiting jobs could use, at most `most`.

    Jobs are laid onto rooms in Slurm's order (priority, then id): first what is free on nodes that take jobs, then the
    joining nodes, then new ones like `sample`. A job of k nodes counts only if all k are to be had; one that never fits
    a node does not count. For a job that would run into a reservation all that are `reserved` are not to be had.
    """
    rooms = [_room(node) for node in slurm.nodes.values() if _takes_jobs(node, pool)]
    rooms += [replace(sample) for _ in range(coming)]
    known = len(rooms)
    for job in sorted(slurm.jobs.values(), key=lambda j: (-j.priority, j.job_id)):
        if not waits_for_nodes(job, pool):
            continue
        left, limit, closed = job.array_tasks, known + most, frozenset[str]()
        if reserved:
            limit = known + min(most, reserved.leaves(job))
            closed = frozenset(node for node in reserved.closes if reserved.shuts_out(job, node))
        while left > 0 and (laid := _lay(job, left, rooms, limit, sample, closed)):
            left -= laid
    return len(rooms) - known


def _lay(job: SlurmJob, tasks: int, rooms: list[Room], limit: int, sample: Room, closed: frozenset[str]) -> int:
    """Lay as many of the array's tasks as one set of rooms takes (a large array must not cost a look for each task)."""
    nodes = max(job.node_count, 1)
    if job.may_spread and sample.gpus:
        nodes = max(nodes, -(-job.gpus // sample.gpus))
    gpus, cpus = -(-job.gpus // nodes), -(-job.cpus // nodes)
    taking = [r for r in rooms if r.takes(gpus, cpus, job.memory_mib_per_node, job.exclusive)]
    chosen = [room for room in taking if room.node not in closed][:nodes]
    missing = nodes - len(chosen)
    fresh_fits = replace(sample).takes(gpus, cpus, job.memory_mib_per_node, job.exclusive)
    if missing and (not fresh_fits or len(rooms) + missing > limit):
        return 0
    fresh = [replace(sample) for _ in range(missing)]
    rooms += fresh
    together = [*chosen, *fresh]
    count = 1 if job.exclusive else min(tasks, *(r.times(gpus, cpus, job.memory_mib_per_node) for r in together))
    for room in together:
        room.gpus -= gpus * count
        room.cpus = 0 if job.exclusive else room.cpus - cpus * count
        room.memory_mib -= job.memory_mib_per_node * count
        room.shared = False
    return count


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

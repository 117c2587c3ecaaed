"""What slurmrestd's JSON says, as the values that decisions see. Pure; the shapes are those of v0.0.42 to v0.0.45.

msgspec reads the few fields that are needed and skips the others: a list of 10,000 jobs has 75 MiB of JSON, for which
the standard library takes a second and 310 MiB, pydantic 0.7 s and 300 MiB, and msgspec 0.14 s and next to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from tidegate.sharing.snapshot import SlurmJob, SlurmNode, SlurmReservation
from tidegate.slurm.hostlist import expand

ENDED = frozenset(
    {
        "COMPLETED",
        "CANCELLED",
        "FAILED",
        "TIMEOUT",
        "NODE_FAIL",
        "PREEMPTED",
        "BOOT_FAIL",
        "DEADLINE",
        "OUT_OF_MEMORY",
        "REVOKED",
        "LAUNCH_FAILED",
        "RECONFIG_FAIL",
    }
)
"""Base states of jobs that run no more (squeue manual page, JOB STATE CODES)."""
CLEANING_UP = frozenset({"COMPLETING", "STAGE_OUT"})
"""Flags with which an ended job still holds its nodes."""


MINUTES_OF_NO_LIMIT = 365 * 24 * 60


class Number(msgspec.Struct, frozen=True):
    """A number that may be unset or unlimited."""

    set: bool = False
    infinite: bool = False
    number: float = 0

    @property
    def value(self) -> int | None:
        """The number, or None when there is none or no limit."""
        return int(self.number) if self.set and not self.infinite else None


UNSET = Number()


class Problem(msgspec.Struct):
    """One entry of `errors`."""

    description: str | None = ""
    error_number: int = 0
    error: str | None = ""

    def words(self) -> str:
        """Slurm's own words."""
        said = "" if self.error in (None, "", "No error") else self.error
        return ": ".join(part for part in (self.description, said) if part)


class Release(msgspec.Struct):
    """`meta.slurm`."""

    release: str = ""


class Meta(msgspec.Struct):
    """`meta`."""

    slurm: Release | None = None


class Answer(msgspec.Struct):
    """What every answer has."""

    errors: list[Problem] | None = None
    meta: Meta | None = None

    @property
    def release(self) -> str:
        """The release of slurmrestd, such as `24.11.5`; empty when it does not say."""
        return self.meta.slurm.release if self.meta and self.meta.slurm else ""


class NodeRecord(msgspec.Struct):
    """The part of a node record that decisions need."""

    name: str
    state: list[str]
    reason: str | None = ""
    extra: str | None = ""
    comment: str | None = ""
    active_features: list[str] | None = None
    partitions: list[str] | None = None
    gres: str | None = ""
    gres_used: str | None = ""
    cpus: int = 0
    alloc_cpus: int = 0
    real_memory: int = 0
    alloc_memory: int = 0
    last_busy: Number = UNSET


class JobRecord(msgspec.Struct):
    """The part of a job record that decisions need."""

    job_id: int
    job_state: list[str]
    user_name: str | None = ""
    state_reason: str | None = ""
    partition: str | None = ""
    nodes: str | None = ""
    node_count: Number = UNSET
    max_nodes: Number = UNSET
    tasks: Number = UNSET
    cpus: Number = UNSET
    memory_per_node: Number = UNSET
    memory_per_cpu: Number = UNSET
    memory_per_tres: str | None = ""
    tres_per_job: str | None = ""
    tres_per_node: str | None = ""
    tres_per_socket: str | None = ""
    tres_per_task: str | None = ""
    sockets_per_node: Number = UNSET
    gres_detail: list[str] | None = None
    features: str | None = ""
    required_nodes: str | None = ""
    shared: list[str] | None = None
    batch_flag: bool = False
    requeue: bool = False
    comment: str | None = ""
    priority: Number = UNSET
    qos: str | None = ""
    restart_cnt: int = 0
    eligible_time: Number = UNSET
    start_time: Number = UNSET
    end_time: Number = UNSET
    time_limit: Number = UNSET


class JobStateRecord(msgspec.Struct):
    """An entry of the light list; `job_id` is `17`, or `17_3` for task 3 of an array, or `17+1` for a part of a job."""

    job_id: str
    state: list[str] | None = None


class PartitionRecord(msgspec.Struct):
    """The part of a partition that decisions need."""

    name: str
    node_sets: str | None = ""


class KillStatus(msgspec.Struct):
    """What came of a signal: an error here comes with HTTP 200 and empty `errors`."""

    class Error(msgspec.Struct):
        """Slurm's error number and words; 0 when it went well."""

        code: int = 0
        string: str | None = ""

    error: Error | None = None


class ReservationRecord(msgspec.Struct):
    """A reservation; `node_list` is a host list."""

    name: str
    node_list: str | None = ""
    start_time: Number = UNSET
    end_time: Number = UNSET


class Nodes(Answer):
    """GET nodes/ and GET node/{name}."""

    nodes: list[NodeRecord] | None = None


class Jobs(Answer):
    """GET jobs/ and GET job/{id}."""

    jobs: list[JobRecord] | None = None


class JobStates(Answer):
    """GET jobs/state/."""

    jobs: list[JobStateRecord] | None = None


class Partitions(Answer):
    """GET partitions/."""

    partitions: list[PartitionRecord] | None = None


class Reservations(Answer):
    """GET reservations/."""

    reservations: list[ReservationRecord] | None = None


class Killed(Answer):
    """DELETE job/{id}."""

    status: list[KillStatus] | None = None


def parse_node(record: NodeRecord) -> SlurmNode:
    """A node record as decisions see it."""
    return SlurmNode(
        name=record.name,
        states=frozenset(state.upper() for state in record.state),
        reason=record.reason or "",
        extra=record.extra or "",
        comment=record.comment or "",
        features=tuple(record.active_features or ()),
        partitions=tuple(record.partitions or ()),
        gpus=count_gpus(record.gres),
        gpus_used=count_gpus(record.gres_used),
        cpus=record.cpus,
        cpus_used=record.alloc_cpus,
        memory_mib=record.real_memory,
        memory_mib_used=record.alloc_memory,
        last_busy=_moment(record.last_busy),
    )


def parse_job(record: JobRecord, tasks: int = 1) -> SlurmJob:
    """A job record as decisions see it; `tasks` is how many tasks of a pending array it stands for."""
    states = frozenset(state.upper() for state in record.job_state)
    pending = "PENDING" in states
    return SlurmJob(
        job_id=record.job_id,
        user=record.user_name or "",
        states=states,
        reason=record.state_reason or "",
        partitions=tuple((record.partition or "").split(",")),
        nodes=expand(record.nodes or ""),
        node_count=record.node_count.value or 1,
        cpus=record.cpus.value or 1,
        memory_mib_per_node=_memory_mib_per_node(record),
        gpus=_gpus(record),
        may_spread=_may_spread(record),
        constraints=record.features or "",
        required_nodes=expand(record.required_nodes or ""),
        exclusive="none" in (record.shared or ()),
        array_tasks=tasks if pending else 1,
        requeueable=record.batch_flag and record.requeue,
        comment=record.comment or "",
        priority=record.priority.value or 0,
        qos=record.qos or "",
        restarts=record.restart_cnt,
        time_limit_seconds=_time_limit_seconds(record),
        eligible_time=_moment(record.eligible_time),
        start_time=None if pending else _moment(record.start_time),
        end_time=_moment(record.end_time) if not pending and _time_limit_seconds(record) is not None else None,
    )


def parse_reservation(record: ReservationRecord) -> SlurmReservation:
    """A reservation as decisions see it."""
    start, end = (datetime.fromtimestamp(time.value or 0, UTC) for time in (record.start_time, record.end_time))
    return SlurmReservation(record.name, tuple(sorted(expand(record.node_list or ""))), start, end)


def has_ended(states: Iterable[str]) -> bool:
    """Whether a job in these states neither waits, nor runs, nor holds a node."""
    words = frozenset(states)
    return bool(words & ENDED) and not words & CLEANING_UP


def count_gpus(gres: str | None) -> int:
    """GPUs in any of Slurm's forms: `gpu:2`, `gpu:a100:2(S:0-1),gpu:v100:1`, `gres/gpu=1`, `gres/gpu:a100:2`."""
    total = 0
    for item in re.sub(r"\([^)]*\)", "", gres or "").split(","):
        name, *rest = re.split("[:=]", item.strip().removeprefix("gres/").removeprefix("gres:"))
        if name == "gpu":
            total += int(rest[-1]) if rest and rest[-1].isdigit() else 1
    return total


def _gpus(record: JobRecord) -> int:
    """GPUs of the whole job: those it has, or those it asks for."""
    if record.gres_detail:
        return sum(count_gpus(detail) for detail in record.gres_detail)
    nodes = record.node_count.value or 1
    return (
        count_gpus(record.tres_per_job)
        or count_gpus(record.tres_per_node) * nodes
        or count_gpus(record.tres_per_task) * (record.tasks.value or 1)
        or count_gpus(record.tres_per_socket) * (record.sockets_per_node.value or 1) * nodes
    )


def _may_spread(record: JobRecord) -> bool:
    """`node_count` of a pending job is Slurm's guess from the nodes it knows, unless the job bounds it from above."""
    of_the_whole = count_gpus(record.tres_per_job) or count_gpus(record.tres_per_task)
    return bool(of_the_whole) and not 0 < (record.max_nodes.value or 0) <= (record.node_count.value or 1)


def _memory_mib_per_node(record: JobRecord) -> int:
    nodes = record.node_count.value or 1
    per_gpu = re.search(r"gres[/:]gpu[:=](\d+)", record.memory_per_tres or "")
    if per_gpu:
        return -(-int(per_gpu[1]) * _gpus(record) // nodes)
    if per_cpu := record.memory_per_cpu.value:
        return -(-per_cpu * (record.cpus.value or 1) // nodes)
    return record.memory_per_node.value or 0


def _time_limit_seconds(record: JobRecord) -> int | None:
    """The job's own time limit, if it has one: Slurm says a year for a running one that has none."""
    minutes = record.time_limit.value
    return minutes * 60 if minutes is not None and minutes < MINUTES_OF_NO_LIMIT else None


def _moment(number: Number) -> datetime | None:
    return datetime.fromtimestamp(number.value, UTC) if number.value else None

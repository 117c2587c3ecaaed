"""What is known of each unfinished job, and whose record has to be asked for again.

A full list of 10,000 jobs costs slurmrestd five seconds, the list of their states 0.1 s. So the book keeps the last
record of each job and names those that may have changed. The list's own `update_time` is no help: it gives all or
nothing, and any job's change makes it all.

That a record is old must never hide that a node is busy:
- The nodes are read after the jobs, and a node's own state says whether anything runs or is cleaned up there. A job
  that started after the job list shows up there.
- A job whose state changed is read again, so each job that started is read after its start. Only one that was requeued
  and started elsewhere between two observations has the state that it had. It shows by the nodes: one that it left is
  idle or has another allocation, one that it entered has an allocation that no job explains.
- All of the rest (priorities, reasons of waiting, edits) grows old for as long as FULL_LIST_SHARE lets it.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from tidegate.sharing.snapshot import SlurmJob, SlurmNode
from tidegate.slurm.records import JobRecord, JobStateRecord, has_ended, parse_job

FULL_LIST_SHARE = 0.05
"""Full lists may take this share of the time."""
FRESHEST = timedelta(seconds=5)
OLDEST = timedelta(seconds=120)
MANY = 8
"""So many records cost about as much one by one as all of them in one list (measured: 4 ms against 0.5 ms)."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job in the light list: all its states, and how many tasks wait under its id."""

    states: frozenset[str]
    pending_tasks: int


def statuses(records: Iterable[JobStateRecord]) -> dict[int, JobStatus]:
    """The light list by job id. Waiting tasks of an array (`17_3`, `17_4`) come one by one, under the array's id."""
    found: dict[int, JobStatus] = {}
    for record in records:
        job_id = int(record.job_id.partition("_")[0].partition("+")[0])
        status = _status(tuple(record.state or ()))
        known = found.get(job_id)
        if known:
            status = JobStatus(known.states | status.states, known.pending_tasks + status.pending_tasks)
        found[job_id] = status
    return found


@functools.cache
def _status(states: tuple[str, ...]) -> JobStatus:
    """The same value for the same states, of which there are few: thousands of jobs wait alike."""
    words = frozenset(state.upper() for state in states)
    return JobStatus(words, int("PENDING" in words))


class JobBook:
    """The last record of each unfinished job."""

    def __init__(self) -> None:
        self.jobs: dict[int, SlurmJob] = {}
        self._statuses: Mapping[int, JobStatus] = {}
        self._allocations: dict[str, tuple[int, int, int]] = {}
        self._read: set[int] = set()
        self._full_due: datetime | None = None

    def open(self, seen: Mapping[int, JobStatus]) -> set[int]:
        """Start from a new light list. Returns the ids of jobs whose records have to be read."""
        self._statuses = seen
        self._read = set()
        self.jobs = {
            job_id: self._counted(job)
            for job_id, job in self.jobs.items()
            if job_id in seen and not has_ended(seen[job_id].states)
        }
        return {
            job_id
            for job_id, status in seen.items()
            if not has_ended(status.states) and (job_id not in self.jobs or self.jobs[job_id].states != status.states)
        }

    def wants_full_list(self, wanted: Collection[int], now: datetime) -> bool:
        """Whether one full list is due, or cheaper than that many single records."""
        due = self._full_due is None or now >= self._full_due
        return due or len(wanted) * MANY > max(len(self._statuses), 10 * MANY)

    def take(self, wanted: Iterable[int], records: Iterable[JobRecord]) -> None:
        """Enter the records of the wanted jobs, read after the light list; those without a record are no more."""
        for job_id in wanted:
            self.jobs.pop(job_id, None)
        for record in records:
            self._read.add(record.job_id)
            if has_ended(record.job_state):
                self.jobs.pop(record.job_id, None)
            else:
                self.jobs[record.job_id] = parse_job(record, self._tasks(record.job_id))

    def take_all(self, records: Iterable[JobRecord], start: datetime, end: datetime) -> None:
        """Enter a full list, read after the light list, that was asked for at `start` and there at `end`."""
        self.take(tuple(self.jobs), records)
        self._full_due = end + min(max((end - start) / FULL_LIST_SHARE, FRESHEST), OLDEST)

    def _counted(self, job: SlurmJob) -> SlurmJob:
        tasks = self._tasks(job.job_id)
        return replace(job, array_tasks=tasks) if job.is_pending and job.array_tasks != tasks else job

    def _tasks(self, job_id: int) -> int:
        status = self._statuses.get(job_id)
        return max(status.pending_tasks, 1) if status else 1

    def doubts(self, nodes: Mapping[str, SlurmNode]) -> tuple[set[int], bool]:
        """Which jobs have to be read again in view of the nodes, and whether a node is busy that no job is known on.

        Asked once in an observation, after the nodes: it remembers their allocations for the next one.
        """
        changed = {name for name, node in nodes.items() if self._allocations.get(name) != _allocation(node)}
        doubtful: set[int] = set()
        explained: set[str] = set()
        for job_id, job in self.jobs.items():
            if not job.holds_nodes:
                continue
            explained.update(job.nodes)
            if job_id not in self._read and any(
                name in changed or name not in nodes or not nodes[name].is_busy for name in job.nodes
            ):
                doubtful.add(job_id)
        self._allocations = {name: _allocation(node) for name, node in nodes.items()}
        unexplained = any(node.is_busy and name not in explained for name, node in nodes.items())
        return doubtful, unexplained


def _allocation(node: SlurmNode) -> tuple[int, int, int]:
    return (node.cpus_used, node.memory_mib_used, node.gpus_used)

"""How jobs leave a recalled node: wait, signal, requeue or cancel, and DOWN last. Each rung has a deadline."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from tidegate.api import Ladder, TouchedJob
from tidegate.api.batch_pool import Recall
from tidegate.sharing.snapshot import SlurmJob

SIGNALS = frozenset({"HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "TERM", "CONT", "URG", "WINCH"})
"""Signals that a job may declare. slurmrestd ends the job of a signal that it does not know, so no other is sent."""

COMMENTS = 1 << 14
"""So many comments of jobs are understood once: decisions come every second, and comments hardly change."""
_DECLARED = re.compile(r"\btidegate:signal=(?:SIG)?([A-Z0-9]+)\b")


@lru_cache(COMMENTS)
def declared_signal(comment: str) -> str | None:
    """The signal on which a job saves its work, from the word `tidegate:signal=USR1` in its comment.

    Only such jobs are signalled: any other job would be ended by the signal, and be lost instead of requeued.
    """
    found = _DECLARED.search(comment)
    return found.group(1) if found and found.group(1) in SIGNALS else None


@dataclass(frozen=True, slots=True)
class Rungs:
    """What to do with the jobs of one node now."""

    touched: tuple[TouchedJob, ...]
    """All jobs that the recall touched so far, including what is about to be done."""
    signal: tuple[tuple[int, str], ...] = ()
    requeue: tuple[int, ...] = ()
    cancel: tuple[int, ...] = ()
    down: bool = False
    deadline: datetime | None = None
    """When the next rung is taken."""
    message: str = ""


@dataclass(frozen=True, slots=True)
class _Step:
    action: str
    until: datetime
    """The job is left alone with this action until then."""


def climb(
    jobs: tuple[SlurmJob, ...],
    touched: tuple[TouchedJob, ...],
    start: datetime,
    now: datetime,
    ladder: Ladder,
    terms: Recall,
    can_requeue: bool,
) -> Rungs:
    """The next rung for each job that is still on the node, `start` being the moment of the recall.

    Slurm without a requeue call (`can_requeue` False) requeues by DOWN, which hits every job of the node, so it waits
    until no job is within a time it was promised. An empty `jobs` means that Slurm is still cleaning up.
    """
    known = {t.job_id: t for t in touched}
    end_of_ladder = start + timedelta(seconds=ladder.drain_seconds + ladder.checkpoint_seconds + ladder.requeue_seconds)
    if not jobs:
        return Rungs(touched, down=now >= end_of_ladder, deadline=end_of_ladder, message="Slurm is still cleaning up")
    signal: list[tuple[int, str]] = []
    requeue: list[int] = []
    cancel: list[int] = []
    waits: list[datetime] = []
    for job in jobs:
        step = _step(job, known.get(job.job_id), start, now, ladder, terms, can_requeue)
        if step.action == "Signalled" and not _did(known, job, "Signalled"):
            signal.append((job.job_id, declared_signal(job.comment) or ""))
        if step.action == "Requeued" and "COMPLETING" not in job.states:
            requeue.append(job.job_id)
        if step.action == "Cancelled" and "COMPLETING" not in job.states:
            cancel.append(job.job_id)
        if step.until > now:
            waits.append(step.until)
        if not _did(known, job, step.action):
            known[job.job_id] = _record(job, step.action, now)
    down = not waits
    if down:
        for job in jobs:
            if "COMPLETING" not in job.states and not _did(known, job, "EndedByDown"):
                known[job.job_id] = _record(job, "EndedByDown", now)
    return Rungs(
        touched=tuple(known.values())[:256],
        signal=tuple(signal),
        requeue=() if down else tuple(requeue),
        cancel=() if down else tuple(cancel),
        down=down,
        deadline=max(waits) if waits else end_of_ladder,
        message=_message(jobs, known),
    )


def _step(
    job: SlurmJob,
    before: TouchedJob | None,
    start: datetime,
    now: datetime,
    ladder: Ladder,
    terms: Recall,
    can_requeue: bool,
) -> _Step:
    waits_until = start + timedelta(seconds=ladder.drain_seconds)
    saves_until = waits_until + timedelta(seconds=ladder.checkpoint_seconds)
    patience = timedelta(seconds=ladder.requeue_seconds)
    if before and before.action == "EndedByDown":
        return _Step("EndedByDown", now)
    if "COMPLETING" in job.states and not (before and before.action in ("Requeued", "Cancelled")):
        # It ended by itself: nothing is to be done about it, and nothing of it is lost.
        ended = job.end_time if job.end_time and job.end_time <= now else start
        return _Step(_so_far(before), max(saves_until, ended) + patience)
    if now < waits_until:
        return _Step("Waited", waits_until)
    if declared_signal(job.comment) and not (before and before.action in ("Requeued", "Cancelled")):
        # Counted from its signal: an operator that was away for a while does not cost the job its time to save.
        saves_until = _acted(before, "Signalled", now) + timedelta(seconds=ladder.checkpoint_seconds)
        if now < saves_until:
            return _Step("Signalled", saves_until)
    if job.requeueable:
        if not can_requeue:
            return _Step(_so_far(before), now)
        return _Step("Requeued", _acted(before, "Requeued", now) + patience)
    spared_until = start + timedelta(seconds=terms.non_requeueable_seconds)
    if terms.non_requeueable_jobs == "Protect" and now < spared_until:
        return _Step(_so_far(before), spared_until)
    return _Step("Cancelled", _acted(before, "Cancelled", now) + patience)


def _so_far(before: TouchedJob | None) -> str:
    """A job that was signalled and is waited for now was signalled: it is not signalled again."""
    return "Signalled" if before and before.action == "Signalled" else "Waited"


def _acted(before: TouchedJob | None, action: str, now: datetime) -> datetime:
    return before.time if before and before.action == action else now


def _did(known: dict[int, TouchedJob], job: SlurmJob, action: str) -> bool:
    before = known.get(job.job_id)
    return before is not None and (before.action == action or before.action == "EndedByDown")


def _record(job: SlurmJob, action: str, now: datetime) -> TouchedJob:
    return TouchedJob.model_validate(
        {
            "job_id": job.job_id,
            "action": action,
            "time": now,
            "requeueable": job.requeueable,
            "user": job.user[:253],
            "gpus": job.gpus,
            "start_time": job.start_time,
        }
    )


_WORDS = {
    "Waited": "may end by itself",
    "Signalled": "was signalled and saves its work",
    "Requeued": "is being requeued",
    "Cancelled": "is being cancelled",
    "EndedByDown": "is being ended by DOWN",
}


def _message(jobs: tuple[SlurmJob, ...], known: dict[int, TouchedJob]) -> str:
    return "; ".join(f"job {job.job_id} {_doing(job, known)}" for job in jobs[:8])


def _doing(job: SlurmJob, known: dict[int, TouchedJob]) -> str:
    return "is being cleaned up" if "COMPLETING" in job.states else _WORDS[known[job.job_id].action]

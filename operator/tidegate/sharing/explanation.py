"""What there is to say about an object, and the words it is said in."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tidegate.api import CapacityClaim, Condition

Facts = tuple[tuple[str, str], ...]

NOT_SEEN = "the operator has said nothing about it yet; see that it runs"
MOST = 8
"""Longer lists are cut."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What there is to say about one object. Only `since` (not known) and `blocked_by` (nothing) may be empty."""

    subject: str
    """Kind and name, such as `node gpu-1`."""
    owner: str
    """`Kubernetes`, `joining`, `Slurm`, `returning` or `claim <namespace>/<name>`; pools and claims: who has what."""
    since: datetime | None
    because: str
    next_step: str
    blocked_by: str
    facts: Facts
    """Names, each once, and values."""


class UnknownObjectError(LookupError):
    """There is no such object; `str()` is one sentence that names those there are."""


def age(span: timedelta) -> str:
    """A span of time as people say it, in its two largest units: `45s`, `5m12s`, `3h20m`, `2d4h`."""
    seconds = max(int(span.total_seconds()), 0)
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s")]
    first = next((i for i, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return "".join(f"{count}{unit}" for i, (count, unit) in enumerate(parts[first : first + 2]) if count or i == 0)


def moment(time: datetime, now: datetime) -> str:
    """A moment and how far it is from now: `2026-11-21T10:00:00Z (5m12s ago)`."""
    return f"{utc(time)} ({f'in {age(time - now)}' if time > now else f'{age(now - time)} ago'})"


def utc(time: datetime) -> str:
    """A moment to the second, as RFC 3339 in UTC."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def lasted(span: timedelta) -> str:
    """How long something took; short spans to a tenth of a second."""
    return age(span) if span >= timedelta(minutes=1) else f"{max(span.total_seconds(), 0):.1f}s"


def given(*facts: tuple[str, str]) -> Facts:
    """The facts that have a value."""
    return tuple((name, value) for name, value in facts if value)


def reasoned(reason: str, message: str) -> str:
    """A reason and its sentence, where there is one."""
    return f"{reason}: {message}" if message else reason


def said(condition: Condition | None) -> str:
    """A condition in one line."""
    return f"{condition.status}, {reasoned(condition.reason, condition.message)}" if condition else "Unknown"


def listed(names: Iterable[str]) -> str:
    """Names with commas; of many the first few and how many more."""
    every = list(names)
    more = f" and {len(every) - MOST} more" if len(every) > MOST else ""
    return ", ".join(every[:MOST]) + more


def key_of(claim: CapacityClaim) -> str:
    """`namespace/name`."""
    return f"{claim.metadata.namespace}/{claim.metadata.name}"


def unknown(kind: str, name: str, known: Collection[str]) -> UnknownObjectError:
    """The error for a name that is not among the known ones."""
    there = f"those there are: {listed(sorted(known))}" if known else "there is none yet"
    return UnknownObjectError(f"There is no {kind} {name}; {there}.")

"""When a claim is over by itself, and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tidegate.api import CapacityClaim

if TYPE_CHECKING:
    from tidegate.sharing.index import Index

GATHERING = "Gathering"
"""Condition of a gang: it has some of its nodes, and lacks others."""


@dataclass(frozen=True, slots=True)
class End:
    """The moment from which on a claim is over, the reason of condition `Expired`, and a sentence."""

    time: datetime
    reason: str
    message: str


def is_gathering(claim: CapacityClaim) -> bool:
    """Whether the claim is a gang whose nodes were not handed over yet: its pods may not come before all are held."""
    return claim.spec.gang and claim.status.started is None


def ends_at(claim: CapacityClaim, index: Index) -> End | None:
    """The first of all that end the claim, or None when nothing does."""
    spec, status = claim.spec, claim.status
    ends = []
    if spec.ttl_seconds is not None:
        made = claim.metadata.creation_timestamp or index.now
        words = f"not ended within ttlSeconds {spec.ttl_seconds}; its nodes are let go"
        ends.append(End(made + timedelta(seconds=spec.ttl_seconds), "TimeToLive", words))
    began = spec.start_time or status.started
    if spec.duration_seconds is not None and began is not None:
        words = f"its durationSeconds {spec.duration_seconds} are over; its nodes are let go, pods that run there stay"
        ends.append(End(began + timedelta(seconds=spec.duration_seconds), "Ended", words))
    if is_gathering(claim) and status.is_true(GATHERING) and (first := status.since(GATHERING)):
        words = f"not all of its nodes came within gatherSeconds {spec.gather_seconds}; those that did are let go"
        # Those of a reservation are gathered early, so that all are there at its start.
        first = max(first, spec.start_time or first)
        ends.append(End(first + timedelta(seconds=spec.gather_seconds), "GangIncomplete", words))
    return min(ends, key=lambda end: end.time, default=None)


def reserved_until(claim: CapacityClaim) -> datetime | None:
    """The end of a reservation, which is known before it starts."""
    spec = claim.spec
    return spec.start_time + timedelta(seconds=spec.duration_seconds or 0) if spec.start_time else None

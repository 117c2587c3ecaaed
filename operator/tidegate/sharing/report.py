"""How a claim began: what was promised, what came true, and whether Slurm was told."""

from __future__ import annotations

from datetime import datetime

from tidegate.api import CapacityClaim, CapacityClaimStatus
from tidegate.sharing.announcements import Told
from tidegate.sharing.explanation import lasted, utc
from tidegate.sharing.index import Index
from tidegate.sharing.reservations import promise

LATE = "StartedLate"
TOLD = "SlurmTold"


def with_start(claim: CapacityClaim, status: CapacityClaimStatus, accepted: bool, index: Index) -> CapacityClaimStatus:
    """The status with the moment of the start, once there is one, and with what a reservation was promised."""
    start = claim.spec.start_time
    if status.promised_start is None and accepted and start:
        status = status.but(promised_start=promise(claim, index))
    satisfied = status.since("Satisfied") if status.is_true("Satisfied") else None
    if satisfied and status.started is None and (start is None or index.now >= start):
        status = status.but(started=max(satisfied, start or satisfied))
    return _with_lateness(claim, status, index)


def _with_lateness(claim: CapacityClaim, status: CapacityClaimStatus, index: Index) -> CapacityClaimStatus:
    promised, started = status.promised_start, status.started
    if promised is None or (started is None and index.now <= promised):
        return status
    generation = claim.metadata.generation or None
    if started is None:
        words = f"was promised for {utc(promised)}, and not all of its nodes are there yet"
        return status.with_condition(index.now, LATE, True, "NotYet", words, generation)
    late = seconds_late(promised, started)
    words = f"started {lasted(started - promised)} later than promised" if late else "started as promised"
    return status.with_condition(index.now, LATE, late > 0, "Late" if late else "OnTime", words, generation)


def seconds_late(promised: datetime, started: datetime) -> float:
    """How much later than promised a reservation started; 0 when it did not."""
    return max((started - promised).total_seconds(), 0.0)


def with_told(
    claim: CapacityClaim, status: CapacityClaimStatus, told: Told | None, index: Index
) -> CapacityClaimStatus:
    """The status with what Slurm knows of a reservation."""
    if told is None and status.is_true("Satisfied") and status.is_true(TOLD):
        told = Told(False, "Withdrawn", "its nodes have left Slurm")
    if told is None:
        return status
    return status.with_condition(
        index.now, TOLD, told.holds, told.reason, told.message, claim.metadata.generation or None
    )

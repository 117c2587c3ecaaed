"""Which class of recall a claim may use: each ladder of a pool may ask for a least priority."""

from __future__ import annotations

from tidegate.api import RECALL_CLASSES, BatchPool, CapacityClaim, Ladder, RecallClass
from tidegate.sharing.index import Index
from tidegate.sharing.needs import is_automatic


def least_priority(pool: BatchPool, recall_class: RecallClass) -> int | None:
    """The priority from which on claims may use the class, or None when all may."""
    ladder: Ladder = getattr(pool.spec.recall, recall_class)
    return ladder.minimum_priority


def may_use(pool: BatchPool, recall_class: RecallClass, priority: int) -> bool:
    """Whether claims of that priority may use the class."""
    least = least_priority(pool, recall_class)
    return least is None or priority >= least


def fastest_allowed(pool: BatchPool, wanted: RecallClass, priority: int) -> RecallClass | None:
    """The wanted class, or the fastest slower one that the priority allows; None when there is none."""
    slower = RECALL_CLASSES[: RECALL_CLASSES.index(wanted) + 1]
    return next((one for one in reversed(slower) if may_use(pool, one, priority)), None)


def why_not(pool: BatchPool, wanted: RecallClass, priority: int) -> str:
    """One sentence for a claim that may not use the class: the field, what it has, and what it may use."""
    allowed = [one for one in RECALL_CLASSES if may_use(pool, one, priority)]
    way_out = f"use recallClass {' or '.join(allowed)}" if allowed else "use a higher priorityClassName"
    return (
        f"recall.{wanted}.minimumPriority of pool {pool.metadata.name} is {least_priority(pool, wanted)}, "
        f"the claim has {priority}; {way_out}"
    )


def recall_class_of(claim: CapacityClaim, pool: BatchPool, priority: int) -> RecallClass | None:
    """The class that the claim's recalls have; None when it may not use what it asks for.

    Nobody chose the class of an automatic claim, so it takes what it may.
    """
    wanted = claim.spec.recall_class
    if is_automatic(claim):
        return fastest_allowed(pool, wanted, priority)
    return wanted if may_use(pool, wanted, priority) else None


def class_of(claim: CapacityClaim, pool: BatchPool, index: Index) -> RecallClass:
    """The class by which loans are recalled for the claim; that of its spec where it may use none."""
    return recall_class_of(claim, pool, index.priority_of(claim) or 0) or claim.spec.recall_class

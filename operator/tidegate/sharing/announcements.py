"""What Slurm is told of reservations: which lent nodes it must keep free of jobs that would still run at the start.

Slurm's own reservation does it, where its REST API takes one. Backfill then plans around it, and no job that is too
long starts there in vain. A node that joins gets the first job that waits within milliseconds, so it registers drained
until Slurm has been told. When the recall has drained a node, the node leaves the reservation: one of a reservation
that has begun cannot be deleted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from tidegate.api import BatchPool, CapacityClaim, NodeLoan
from tidegate.api.names import reservation_name
from tidegate.sharing.commands import AnnounceReservation, Command, WithdrawReservation
from tidegate.sharing.idleness import free_nodes
from tidegate.sharing.index import Index, joins
from tidegate.sharing.lifetime import reserved_until
from tidegate.sharing.needs import lacking, suits, wanted_nodes
from tidegate.sharing.priorities import of_loan
from tidegate.sharing.reservations import is_due, recalls_from, waiting
from tidegate.sharing.snapshot import SlurmReservation, SlurmState

CAPABILITY = "reservation"
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Told:
    """Whether Slurm knows of a claim's start, as condition `SlurmTold` says it."""

    holds: bool
    reason: str
    message: str


@dataclass(frozen=True)
class Announcements:
    """What has to be said to Slurm, and by claim UID whether it knows already."""

    commands: tuple[Command, ...]
    told: Mapping[str, Told]


def announce(index: Index) -> Announcements:
    """Make the reservations in Slurm what they should be, and no others of ours."""
    commands: list[Command] = []
    told: dict[str, Told] = {}
    for name, pool in index.pools.items():
        if slurm := index.slurm_of(name):
            said, known = _of_pool(pool, slurm, index)
            commands += said
            told |= known
    return Announcements((*commands, *_withdrawn(told, index)), told)


def is_told(pool: BatchPool, slurm: SlurmState, index: Index) -> bool:
    """Whether Slurm knows all of the pool's reservations as they should be now."""
    return not _of_pool(pool, slurm, index)[0]


def must_be_told(pool: BatchPool, slurm: SlurmState, index: Index) -> bool:
    """Whether a node that joins may be needed for a reservation: then jobs come only once Slurm knows."""
    return CAPABILITY in slurm.capabilities and bool(waiting(pool.metadata.name, index))


def _of_pool(pool: BatchPool, slurm: SlurmState, index: Index) -> tuple[list[Command], dict[str, Told]]:
    commands: list[Command] = []
    told: dict[str, Told] = {}
    if pool.spec.mode == "Recommend":
        return commands, told
    free, taken = len(free_nodes(pool, index)), set[str]()
    for claim in _to_announce(pool.metadata.name, index):
        nodes: tuple[str, ...] = ()
        if CAPABILITY in slurm.capabilities:
            count = wanted_nodes(claim, index)
            nodes = _nodes(claim, max(count - free, 0), taken, pool, slurm, index)
            free = max(free - count, 0)
            taken |= set(nodes)
            commands += _brought_about(claim, nodes, pool, slurm, index)
        told[claim.metadata.uid] = _told(claim, nodes, slurm, index)
    return commands, told


def _to_announce(pool_name: str, index: Index) -> list[CapacityClaim]:
    """Reservations that are not due yet, and before them those that are, and whose nodes are still being recalled."""
    later = waiting(pool_name, index)
    uids = {claim.metadata.uid for claim in later}
    due = [c for c in index.reservations.get(pool_name, ()) if c.metadata.uid not in uids and not _has_all(c, index)]
    return [*due, *later]


def _has_all(claim: CapacityClaim, index: Index) -> bool:
    uid = claim.metadata.uid
    return lacking(claim, index.pools[claim.spec.pool_name], index) == 0 and not index.coming_by_claim.get(uid)


def _nodes(
    claim: CapacityClaim, count: int, taken: set[str], pool: BatchPool, slurm: SlurmState, index: Index
) -> tuple[str, ...]:
    """Slurm nodes that are kept for the claim: before it is due those whose jobs end first, then those of them that the
    recall has not drained yet."""
    loans = [loan for loan in index.loans_of(pool.metadata.name) if _may_be_kept(loan, claim, slurm, index)]
    loans = [loan for loan in loans if loan.spec.slurm_node_name not in taken]
    now = slurm.reservations.get(reservation_name(claim.metadata.uid))
    announced = frozenset(now.nodes if now else ())
    if is_due(claim, index):
        return tuple(sorted({loan.spec.slurm_node_name for loan in loans} & announced))
    begins = recalls_from(claim, index) or index.now

    def in_the_way(loan: NodeLoan) -> tuple[bool, bool, bool, datetime, str]:
        jobs = index.jobs_on(loan)
        end = max((job.end_time or _NEVER for job in jobs), default=index.now)
        # Of nodes that are free in time the busy ones: a longer job may start on the idle ones.
        return end > begins, loan.spec.slurm_node_name not in announced, not jobs, end, loan.spec.node_name

    staying = [loan for loan in loans if not loan.is_wanted_back]
    return tuple(sorted(loan.spec.slurm_node_name for loan in sorted(staying, key=in_the_way)[:count]))


def _may_be_kept(loan: NodeLoan, claim: CapacityClaim, slurm: SlurmState, index: Index) -> bool:
    """Whether jobs may still start on the node, and the claim may have it."""
    node, record = index.snapshot.nodes.get(loan.spec.node_name), index.record_of(loan, slurm)
    if node is None or record is None or not suits(node, claim):
        return False
    if record.takes_nothing and not joins(record):
        return False
    if loan.is_wanted_back:
        return loan in index.coming_by_claim.get(claim.metadata.uid, ())
    return of_loan(loan, index) < (index.priority_of(claim) or 0)


def _brought_about(
    claim: CapacityClaim, nodes: tuple[str, ...], pool: BatchPool, slurm: SlurmState, index: Index
) -> list[Command]:
    name = reservation_name(claim.metadata.uid)
    now, begins, end = slurm.reservations.get(name), recalls_from(claim, index), reserved_until(claim)
    if not nodes or begins is None or end is None or end <= index.now:
        return []
    # The beginning of one that has begun cannot be changed.
    start = now.start if now and now.start <= index.now else begins.replace(microsecond=0)
    wanted = SlurmReservation(name, nodes, start, end.replace(microsecond=0))
    return [AnnounceReservation(pool.spec.slurm_cluster_name, claim, wanted)] if now != wanted else []


def _withdrawn(told: Mapping[str, Told], index: Index) -> list[Command]:
    """Reservations of ours that are no more needed. Others with such a name, of another Tidegate, have other nodes."""
    needed = {reservation_name(uid) for uid, said in told.items() if said.reason in _KEPT}
    ours: dict[str, set[str]] = defaultdict(set)
    for loan in index.snapshot.loans:
        if index.slurm_of(loan.spec.pool_name):
            ours[index.pools[loan.spec.pool_name].spec.slurm_cluster_name].add(loan.spec.slurm_node_name)
    return [
        WithdrawReservation(cluster, name)
        for cluster, nodes in sorted(ours.items())
        for name, reservation in sorted(index.snapshot.slurm[cluster].reservations.items())
        if name not in needed and nodes & set(reservation.nodes)
    ]


_KEPT = ("Reserved", "Telling")


def _told(claim: CapacityClaim, nodes: tuple[str, ...], slurm: SlurmState, index: Index) -> Told:
    name = reservation_name(claim.metadata.uid)
    if CAPABILITY not in slurm.capabilities:
        words = f"Slurm {slurm.release} takes no reservation by REST (25.05 and newer do), so long jobs may still start"
        return Told(False, "NotSupported", f"{words} on nodes that are needed then; the recall requeues them")
    if is_due(claim, index) and not nodes:
        return Told(False, "Recalling", "its nodes are being taken out of Slurm, which starts nothing on them any more")
    if not nodes:
        return Told(True, "NothingToTell", "free nodes are enough, none is taken out of Slurm")
    now = slurm.reservations.get(name)
    if now is None or now.nodes != nodes:
        return Told(False, "Telling", f"Slurm is asked to reserve {', '.join(nodes[:8])}")
    words = f"reservation {name} keeps jobs that would run into it off {', '.join(nodes[:8])}"
    return Told(True, "Reserved", words)

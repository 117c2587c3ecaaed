"""Claims that start later: from when on nodes are taken back for them, and what their start keeps lending from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tidegate.api import CapacityClaim
from tidegate.api.names import claim_fence
from tidegate.sharing.explanation import listed, utc
from tidegate.sharing.lead_time import lead
from tidegate.sharing.needs import wanted_nodes
from tidegate.sharing.snapshot import SlurmJob, SlurmState

if TYPE_CHECKING:
    from tidegate.sharing.index import Index


def recalls_from(claim: CapacityClaim, index: Index) -> datetime | None:
    """From when on nodes are held and recalled, so that they are there at the start; None for a claim without one."""
    start, pool = claim.spec.start_time, index.pools.get(claim.spec.pool_name)
    return start - lead(pool, claim.spec.recall_class, index) if start and pool else start


def is_due(claim: CapacityClaim, index: Index) -> bool:
    """Whether the claim gets nodes now. One that got some stays due, however much faster recalls are by now."""
    begins = recalls_from(claim, index)
    if begins is None or index.now >= begins:
        return True
    return claim_fence(claim.metadata.uid) in index.nodes_by_fence or claim.metadata.uid in index.coming_by_claim


def waiting(pool_name: str, index: Index) -> list[CapacityClaim]:
    """Reservations of the pool that are not due yet, the earliest first."""
    found = [(begins, c) for c in index.reservations.get(pool_name, ()) if (begins := recalls_from(c, index))]
    found = [(begins, claim) for begins, claim in found if not is_due(claim, index)]
    return [claim for _, claim in sorted(found, key=lambda pair: (pair[0], pair[1].metadata.uid))]


def promise(claim: CapacityClaim, index: Index) -> datetime | None:
    """The start that can be kept, judged now; later than the wanted one where that is too soon to recall nodes for."""
    start, begins = claim.spec.start_time, recalls_from(claim, index)
    return start + max(index.now - begins, timedelta()) if start and begins else None


@dataclass(frozen=True)
class Reserved:
    """What reservations keep from jobs that would run into them."""

    now: datetime
    home: int = 0
    """Nodes that Kubernetes has or gets back soon: from these the reservations are served first."""
    needs: tuple[tuple[datetime, int], ...] = ()
    """From when on how many nodes are needed, for each reservation."""
    closes: Mapping[str, datetime] = field(default_factory=dict)
    """Slurm nodes that Slurm itself keeps, and from when on."""

    def leaves(self, job: SlurmJob) -> int:
        """How many nodes may be lent for the job beyond those that are needed while it would still run."""
        return max(self.home - sum(nodes for moment, nodes in self.needs if self._runs_into(job, moment)), 0)

    def shuts_out(self, job: SlurmJob, node: str) -> bool:
        """Whether Slurm does not start the job on the node, because it would run into a reservation."""
        return node in self.closes and self._runs_into(job, self.closes[node])

    def _runs_into(self, job: SlurmJob, moment: datetime) -> bool:
        limit = job.time_limit_seconds
        return limit is None or self.now + timedelta(seconds=limit) > moment


def reserved(pool_name: str, slurm: SlurmState, home: int, index: Index) -> Reserved:
    """What the reservations of the pool keep from jobs that are pending now, with so many nodes at `home`."""
    needs = [(recalls_from(claim, index), wanted_nodes(claim, index)) for claim in waiting(pool_name, index)]
    closes: dict[str, datetime] = {}
    for reservation in slurm.reservations.values():
        for node in reservation.nodes:
            closes[node] = min(reservation.start, closes.get(node, reservation.start))
    return Reserved(index.now, home, tuple((begins, nodes) for begins, nodes in needs if begins), closes)


def words_of_wait(claim: CapacityClaim, index: Index) -> str:
    """What a reservation that is not due waits for."""
    start, begins = claim.spec.start_time, recalls_from(claim, index)
    return f"starts at {utc(start)}; its nodes are held and recalled from {utc(begins)} on" if start and begins else ""


def words_of_kept(pool_name: str, index: Index) -> str:
    """For which reservations nodes are kept, as the end of a sentence; empty without any."""
    whom = [f"{claim.metadata.namespace}/{claim.metadata.name}" for claim in waiting(pool_name, index)]
    return f"; jobs that would still run when {listed(whom)} starts get no node that it needs" if whom else ""

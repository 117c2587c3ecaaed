"""How many nodes of a pool some claims may have at a time: what each quota leaves, and who has the rest."""

from __future__ import annotations

from collections import Counter

from tidegate.api import BatchPool, CapacityClaim, Quota
from tidegate.sharing.index import Index
from tidegate.sharing.needs import coming_loans, held_nodes

_MOST_NAMED = 8


def counts(quota: Quota, claim: CapacityClaim, index: Index) -> bool:
    """Whether the quota is one for the claim."""
    class_name = claim.spec.priority_class_name or index.snapshot.default_priority_class
    return quota.namespace in (None, claim.metadata.namespace) and quota.priority_class_name in (None, class_name)


class Quotas:
    """The quotas of a pool while its claims are served: what was had before, and what was given since."""

    def __init__(self, pool: BatchPool, index: Index) -> None:
        self._pool, self._index = pool, index
        self._quotas = pool.spec.claims.quotas
        self._used: list[Counter[str]] = [Counter() for _ in self._quotas]
        if self._quotas:
            for claim in index.live_claims.values():
                if claim.spec.pool_name == pool.metadata.name:
                    self.give(claim, len(held_nodes(claim, index)) + len(coming_loans(claim, index)))

    def give(self, claim: CapacityClaim, nodes: int) -> None:
        """The claim has that many nodes more."""
        for quota, used in zip(self._quotas, self._used, strict=True):
            if nodes and counts(quota, claim, self._index):
                used[f"{claim.metadata.namespace}/{claim.metadata.name}"] += nodes

    def left(self, claim: CapacityClaim) -> int | None:
        """How many more nodes the claim may get; None when no quota counts it."""
        found = self._tightest(claim)
        return max(found[0].nodes - found[1].total(), 0) if found else None

    def words(self, claim: CapacityClaim, wanted: int) -> str:
        """One sentence why the claim gets no more: whose quota, and who has what."""
        found = self._tightest(claim)
        if found is None:
            return ""
        quota, used = found
        has = ", ".join(f"{name} has {nodes}" for name, nodes in sorted(used.items())[:_MOST_NAMED])
        more = f" and {len(used) - _MOST_NAMED} more claims" if len(used) > _MOST_NAMED else ""
        return f"wants {of_nodes(wanted)}, but {whom(quota, self._pool)}: {has or 'nobody has any'}{more}"

    def _tightest(self, claim: CapacityClaim) -> tuple[Quota, Counter[str]] | None:
        ours = [
            (quota, used)
            for quota, used in zip(self._quotas, self._used, strict=True)
            if counts(quota, claim, self._index)
        ]
        return min(ours, key=lambda one: one[0].nodes - one[1].total(), default=None)


def never_fits(claim: CapacityClaim, wanted: int, pool: BatchPool, index: Index) -> Quota | None:
    """A quota that would be too small if nobody else had a node; None when there is none."""
    return next((q for q in pool.spec.claims.quotas if wanted > q.nodes and counts(q, claim, index)), None)


def of_nodes(count: int) -> str:
    """`1 node` or `2 nodes`."""
    return f"{count} node{'' if count == 1 else 's'}"


def whom(quota: Quota, pool: BatchPool) -> str:
    """Whose claims the quota counts and what they may have, for a sentence."""
    words = [f"namespace {quota.namespace}"] if quota.namespace else []
    words += [f"PriorityClass {quota.priority_class_name}"] if quota.priority_class_name else []
    who = " with ".join(words) or "all claims together"
    return f"{who} may claim {of_nodes(quota.nodes)} of pool {pool.metadata.name} at a time"

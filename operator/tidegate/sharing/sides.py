"""How many nodes of a pool are Kubernetes' own, and how many more its terms let it take back."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.api import BatchPool
from tidegate.api.names import claim_of_fence
from tidegate.sharing.idleness import set_aside
from tidegate.sharing.index import Index
from tidegate.sharing.snapshot import Node


@dataclass(frozen=True, slots=True)
class Sides:
    """Who has how many nodes of a pool."""

    kubernetes: int
    """Nodes that GPU pods use, that are free for them, or that are held for claims."""
    coming: int
    """Nodes on their way back to Kubernetes."""
    may_take_back: int
    """How many more loans may be recalled for claims and headroom, by `kubernetes.cap`."""


def sides(pool: BatchPool, index: Index) -> Sides:
    """Counted once for a decision: every claim asks."""
    known = index.sides
    if pool.metadata.name not in known:
        known[pool.metadata.name] = _count(pool, index)
    return known[pool.metadata.name]


def _count(pool: BatchPool, index: Index) -> Sides:
    loans = index.loans_of(pool.metadata.name)
    staying = [loan for loan in loans if not loan.is_wanted_back]
    coming = len(loans) - len(staying)
    kubernetes = sum(_is_kubernetes(node, pool, index) for node in index.nodes_of_pool[pool.metadata.name])
    cap = index.terms(pool).kubernetes.cap
    room = len(staying) if cap is None else max(min(len(staying), cap - kubernetes - coming), 0)
    return Sides(kubernetes, coming, room)


def _is_kubernetes(node: Node, pool: BatchPool, index: Index) -> bool:
    if node.name in index.active_loans:
        return False
    if node.fence is not None:
        return claim_of_fence(node.fence) is not None
    return bool(index.foreign_gpu_pods(node.name, pool)) or set_aside(node, pool) is None

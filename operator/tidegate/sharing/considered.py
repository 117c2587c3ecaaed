"""Why a claim does not have its nodes yet: which were looked at, what each would cost or what keeps it, and when."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from tidegate.api import MOST_CONSIDERED, BatchPool, CapacityClaim, ConsideredNode, NodeLoan, RecallClass
from tidegate.api.names import claim_fence
from tidegate.sharing.fit import Kind, may_run, shape_of
from tidegate.sharing.idleness import held_by, set_aside
from tidegate.sharing.index import Index
from tidegate.sharing.lead_time import back_by, lead
from tidegate.sharing.needs import coming_loans, held_nodes, is_automatic, labels_of, waiting_pods, wanted_nodes
from tidegate.sharing.places import by_shape
from tidegate.sharing.priorities import of_loan
from tidegate.sharing.protection import shields
from tidegate.sharing.snapshot import Node
from tidegate.sharing.victims import cost_of

LOOKED_AT = 16
"""Of a large pool only the nodes that are nearest to being had are looked at."""
_NEAREST = ("Coming", "Free", "Recallable", "Protected", "AsImportant", "Promised", "Held")


class _Wish(NamedTuple):
    """Claims with the same one are given the same answers, as long as they have no node."""

    pool_name: str
    priority: int
    recall_class: RecallClass
    labels: frozenset[tuple[str, str]]
    shapes: frozenset[Kind] | None
    """What the pods of an automatic claim need of a node."""


@dataclass(frozen=True, slots=True)
class _Answer:
    node: str
    answer: str
    message: str
    there: datetime | None = None
    """When the claim could have the node; None when nobody knows."""

    @property
    def rank(self) -> tuple[int, str]:
        return (_NEAREST.index(self.answer) if self.answer in _NEAREST else len(_NEAREST), self.node)


def consider(claim: CapacityClaim, index: Index) -> tuple[tuple[ConsideredNode, ...], datetime | None]:
    """The nodes that come into question, the nearest first, and when the claim has what it wants, if that is known.

    Costs and times are those of this moment: they are written down when what the claim waits for changes, and stay as
    they were then, so that a waiting claim is not written every second.
    """
    pool, priority = index.pools.get(claim.spec.pool_name), index.priority_of(claim)
    if pool is None or priority is None:
        return (), None
    shapes = frozenset(map(shape_of, waiting_pods(claim, pool, index))) if is_automatic(claim) else None
    wish = _Wish(pool.metadata.name, priority, claim.spec.recall_class, labels_of(claim), shapes)
    mine = {node.name for node in held_nodes(claim, index)}
    if mine or coming_loans(claim, index):
        shown, times = _look(wish, claim.metadata.uid, index)
    else:
        shown, times = index.once(_look, wish, "")
    lacking = wanted_nodes(claim, index) - len(mine)
    return shown, times[lacking - 1] if 0 < lacking <= len(times) else None


def _look(wish: _Wish, claim_uid: str, index: Index) -> tuple[tuple[ConsideredNode, ...], list[datetime]]:
    """The answers for a claim, or without one for all claims with this wish that neither have nor get a node; and from
    when on how many nodes are there."""
    nearest = (node for node in index.once(_nearest_first, wish.pool_name) if wish.labels <= node.labels.items())
    mine = {node.name for node in index.nodes_by_fence.get(claim_fence(claim_uid), ())}
    looked_at = (node for node in islice(nearest, LOOKED_AT) if node.name not in mine)
    answers = sorted((_answer(node, claim_uid, wish, index) for node in looked_at), key=lambda answer: answer.rank)
    shown = tuple(index.once(_shown, answer) for answer in answers[:MOST_CONSIDERED])
    return shown, sorted(answer.there for answer in answers if answer.there)


def _shown(answer: _Answer, _: Index) -> ConsideredNode:
    """Many claims are given the same answers."""
    return ConsideredNode(node_name=answer.node, answer=answer.answer, message=answer.message)


def _nearest_first(pool_name: str, index: Index) -> list[Node]:
    """Free nodes, then those on loan, the least important loans first, then those that others have."""
    pool = index.pools[pool_name]

    def rank(node: Node) -> tuple[float, str]:
        if loan := index.active_loans.get(node.name):
            return of_loan(loan, index), node.name
        return (math.inf if node.fence or index.foreign_gpu_pods(node.name, pool) else -math.inf), node.name

    return sorted(index.nodes_of_pool[pool_name], key=rank)


def _answer(node: Node, claim_uid: str, wish: _Wish, index: Index) -> _Answer:
    shapes, pool = wish.shapes, index.pools[wish.pool_name]
    if shapes is not None and not any(index.once(_runs_there, shape, node.name) for shape in shapes):
        return _Answer(node.name, "DoesNotFit", "no waiting pod of the claim may run there, by its size or its rules")
    if loan := index.active_loans.get(node.name):
        return _of_loan(loan, claim_uid, wish, pool, index)
    if (owner := index.claimant(node)) is not None:
        worth = index.priority_of(owner)
        words = f"held for claim {owner.metadata.namespace}/{owner.metadata.name}, which has priority {worth}"
        return _Answer(node.name, "Held", words)
    return index.once(_at_home, node.name, pool.metadata.name)


def _at_home(node_name: str, pool_name: str, index: Index) -> _Answer:
    node, pool = index.snapshot.nodes[node_name], index.pools[pool_name]
    if blocker := set_aside(node, pool) or held_by(node, pool, index):
        return _Answer(node.name, blocker.reason, blocker.message)
    return _Answer(node.name, "Free", "nobody uses it", index.now)


def _runs_there(shape: Kind, node_name: str, index: Index) -> bool:
    return may_run(index.once(by_shape)[shape], index.snapshot.nodes[node_name])


def _of_loan(loan: NodeLoan, claim_uid: str, wish: _Wish, pool: BatchPool, index: Index) -> _Answer:
    name = loan.spec.node_name
    back = loan.spec.back
    if loan.is_wanted_back:
        due = back_by(loan, pool, index)
        if back and back.claim and back.claim.uid == claim_uid:
            return _Answer(name, "Coming", f"loan {loan.metadata.name} returns for it", due)
        if back and back.claim and index.is_promised(loan):
            return _Answer(name, "Promised", f"it returns for claim {back.claim.namespace}/{back.claim.name}")
        return _Answer(name, "Coming", f"loan {loan.metadata.name} returns for nobody yet", due)
    return index.once(_of_lent, name, wish.priority, wish.recall_class)


def _of_lent(name: str, priority: int, recall_class: RecallClass, index: Index) -> _Answer:
    """The same for all claims of one priority and class."""
    loan = index.active_loans[name]
    worth = of_loan(loan, index)
    if worth >= priority:
        return _Answer(name, "AsImportant", f"its loan has priority {worth}, which is not below {priority}")
    takes = lead(index.pools[loan.spec.pool_name], recall_class, index)
    if found := shields(loan, index):
        until = [shield.until for shield in found]
        last = max((moment for moment in until if moment), default=index.now)
        words = f"protected: {'; '.join(shield.words for shield in found[:4])}"
        return _Answer(name, "Protected", words, None if None in until else last + takes)
    words = cost_of(loan, recall_class, index).words
    return _Answer(name, "Recallable", words, index.now + takes)

"""Why a claim does not have its nodes yet: which were looked at, what each would cost or what keeps it, and when."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from tidegate.api import MOST_CONSIDERED, BatchPool, CapacityClaim, ConsideredNode, NodeLoan, RecallClass
from tidegate.sharing.fit import Kind, may_run, shape_of
from tidegate.sharing.idleness import held_by, set_aside
from tidegate.sharing.index import Index
from tidegate.sharing.lead_time import back_by, lead
from tidegate.sharing.needs import held_nodes, is_automatic, suits, waiting_pods, wanted_nodes
from tidegate.sharing.places import by_shape
from tidegate.sharing.priorities import of_loan
from tidegate.sharing.protection import shields
from tidegate.sharing.snapshot import Node
from tidegate.sharing.victims import cost_of

LOOKED_AT = 16
"""Of a large pool only the nodes that are nearest to being had are looked at."""
_NEAREST = ("Coming", "Free", "Recallable", "Protected", "AsImportant", "Promised", "Held")


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
    nearest = (node for node in index.once(_nearest_first, pool.metadata.name) if suits(node, claim))
    mine = {node.name for node in held_nodes(claim, index)}
    shapes = {shape_of(pod) for pod in waiting_pods(claim, pool, index)} if is_automatic(claim) else None
    looked_at = (node for node in islice(nearest, LOOKED_AT) if node.name not in mine)
    answers = [_answer(node, claim, priority, shapes, pool, index) for node in looked_at]
    answers.sort(key=lambda answer: answer.rank)
    lacking = wanted_nodes(claim, index) - len(mine)
    times = sorted(answer.there for answer in answers if answer.there)
    shown = answers[:MOST_CONSIDERED]
    return (
        tuple(index.once(_shown, answer) for answer in shown),
        times[lacking - 1] if 0 < lacking <= len(times) else None,
    )


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


def _answer(
    node: Node, claim: CapacityClaim, priority: int, shapes: set[Kind] | None, pool: BatchPool, index: Index
) -> _Answer:
    if shapes is not None and not any(index.once(_runs_there, shape, node.name) for shape in shapes):
        return _Answer(node.name, "DoesNotFit", "no waiting pod of the claim may run there, by its size or its rules")
    if loan := index.active_loans.get(node.name):
        return _of_loan(loan, claim, priority, pool, index)
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


def _of_loan(loan: NodeLoan, claim: CapacityClaim, priority: int, pool: BatchPool, index: Index) -> _Answer:
    name = loan.spec.node_name
    back = loan.spec.back
    if loan.is_wanted_back:
        due = back_by(loan, pool, index)
        if back and back.claim and back.claim.uid == claim.metadata.uid:
            return _Answer(name, "Coming", f"loan {loan.metadata.name} returns for it", due)
        if back and back.claim and index.is_promised(loan):
            return _Answer(name, "Promised", f"it returns for claim {back.claim.namespace}/{back.claim.name}")
        return _Answer(name, "Coming", f"loan {loan.metadata.name} returns for nobody yet", due)
    return index.once(_of_lent, name, priority, claim.spec.recall_class)


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

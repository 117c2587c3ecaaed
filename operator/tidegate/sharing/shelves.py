"""Claims of one sort take from one shelf, so that thousands of them cost little more than the first.

Claims for nodes are of one sort when the same nodes would do for them at the same price. What helps them is looked up
once, and loans are chosen for all of them together: a job of several nodes dies once, for whichever claims these are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from tidegate.api import CapacityClaim, NodeLoan, RecallClass
from tidegate.sharing.idleness import Blocker
from tidegate.sharing.index import Index
from tidegate.sharing.lifetime import is_gathering
from tidegate.sharing.needs import is_automatic, labels_of, need_of
from tidegate.sharing.recall_classes import class_of
from tidegate.sharing.supply import Offer, Portion, Supply, offer_for, why_no_more
from tidegate.sharing.victims import cheapest

T = TypeVar("T")


class Sort(NamedTuple):
    """What makes claims alike."""

    pool_name: str
    recall_class: RecallClass
    priority: int
    helpful: frozenset[str] | None
    """The nodes that the pods of an automatic claim can use."""
    labels: frozenset[tuple[str, str]]


@dataclass
class Shelf:
    """What claims of one sort may have of a supply, each taking from the end of the lists."""

    offer: Offer
    wanted: int
    """How many nodes all claims of this sort lack still."""
    chosen: list[NodeLoan] = field(default_factory=list)
    """Loans that were chosen for all of them and that none of them has yet."""


def sort_of(claim: CapacityClaim, supply: Supply, index: Index) -> Sort | None:
    """None where one node is not as good as another for the claim, or a part of what it lacks is of no use."""
    if claim.spec.gpus or is_gathering(claim) or supply.quotas.left(claim) is not None:
        return None
    return Sort(
        pool_name=supply.pool.metadata.name,
        recall_class=class_of(claim, supply.pool, index),
        priority=index.priority_of(claim) or 0,
        helpful=need_of(claim, supply.pool, index).helpful if is_automatic(claim) else None,
        labels=labels_of(claim),
    )


def shelf_for(claim: CapacityClaim, wanted: int, supply: Supply, index: Index) -> Shelf:
    """The shelf of the first claim of a sort, all of which lack `wanted` nodes."""
    offer = offer_for(claim, supply, index)
    for things in (offer.free, offer.returning):
        things.reverse()
    return Shelf(offer, wanted)


def take_from(
    shelf: Shelf, claim: CapacityClaim, wanted: int, supply: Supply, index: Index
) -> tuple[Portion, Blocker | None]:
    """What a claim of the shelf's sort gets, and why it is not all."""
    offer = shelf.offer
    free = _draw(offer.free, wanted, lambda node: node.name not in supply.taken)
    returning = _draw(offer.returning, wanted - len(free), lambda loan: loan.spec.node_name not in supply.taken)
    rest = wanted - len(free) - len(returning)
    recalled = _recalled(min(rest - len(offer.opening), supply.room), shelf, claim, supply, index)
    shelf.wanted -= wanted
    portion = Portion(free, [*returning, *recalled])
    if portion.nodes >= wanted:
        return portion, None
    _drop_given(offer.lent, supply)
    return portion, why_no_more(claim, portion, offer, supply, index)


def _recalled(count: int, shelf: Shelf, claim: CapacityClaim, supply: Supply, index: Index) -> list[NodeLoan]:
    _drop_given(shelf.offer.lent, supply)
    if count <= 0 or not shelf.offer.lent:
        return []
    drawn = _draw(shelf.chosen, count, lambda loan: loan.spec.node_name not in supply.taken)
    if len(drawn) < count:
        gone = supply.taken.union(loan.spec.node_name for loan in drawn)
        left = [loan for loan in shelf.offer.lent if loan.spec.node_name not in gone]
        all_together = max(min(shelf.wanted, supply.room), count) - len(drawn)
        shelf.chosen = cheapest(left, all_together, class_of(claim, supply.pool, index), index)[::-1]
        drawn += _draw(shelf.chosen, count - len(drawn), lambda _: True)
    return drawn


def _drop_given(lent: list[NodeLoan], supply: Supply) -> None:
    """From the end, so that none is left once all were given out, which costs nothing to see."""
    while lent and lent[-1].spec.node_name in supply.taken:
        lent.pop()


def _draw(things: list[T], count: int, is_there: Callable[[T], bool]) -> list[T]:
    """The last ones that are still there, taken off the list."""
    drawn: list[T] = []
    while things and len(drawn) < count:
        if is_there(thing := things.pop()):
            drawn.append(thing)
    return drawn

"""Which nodes each claim gets now, in the one order of all claims: priority, then age, then UID.

Reserve first: free nodes before loans that are on their way back already, for nobody or for a claim that is over, and
these before a loan is recalled. A gang gets all that it lacks in one go or nothing, so that no two of them gather
halves of the same nodes; what a gang waits for is not given to a weaker gang either.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tidegate.api import RECALL_CLASSES, BatchPool, CapacityClaim, ClaimReference, LoanReturn, NodeLoan
from tidegate.sharing.commands import HoldNode, RecallLoan
from tidegate.sharing.idleness import Blocker
from tidegate.sharing.index import Index, created
from tidegate.sharing.lifetime import is_gathering
from tidegate.sharing.needs import (
    amount,
    asks_too_much,
    coming_loans,
    fewest,
    held_nodes,
    is_automatic,
    lacking,
    need_of,
    suitable,
    there_is,
    units_of,
    units_of_loan,
    wanted_nodes,
    words_of,
)
from tidegate.sharing.quotas import never_fits, of_nodes, whom
from tidegate.sharing.recall_classes import class_of, recall_class_of, why_not
from tidegate.sharing.reservations import is_due
from tidegate.sharing.return_steps import back_of
from tidegate.sharing.shelves import Shelf, Sort, shelf_for, sort_of, take_from
from tidegate.sharing.supply import Offer, Portion, Supply, offer_for, supply_of, why_no_more
from tidegate.sharing.victims import cheapest, cost_of


@dataclass
class Allotment:
    """What claims get by this decision, and by UID why those get no more that lack more."""

    holds: list[HoldNode] = field(default_factory=list)
    recalls: list[RecallLoan] = field(default_factory=list)
    waits: dict[str, Blocker] = field(default_factory=dict)


def in_order(index: Index) -> list[CapacityClaim]:
    """Live claims in the one order for all: priority, then age, then UID."""
    return index.once(_in_order)


def _in_order(index: Index) -> list[CapacityClaim]:
    return sorted(
        index.live_claims.values(),
        key=lambda c: (-(index.priority_of(c) or 0), created(c), c.metadata.uid),
    )


def unservable(claim: CapacityClaim, index: Index) -> Blocker | None:
    """Why nothing is sought for the claim before somebody changes it, its pool or a PriorityClass."""
    return index.once(_unservable, claim.metadata.uid)


def _unservable(uid: str, index: Index) -> Blocker | None:
    claim = index.claims[uid]
    pool, priority = index.pools.get(claim.spec.pool_name), index.priority_of(claim)
    if pool is None:
        names = ", ".join(sorted(index.pools)) or "(there is none yet)"
        return Blocker(
            "PoolNotFound", f"BatchPool {claim.spec.pool_name} does not exist; set poolName to one of {names}"
        )
    if priority is None:
        words = f"PriorityClass {claim.spec.priority_class_name} does not exist; create it or name another"
        return Blocker("PriorityClassNotFound", words)
    if asks_too_much(claim, pool, index):
        return Blocker("MoreThanPool", _too_much(claim, pool, index))
    if recall_class_of(claim, pool, priority) is None:
        return Blocker("ClassNotAllowed", why_not(pool, claim.spec.recall_class, priority))
    wanted = wanted_nodes(claim, index)
    quota = None if is_automatic(claim) else never_fits(claim, wanted, pool, index)
    if quota:
        words = (
            f"wants {of_nodes(wanted)}, but {whom(quota, pool)}; ask for less, or for more in the pool's claims.quotas"
        )
        return Blocker("QuotaExceeded", words)
    return None


def allot(index: Index) -> Allotment:
    """Give out what the pools have, to each claim what it lacks, the most important first."""
    given = Allotment()
    lacks = [(claim, wanted) for claim in in_order(index) if (wanted := _lacks(claim, index)) > 0]
    supplies = {name: supply_of(index.pools[name], index) for name in {claim.spec.pool_name for claim, _ in lacks}}
    sorts = {claim.metadata.uid: sort_of(claim, supplies[claim.spec.pool_name], index) for claim, _ in lacks}
    together, shelves = Counter[Sort](), dict[Sort, Shelf]()
    for claim, wanted in lacks:
        if sort := sorts[claim.metadata.uid]:
            together[sort] += wanted
    for claim, wanted in lacks:
        supply, sort = supplies[claim.spec.pool_name], sorts[claim.metadata.uid]
        if sort is None:
            portion, blocker = _portion(claim, wanted, supply, index)
        else:
            if sort not in shelves:
                shelves[sort] = shelf_for(claim, together[sort], supply, index)
            portion, blocker = take_from(shelves[sort], claim, wanted, supply, index)
        if blocker:
            given.waits[claim.metadata.uid] = blocker
        _give(portion, claim, supply, given, index)
    return given


def _lacks(claim: CapacityClaim, index: Index) -> int:
    """How many units are sought for the claim now."""
    if unservable(claim, index) or not is_due(claim, index):
        return 0
    pool = index.pools[claim.spec.pool_name]
    wanted = lacking(claim, pool, index)
    if wanted > 0 and is_automatic(claim) and need_of(claim, pool, index).one_by_one:
        # Which other nodes help depends on this one, so they are chosen when it is on its way.
        return 1
    return wanted


def _portion(claim: CapacityClaim, wanted: int, supply: Supply, index: Index) -> tuple[Portion, Blocker | None]:
    """What the claim gets of the supply for the units that it lacks, and why it is not all."""
    pool, offer = supply.pool, offer_for(claim, supply, index)
    largest = sorted(offer.lent, key=lambda loan: units_of_loan(loan, claim), reverse=True)
    all_there_is = Portion(offer.free, [*offer.returning, *largest[: supply.room]])
    portion = _choose(claim, wanted, offer, supply, index)
    left = supply.quotas.left(claim)
    if left is not None and portion.nodes > left:
        blocker = Blocker("QuotaExceeded", supply.quotas.words(claim, wanted_nodes(claim, index)))
        if is_gathering(claim):
            return Portion(), blocker
        return Portion(portion.free[:left], portion.loans[: max(left - len(portion.free), 0)]), blocker
    if portion.units(claim, pool) >= wanted:
        return portion, None
    if is_gathering(claim):
        silent = index.slurm_of(pool.metadata.name) is None
        if not offer.opening and (silent or _may_be_had(claim, wanted, all_there_is, supply, index)):
            supply.awaited |= set(all_there_is.names)
        portion = Portion()
    why = why_no_more(claim, portion, offer, supply, index)
    if is_gathering(claim) and why and why.reason == "NothingToRecall":
        return portion, _gang_waits(claim, all_there_is, supply, index)
    return portion, why


def _choose(claim: CapacityClaim, wanted: int, offer: Offer, supply: Supply, index: Index) -> Portion:
    pool = supply.pool
    nodes = fewest(offer.free, lambda node: units_of(node, claim, pool), wanted)
    wanted -= sum(units_of(node, claim, pool) for node in nodes)
    loans = fewest(offer.returning, lambda loan: units_of_loan(loan, claim), wanted)
    wanted -= sum(units_of_loan(loan, claim) for loan in loans)
    wanted -= sum(units_of(node, claim, pool) for node in offer.opening)
    recalled = _cheapest_of_fewest(claim, wanted, offer.lent, pool, index)
    return Portion(nodes, [*loans, *recalled[: supply.room]])


def _cheapest_of_fewest(
    claim: CapacityClaim, wanted: int, loans: list[NodeLoan], pool: BatchPool, index: Index
) -> list[NodeLoan]:
    """Of the sets of fewest loans that have the units one whose recall loses little."""
    recall_class = class_of(claim, pool, index)
    chosen: list[NodeLoan] = []
    while wanted > 0 and loans:
        count = len(fewest(loans, lambda loan: units_of_loan(loan, claim), wanted))
        # Any `count` of these will do. If there are fewer, all of them are needed, and smaller ones beside them.
        large = [loan for loan in loans if units_of_loan(loan, claim) * count >= wanted] or loans
        chosen += cheapest(large, count, recall_class, index)
        wanted -= sum(units_of_loan(loan, claim) for loan in chosen[-min(count, len(large)) :])
        tried = {loan.metadata.name for loan in large}
        loans = [loan for loan in loans if loan.metadata.name not in tried]
    return chosen


def _give(portion: Portion, claim: CapacityClaim, supply: Supply, given: Allotment, index: Index) -> None:
    if portion.nodes == 0:
        return
    supply.taken.update(portion.names)
    supply.room -= sum(not loan.is_wanted_back for loan in portion.loans)
    supply.quotas.give(claim, portion.nodes)
    given.holds += [HoldNode(node, claim.metadata.uid) for node in portion.free]
    given.recalls += [
        RecallLoan(loan, _back_for(claim, loan, supply.pool, index), None if loan.is_wanted_back else index.seen(loan))
        for loan in portion.loans
    ]


def _back_for(claim: CapacityClaim, loan: NodeLoan, pool: BatchPool, index: Index) -> LoanReturn:
    """The claim's own recall, or for a loan on its way back the claim as its goal, at the faster of the two classes."""
    meta = claim.metadata
    reference = ClaimReference(namespace=meta.namespace or "", name=meta.name, uid=meta.uid)
    recall_class = class_of(claim, pool, index)
    if loan.is_wanted_back:
        back = back_of(loan, index)
        faster = max(back.recall_class, recall_class, key=RECALL_CLASSES.index)
        return back.model_copy(update={"claim": reference, "recall_class": faster})
    words = f"claim {meta.namespace}/{meta.name} needs the node; {cost_of(loan, recall_class, index).words}"
    return LoanReturn(reason="Claimed", message=words, recall_class=recall_class, claim=reference)


def _may_be_had(claim: CapacityClaim, wanted: int, now: Portion, supply: Supply, index: Index) -> bool:
    """Whether the gang could be whole once other claims let go: only then it is worth that weaker gangs wait."""
    names = set(now.names)
    others = [
        node
        for node in suitable(claim, supply.pool, index)
        if node.name not in names and (owner := index.claimant(node)) and owner is not claim
    ]
    return now.units(claim, supply.pool) + sum(units_of(node, claim, supply.pool) for node in others) >= wanted


def _gang_waits(claim: CapacityClaim, now: Portion, supply: Supply, index: Index) -> Blocker:
    has = len(held_nodes(claim, index)) + len(coming_loans(claim, index))
    words = [f"wants {words_of(amount(claim), claim)} at once"]
    words += [f"has {has} of them"] if has else []
    words.append(f"{words_of(now.units(claim, supply.pool), claim)} can be had now")
    return Blocker("GangWaits", f"{', '.join(words)}; nothing is recalled before all can be had")


def _too_much(claim: CapacityClaim, pool: BatchPool, index: Index) -> str:
    asks, field = words_of(amount(claim), claim), "gpus" if claim.spec.gpus else "nodes"
    has = there_is(claim, pool, index)
    labels = ",".join(f"{key}={value}" for key, value in sorted(claim.spec.node_selector.items()))
    there = f"has {has} with the labels {labels}" if labels else f"has {has}"
    return f"asks for {asks}, pool {pool.metadata.name} {there}; lower {field} or change poolName"

"""Which nodes each claim gets now, in the one order of all claims: priority, then age, then UID.

Reserve first: free nodes before loans that are on their way back already, for nobody or for a claim that is over, and
these before a loan is recalled. A gang gets all that it lacks in one go or nothing, so that no two of them gather
halves of the same nodes; what a gang waits for is not given to a weaker gang either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from tidegate.api import RECALL_CLASSES, BatchPool, CapacityClaim, ClaimReference, LoanReturn, NodeLoan, RecallClass
from tidegate.sharing import recall_classes
from tidegate.sharing.commands import HoldNode, RecallLoan
from tidegate.sharing.explanation import listed
from tidegate.sharing.idleness import Blocker, free_nodes, set_aside
from tidegate.sharing.index import Index, created
from tidegate.sharing.lifetime import is_gathering
from tidegate.sharing.needs import (
    amount,
    asks_too_much,
    coming_loans,
    fewest,
    held_nodes,
    is_automatic,
    labels_of,
    lacking,
    need_of,
    suitable,
    suits,
    there_is,
    units_of,
    units_of_loan,
    wanted_nodes,
    words_of,
)
from tidegate.sharing.priorities import of_loan
from tidegate.sharing.protection import protecting, shields
from tidegate.sharing.quotas import Quotas, never_fits, of_nodes, whom
from tidegate.sharing.reservations import is_due
from tidegate.sharing.return_steps import back_of
from tidegate.sharing.sides import sides
from tidegate.sharing.snapshot import Node
from tidegate.sharing.victims import cheapest, cost_of

T = TypeVar("T")


@dataclass
class Allotment:
    """What claims get by this decision, and by UID why those get no more that lack more."""

    holds: list[HoldNode] = field(default_factory=list)
    recalls: list[RecallLoan] = field(default_factory=list)
    waits: dict[str, Blocker] = field(default_factory=dict)


@dataclass
class _Supply:
    """What a pool still has to give."""

    pool: BatchPool
    quotas: Quotas
    free: Sequence[Node]
    opening: Sequence[Node]
    """Free in a moment: a claim that is over has its fence there still, or a loan that let go of it its last step to
    write. No loan is recalled in place of one."""
    returning: Sequence[NodeLoan]
    """On their way back, promised to no live claim."""
    lent: Sequence[NodeLoan]
    protected: Sequence[NodeLoan]
    """Lent, too, but with jobs that may not be ended for a claim."""
    room: int
    """How many of these the pool's terms let it take back."""
    taken: set[str] = field(default_factory=set)
    """Nodes that were given out by now."""
    awaited: set[str] = field(default_factory=set)
    """Nodes that a stronger gang waits for; a weaker one must not begin with them."""
    shelves: dict[_Sort, _Shelf] = field(default_factory=dict)


class _Sort(NamedTuple):
    """Claims for nodes that may have the same ones at the same price."""

    recall_class: RecallClass
    priority: int
    helpful: frozenset[str] | None
    """The nodes that the pods of an automatic claim can use."""
    labels: frozenset[tuple[str, str]]


@dataclass
class _Shelf:
    """What claims of one sort may have of a supply, each taking from the end of the lists."""

    free: list[Node]
    opening: Sequence[Node]
    returning: list[NodeLoan]
    lent: list[NodeLoan]
    protected: str
    """Which jobs keep further loans, and until when."""
    wanted: int
    """How many nodes all claims of this sort lack. Loans are chosen for all of them together: a job of several nodes
    dies once, for whichever claims these are."""
    chosen: list[NodeLoan] = field(default_factory=list)


@dataclass
class _Portion:
    """Nodes for one claim."""

    free: Sequence[Node] = ()
    loans: Sequence[NodeLoan] = ()

    @property
    def nodes(self) -> int:
        return len(self.free) + len(self.loans)

    @property
    def names(self) -> list[str]:
        return [node.name for node in self.free] + [loan.spec.node_name for loan in self.loans]

    def units(self, claim: CapacityClaim, pool: BatchPool) -> int:
        return sum(units_of(n, claim, pool) for n in self.free) + sum(units_of_loan(one, claim) for one in self.loans)


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
        return Blocker("ClassNotAllowed", recall_classes.why_not(pool, claim.spec.recall_class, priority))
    wanted = wanted_nodes(claim, index)
    quota = None if is_automatic(claim) else never_fits(claim, wanted, pool, index)
    if quota:
        words = (
            f"wants {of_nodes(wanted)}, but {whom(quota, pool)}; ask for less, or for more in the pool's claims.quotas"
        )
        return Blocker("QuotaExceeded", words)
    return None


def recall_class_of(claim: CapacityClaim, pool: BatchPool, priority: int) -> RecallClass | None:
    """The class that the claim's recalls have; None when it may not use what it asks for.

    Nobody chose the class of an automatic claim, so it takes what it may.
    """
    wanted = claim.spec.recall_class
    if is_automatic(claim):
        return recall_classes.fastest_allowed(pool, wanted, priority)
    return wanted if recall_classes.may_use(pool, wanted, priority) else None


def _class_of(claim: CapacityClaim, pool: BatchPool, index: Index) -> RecallClass:
    """The class by which loans are recalled for the claim; that of its spec where it may use none."""
    return recall_class_of(claim, pool, index.priority_of(claim) or 0) or claim.spec.recall_class


def allot(index: Index) -> Allotment:
    """Give out what the pools have, to each claim what it lacks, the most important first."""
    given = Allotment()
    lacks = [(claim, wanted) for claim in in_order(index) if (wanted := _lacks(claim, index)) > 0]
    supplies = {name: _supply(index.pools[name], index) for name in {claim.spec.pool_name for claim, _ in lacks}}
    plain: dict[str, _Sort] = {}
    together = Counter[tuple[str, _Sort]]()
    for claim, wanted in lacks:
        if _is_plain(claim, supplies[claim.spec.pool_name]):
            sort = plain[claim.metadata.uid] = _sort(claim, index)
            together[claim.spec.pool_name, sort] += wanted
    for claim, wanted in lacks:
        supply = supplies[claim.spec.pool_name]
        if sort_of := plain.get(claim.metadata.uid):
            if sort_of not in supply.shelves:
                supply.shelves[sort_of] = _shelf(claim, together[claim.spec.pool_name, sort_of], supply, index)
            portion, blocker = _from_shelf(claim, wanted, supply.shelves[sort_of], supply, index)
        else:
            portion, blocker = _portion(claim, wanted, supply, index)
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


def _is_plain(claim: CapacityClaim, supply: _Supply) -> bool:
    """Whether one node is as good as another for the claim, and a part of what it lacks is of use."""
    return not claim.spec.gpus and not is_gathering(claim) and supply.quotas.left(claim) is None


def _sort(claim: CapacityClaim, index: Index) -> _Sort:
    pool, priority = index.pools[claim.spec.pool_name], index.priority_of(claim) or 0
    recall_class = _class_of(claim, pool, index)
    helpful = need_of(claim, pool, index).helpful if is_automatic(claim) else None
    return _Sort(recall_class, priority, helpful, labels_of(claim))


def _shelf(claim: CapacityClaim, wanted: int, supply: _Supply, index: Index) -> _Shelf:
    """For the first claim of its sort."""
    helps = _helps(claim, supply, index)
    free, returning, lent = _eligible(claim, supply, index)
    opening = [node for node in supply.opening if helps(node)]
    protected = protecting(_weaker(supply.protected, claim, helps, index), index)
    return _Shelf(free[::-1], opening, returning[::-1], lent, protected, wanted)


def _from_shelf(
    claim: CapacityClaim, wanted: int, shelf: _Shelf, supply: _Supply, index: Index
) -> tuple[_Portion, Blocker | None]:
    """What the claim gets, and why it is not all."""
    free = _draw(shelf.free, wanted, lambda node: node.name not in supply.taken) if shelf.free else []
    returning: list[NodeLoan] = []
    if shelf.returning:
        returning = _draw(shelf.returning, wanted - len(free), lambda loan: loan.spec.node_name not in supply.taken)
    rest = wanted - len(free) - len(returning)
    count = min(rest - len(shelf.opening), supply.room)
    recalled = _recalled(count, shelf, claim, supply, index) if count > 0 else []
    shelf.wanted -= wanted
    portion = _Portion(free, [*returning, *recalled])
    if portion.nodes >= wanted:
        return portion, None
    return portion, _why_no_more(
        claim, portion, shelf.opening, _still_lent(shelf, supply), shelf.protected, supply, index
    )


def _recalled(count: int, shelf: _Shelf, claim: CapacityClaim, supply: _Supply, index: Index) -> list[NodeLoan]:
    if not _still_lent(shelf, supply):
        return []
    drawn = _draw(shelf.chosen, count, lambda loan: loan.spec.node_name not in supply.taken)
    if len(drawn) < count:
        gone = {loan.metadata.name for loan in drawn}
        left = [one for one in shelf.lent if one.spec.node_name not in supply.taken and one.metadata.name not in gone]
        all_together = max(min(shelf.wanted, supply.room), count) - len(drawn)
        recall_class = _class_of(claim, supply.pool, index)
        shelf.chosen = cheapest(left, all_together, recall_class, index)[::-1]
        drawn += _draw(shelf.chosen, count - len(drawn), lambda _: True)
    return drawn


def _still_lent(shelf: _Shelf, supply: _Supply) -> Sequence[NodeLoan]:
    """Loans of which at least the last was not given out by now; none when all were."""
    while shelf.lent and shelf.lent[-1].spec.node_name in supply.taken:
        shelf.lent.pop()
    return shelf.lent


def _draw(things: list[T], count: int, is_there: Callable[[T], bool]) -> list[T]:
    """The last ones that are still there, taken off the list."""
    drawn: list[T] = []
    while things and len(drawn) < count:
        if is_there(thing := things.pop()):
            drawn.append(thing)
    return drawn


def _supply(pool: BatchPool, index: Index) -> _Supply:
    loans = index.loans_of(pool.metadata.name)
    lent = [loan for loan in loans if not loan.is_wanted_back]
    if index.slurm_of(pool.metadata.name) is None:
        # Which recall costs least cannot be seen, and a recall is one-way.
        lent = [loan for loan in lent if not loan.status.is_true("Vacated")]
    protected = [loan for loan in lent if shields(loan, index)]
    lent = [loan for loan in lent if not shields(loan, index)]
    returning = [
        loan for loan in loans if loan.is_wanted_back and not index.is_promised(loan) and not _let_go(loan, index)
    ]
    room = sides(pool, index).may_take_back
    return _Supply(
        pool, Quotas(pool, index), free_nodes(pool, index), _opening(pool, index), returning, lent, protected, room
    )


def _opening(pool: BatchPool, index: Index) -> list[Node]:
    def opens(node: Node) -> bool:
        loan = index.active_loans.get(node.name)
        return index.left_behind(node) is not None or (loan is not None and _let_go(loan, index))

    return [
        node
        for node in index.nodes_of_pool[pool.metadata.name]
        if opens(node) and set_aside(node, pool) is None and not index.foreign_gpu_pods(node.name, pool)
    ]


def _let_go(loan: NodeLoan, index: Index) -> bool:
    """Whether the loan is over but for the writing of it: it has no fence on its node, so it can hand nothing over."""
    node = index.snapshot.nodes.get(loan.spec.node_name)
    return loan.is_wanted_back and node is not None and node.fence is None


def _portion(claim: CapacityClaim, wanted: int, supply: _Supply, index: Index) -> tuple[_Portion, Blocker | None]:
    """What the claim gets of the supply for the units that it lacks, and why it is not all."""
    pool, helps = supply.pool, _helps(claim, supply, index)
    free, returning, lent = _eligible(claim, supply, index)
    opening = [node for node in supply.opening if helps(node)]
    largest = sorted(lent, key=lambda loan: units_of_loan(loan, claim), reverse=True)
    all_there_is = _Portion(free, [*returning, *largest[: supply.room]])
    portion = _choose(claim, wanted, free, opening, returning, lent, supply, index)
    left = supply.quotas.left(claim)
    if left is not None and portion.nodes > left:
        blocker = Blocker("QuotaExceeded", supply.quotas.words(claim, wanted_nodes(claim, index)))
        if is_gathering(claim):
            return _Portion(), blocker
        return _Portion(portion.free[:left], portion.loans[: max(left - len(portion.free), 0)]), blocker
    if portion.units(claim, pool) >= wanted:
        return portion, None
    if is_gathering(claim):
        silent = index.slurm_of(pool.metadata.name) is None
        if not opening and (silent or _may_be_had(claim, wanted, all_there_is, supply, index)):
            supply.awaited |= set(all_there_is.names)
        portion = _Portion()
    protected = protecting(_weaker(supply.protected, claim, helps, index), index)
    why = _why_no_more(claim, portion, opening, lent, protected, supply, index)
    if is_gathering(claim) and why and why.reason == "NothingToRecall":
        return portion, _gang_waits(claim, all_there_is, supply, index)
    return portion, why


def _why_no_more(
    claim: CapacityClaim,
    portion: _Portion,
    opening: Sequence[Node],
    lent: Sequence[NodeLoan],
    protected: str,
    supply: _Supply,
    index: Index,
) -> Blocker | None:
    """What keeps the claim from having all that it lacks; nothing to speak of when it got a part."""
    pool = supply.pool
    if opening:
        return Blocker("Opening", f"about to be free: {listed(node.name for node in opening)}")
    if index.slurm_of(pool.metadata.name) is None:
        words = f"Slurm {pool.spec.slurm_cluster_name} does not answer; nothing is recalled without seeing what it runs"
        return Blocker("SlurmSilent", words)
    if portion.nodes:
        return None
    if len(lent) > supply.room:
        cap = index.terms(pool).kubernetes.cap
        words = f"pool {pool.metadata.name} takes no node back for Kubernetes beyond its kubernetes.cap {cap}"
        return Blocker("KubernetesCap", words)
    if protected:
        return Blocker("Protected", f"what could be recalled is protected: {protected}")
    words = f"no loan of pool {pool.metadata.name} has a priority below {index.priority_of(claim)}"
    return Blocker("NothingToRecall", words)


def _eligible(claim: CapacityClaim, supply: _Supply, index: Index) -> tuple[list[Node], list[NodeLoan], list[NodeLoan]]:
    """Free nodes, returning loans and recallable loans that would help the claim."""
    helps = _helps(claim, supply, index)
    # Free nodes need no fence for pods that kube-scheduler may put there anyway, unless they wait for others.
    free = [node for node in supply.free if helps(node)] if not is_automatic(claim) or is_gathering(claim) else []
    returning = [loan for loan in supply.returning if helps(index.snapshot.nodes.get(loan.spec.node_name))]
    return free, returning, _weaker(supply.lent, claim, helps, index)


def _helps(claim: CapacityClaim, supply: _Supply, index: Index) -> Callable[[Node | None], bool]:
    helpful = need_of(claim, supply.pool, index).helpful if is_automatic(claim) else None
    not_for_it = supply.taken | supply.awaited if is_gathering(claim) else supply.taken

    def helps(node: Node | None) -> bool:
        if node is None or node.name in not_for_it or not suits(node, claim):
            return False
        return helpful is None or node.name in helpful

    return helps


def _weaker(
    loans: Iterable[NodeLoan], claim: CapacityClaim, helps: Callable[[Node | None], bool], index: Index
) -> list[NodeLoan]:
    priority = index.priority_of(claim) or 0
    weaker = (loan for loan in loans if of_loan(loan, index) < priority)
    return [loan for loan in weaker if helps(index.snapshot.nodes.get(loan.spec.node_name))]


def _choose(
    claim: CapacityClaim,
    wanted: int,
    free: list[Node],
    opening: list[Node],
    returning: list[NodeLoan],
    lent: list[NodeLoan],
    supply: _Supply,
    index: Index,
) -> _Portion:
    pool = supply.pool
    nodes = fewest(free, lambda node: units_of(node, claim, pool), wanted)
    wanted -= sum(units_of(node, claim, pool) for node in nodes)
    loans = fewest(returning, lambda loan: units_of_loan(loan, claim), wanted)
    wanted -= sum(units_of_loan(loan, claim) for loan in loans) + sum(units_of(n, claim, pool) for n in opening)
    recalled = _cheapest_of_fewest(claim, wanted, lent, pool, index)
    return _Portion(nodes, [*loans, *recalled[: supply.room]])


def _cheapest_of_fewest(
    claim: CapacityClaim, wanted: int, loans: list[NodeLoan], pool: BatchPool, index: Index
) -> list[NodeLoan]:
    """Of the sets of fewest loans that have the units one whose recall loses little."""
    recall_class = _class_of(claim, pool, index)
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


def _give(portion: _Portion, claim: CapacityClaim, supply: _Supply, given: Allotment, index: Index) -> None:
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
    recall_class = _class_of(claim, pool, index)
    if loan.is_wanted_back:
        back = back_of(loan, index)
        faster = max(back.recall_class, recall_class, key=RECALL_CLASSES.index)
        return back.model_copy(update={"claim": reference, "recall_class": faster})
    words = f"claim {meta.namespace}/{meta.name} needs the node; {cost_of(loan, recall_class, index).words}"
    return LoanReturn(reason="Claimed", message=words, recall_class=recall_class, claim=reference)


def _may_be_had(claim: CapacityClaim, wanted: int, now: _Portion, supply: _Supply, index: Index) -> bool:
    """Whether the gang could be whole once other claims let go: only then it is worth that weaker gangs wait."""
    names = set(now.names)
    others = [
        node
        for node in suitable(claim, supply.pool, index)
        if node.name not in names and (owner := index.claimant(node)) and owner is not claim
    ]
    return now.units(claim, supply.pool) + sum(units_of(node, claim, supply.pool) for node in others) >= wanted


def _gang_waits(claim: CapacityClaim, now: _Portion, supply: _Supply, index: Index) -> Blocker:
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

"""What a pool still has to give to claims in a decision, and what of it would help one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tidegate.api import BatchPool, CapacityClaim, NodeLoan
from tidegate.sharing.explanation import listed
from tidegate.sharing.idleness import Blocker, free_nodes, set_aside
from tidegate.sharing.index import Index
from tidegate.sharing.lifetime import is_gathering
from tidegate.sharing.needs import is_automatic, need_of, suits, units_of, units_of_loan
from tidegate.sharing.priorities import of_loan
from tidegate.sharing.protection import protecting, shields
from tidegate.sharing.quotas import Quotas
from tidegate.sharing.sides import sides
from tidegate.sharing.snapshot import Node


@dataclass
class Supply:
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


@dataclass
class Offer:
    """What of a supply would help a claim."""

    free: list[Node]
    opening: list[Node]
    returning: list[NodeLoan]
    lent: list[NodeLoan]
    """Those that the claim's priority may recall."""
    kept: list[NodeLoan]
    """Those of them that jobs protect."""
    index: Index

    @cached_property
    def protected(self) -> str:
        """Which jobs keep the kept ones, and until when."""
        return protecting(self.kept, self.index)


@dataclass
class Portion:
    """Nodes for one claim."""

    free: Sequence[Node] = ()
    loans: Sequence[NodeLoan] = ()

    @property
    def nodes(self) -> int:
        """How many they are."""
        return len(self.free) + len(self.loans)

    @property
    def names(self) -> list[str]:
        """Of all of them."""
        return [node.name for node in self.free] + [loan.spec.node_name for loan in self.loans]

    def units(self, claim: CapacityClaim, pool: BatchPool) -> int:
        """How much of the claim's amount they are."""
        return sum(units_of(n, claim, pool) for n in self.free) + sum(units_of_loan(one, claim) for one in self.loans)


def supply_of(pool: BatchPool, index: Index) -> Supply:
    """All that the pool has to give before the first claim."""
    loans = index.loans_of(pool.metadata.name)
    lent = [loan for loan in loans if not loan.is_wanted_back]
    if index.slurm_of(pool.metadata.name) is None:
        # Which recall costs least cannot be seen, and a recall is one-way.
        lent = [loan for loan in lent if not loan.status.is_true("Vacated")]
    return Supply(
        pool=pool,
        quotas=Quotas(pool, index),
        free=free_nodes(pool, index),
        opening=_opening(pool, index),
        returning=[o for o in loans if o.is_wanted_back and not index.is_promised(o) and not _let_go(o, index)],
        lent=[loan for loan in lent if not shields(loan, index)],
        protected=[loan for loan in lent if shields(loan, index)],
        room=sides(pool, index).may_take_back,
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


def offer_for(claim: CapacityClaim, supply: Supply, index: Index) -> Offer:
    """What the claim may have of what is left."""
    helps, priority = _helps(claim, supply, index), index.priority_of(claim) or 0

    def helpful(loans: Iterable[NodeLoan]) -> list[NodeLoan]:
        return [loan for loan in loans if helps(index.snapshot.nodes.get(loan.spec.node_name))]

    def weaker(loans: Sequence[NodeLoan]) -> list[NodeLoan]:
        return helpful(loan for loan in loans if of_loan(loan, index) < priority)

    # Free nodes need no fence for pods that kube-scheduler may put there anyway, unless they wait for others.
    takes_free = not is_automatic(claim) or is_gathering(claim)
    return Offer(
        free=[node for node in supply.free if helps(node)] if takes_free else [],
        opening=[node for node in supply.opening if helps(node)],
        returning=helpful(supply.returning),
        lent=weaker(supply.lent),
        kept=weaker(supply.protected),
        index=index,
    )


def _helps(claim: CapacityClaim, supply: Supply, index: Index) -> Callable[[Node | None], bool]:
    helpful = need_of(claim, supply.pool, index).helpful if is_automatic(claim) else None
    not_for_it = supply.taken | supply.awaited if is_gathering(claim) else supply.taken

    def helps(node: Node | None) -> bool:
        if node is None or node.name in not_for_it or not suits(node, claim):
            return False
        return helpful is None or node.name in helpful

    return helps


def why_no_more(claim: CapacityClaim, portion: Portion, offer: Offer, supply: Supply, index: Index) -> Blocker | None:
    """What keeps the claim from having all that it lacks; nothing to speak of when it got a part."""
    pool = supply.pool
    if offer.opening:
        return Blocker("Opening", f"about to be free: {listed(node.name for node in offer.opening)}")
    if index.slurm_of(pool.metadata.name) is None:
        words = f"Slurm {pool.spec.slurm_cluster_name} does not answer; nothing is recalled without seeing what it runs"
        return Blocker("SlurmSilent", words)
    if portion.nodes:
        return None
    if len(offer.lent) > supply.room:
        cap = index.terms(pool).kubernetes.cap
        words = f"pool {pool.metadata.name} takes no node back for Kubernetes beyond its kubernetes.cap {cap}"
        return Blocker("KubernetesCap", words)
    if offer.protected:
        return Blocker("Protected", f"what could be recalled is protected: {offer.protected}")
    words = f"no loan of pool {pool.metadata.name} has a priority below {index.priority_of(claim)}"
    return Blocker("NothingToRecall", words)

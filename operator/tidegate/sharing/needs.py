"""What a claim has and what it still lacks: in nodes or in GPUs, and which nodes would do.

An amount is counted in units: a node is one unit of a claim for nodes, and as many as it has GPUs of a claim for GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from tidegate.api import BatchPool, CapacityClaim, NodeLoan
from tidegate.api.names import CLAIM_LABEL, claim_fence
from tidegate.sharing.index import Index, gpus_of, wants_gpu
from tidegate.sharing.lifetime import is_gathering
from tidegate.sharing.places import Need
from tidegate.sharing.snapshot import Node, Pod
from tidegate.sharing.waiting import is_served

T = TypeVar("T")
_NO_LABELS: frozenset[tuple[str, str]] = frozenset()


def is_automatic(claim: CapacityClaim) -> bool:
    """Whether Tidegate made the claim for pending pods."""
    return CLAIM_LABEL in claim.metadata.labels


def pods_of(claim: CapacityClaim, index: Index) -> Sequence[Pod]:
    """The pods that the claim's nodes are for, bound or not."""
    namespace, holder = claim.metadata.namespace or "", claim.spec.holder_ref
    if holder:
        mine = index.claim_of_holder.get((namespace, holder.uid), claim.metadata.uid) == claim.metadata.uid
        return index.pods_by_owner.get((namespace, holder.uid), ()) if mine else ()
    return index.pods_by_claim_label.get((namespace, claim.metadata.name), ())


def unbound_pods(claim: CapacityClaim, pool: BatchPool, index: Index) -> list[Pod]:
    """Those of them that are not bound yet; an automatic claim is for those only that Tidegate makes claims for."""
    return index.once(_unbound_pods, claim.metadata.uid, pool.metadata.name)


def _unbound_pods(uid: str, pool_name: str, index: Index) -> list[Pod]:
    claim, pool = index.claims[uid], index.pools[pool_name]
    pods = [pod for pod in pods_of(claim, index) if not pod.node]
    return [pod for pod in pods if is_served(pod, pool, index)] if is_automatic(claim) else pods


def waiting_pods(claim: CapacityClaim, pool: BatchPool, index: Index) -> Sequence[Pod]:
    """Those of them that wait for a node with GPUs."""
    return index.once(_waiting_pods, claim.metadata.uid, pool.metadata.name)


def _waiting_pods(uid: str, pool_name: str, index: Index) -> list[Pod]:
    claim, pool = index.claims[uid], index.pools[pool_name]
    return [p for p in unbound_pods(claim, pool, index) if not p.gated and wants_gpu(p, pool)]


def held_nodes(claim: CapacityClaim, index: Index) -> Sequence[Node]:
    """Nodes whose fence names the claim, by name."""
    return index.nodes_by_fence.get(claim_fence(claim.metadata.uid), ())


def coming_loans(claim: CapacityClaim, index: Index) -> Sequence[NodeLoan]:
    """Loans that are on their way back for the claim, by node name."""
    return index.coming_by_claim.get(claim.metadata.uid, ())


def amount(claim: CapacityClaim) -> int:
    """How many units an explicit claim asks for."""
    return claim.spec.gpus or claim.spec.nodes or 1


def words_of(units: int, claim: CapacityClaim) -> str:
    """`2 nodes`, or `16 GPUs` where the claim asks for GPUs."""
    unit = "GPU" if claim.spec.gpus else "node"
    return f"{units} {unit}{'' if units == 1 else 's'}"


def units_of(node: Node, claim: CapacityClaim, pool: BatchPool) -> int:
    """How much of the claim's amount the node is."""
    return gpus_of(node, pool) if claim.spec.gpus else 1


def units_of_loan(loan: NodeLoan, claim: CapacityClaim) -> int:
    """How much of the claim's amount the loan's node is once it is home."""
    return loan.spec.gpus if claim.spec.gpus else 1


def labels_of(claim: CapacityClaim) -> frozenset[tuple[str, str]]:
    """The labels that the claim selects nodes by."""
    return frozenset(claim.spec.node_selector.items()) if claim.spec.node_selector else _NO_LABELS


def suits(node: Node, claim: CapacityClaim) -> bool:
    """Whether the node has the labels that the claim selects."""
    return all(node.labels.get(key) == value for key, value in claim.spec.node_selector.items())


def suitable(claim: CapacityClaim, pool: BatchPool, index: Index) -> Sequence[Node]:
    """All nodes of the pool that the claim may have, whoever has them now."""
    return index.selected(pool.metadata.name, labels_of(claim))[0]


def there_is(claim: CapacityClaim, pool: BatchPool, index: Index) -> int:
    """How many units these nodes are."""
    nodes, gpus = index.selected(pool.metadata.name, labels_of(claim))
    return gpus if claim.spec.gpus else len(nodes)


def lacking(claim: CapacityClaim, pool: BatchPool, index: Index) -> int:
    """How many units neither the nodes that are held for the claim nor those on their way to it are."""
    return index.once(_lacking, claim.metadata.uid, pool.metadata.name)


def _lacking(uid: str, pool_name: str, index: Index) -> int:
    claim, pool = index.claims[uid], index.pools[pool_name]
    rest = amount(claim)
    rest -= sum(units_of(node, claim, pool) for node in held_nodes(claim, index))
    rest -= sum(units_of_loan(loan, claim) for loan in coming_loans(claim, index))
    rest = max(rest, 0)
    # What pods need beyond the claim's size waits until that was raised: then the pods that need it are all there.
    return min(rest, need_of(claim, pool, index).nodes) if is_automatic(claim) else rest


def need_of(claim: CapacityClaim, pool: BatchPool, index: Index) -> Need:
    """What the pods of an automatic claim need beside the nodes that it holds and those on their way to it."""
    return index.once(_need_of, claim.metadata.uid, pool.metadata.name)


def _need_of(uid: str, pool_name: str, index: Index) -> Need:
    claim, pool = index.claims[uid], index.pools[pool_name]
    nodes = (index.snapshot.nodes.get(loan.spec.node_name) for loan in coming_loans(claim, index))
    there = [*held_nodes(claim, index), *filter(None, nodes)]
    return Need(waiting_pods(claim, pool, index), there, pool, index, gang=is_gathering(claim))


def wanted_nodes(claim: CapacityClaim, index: Index) -> int:
    """How many nodes the claim takes: of an amount in GPUs those that it has, and the fewest that have the rest."""
    pool = index.pools.get(claim.spec.pool_name)
    if not claim.spec.gpus:
        return amount(claim)
    if pool is None:
        return claim.status.wanted_nodes
    has = {node.name for node in held_nodes(claim, index)}
    has |= {loan.spec.node_name for loan in coming_loans(claim, index)}
    if (rest := lacking(claim, pool, index)) == 0:
        return len(has)
    others = (node for node in suitable(claim, pool, index) if node.name not in has)
    return len(has) + len(fewest(others, lambda node: gpus_of(node, pool), rest))


def asks_too_much(claim: CapacityClaim, pool: BatchPool, index: Index) -> bool:
    """Whether an explicit claim asks for more than the pool has; then it gets nothing, because all would not do."""
    return not is_automatic(claim) and amount(claim) > there_is(claim, pool, index)


def surplus(claim: CapacityClaim, pool: BatchPool, index: Index) -> list[Node]:
    """Held nodes beyond the amount of an explicit claim, none with a pod of the claim on it."""
    if is_automatic(claim):
        return []
    held = held_nodes(claim, index)
    beyond = sum(units_of(node, claim, pool) for node in held) - amount(claim)
    if beyond <= 0:
        return []
    used = {pod.node for pod in pods_of(claim, index)}
    let_go: list[Node] = []
    for node in sorted(held, key=lambda one: (units_of(one, claim, pool), one.name), reverse=True):
        if node.name not in used and (units := units_of(node, claim, pool)) <= beyond:
            let_go.append(node)
            beyond -= units
    return let_go


def fewest(things: Iterable[T], units: Callable[[T], int], wanted: int) -> list[T]:
    """The fewest things whose units add up to what is wanted, none larger than it needs to be; all if they do not.

    Among equals those that come first.
    """
    if wanted <= 0:
        return []
    left = sorted((thing for thing in things if units(thing) > 0), key=units, reverse=True)
    chosen: list[T] = []
    while left and wanted > 0:
        # One that has all of the rest; else the largest.
        best = min((t for t in left if units(t) >= wanted), key=units) if units(left[0]) >= wanted else left[0]
        left.remove(best)
        chosen.append(best)
        wanted -= units(best)
    return chosen

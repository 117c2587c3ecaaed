"""Where a pod may be in relation to others: topology spread, and pod affinity and anti-affinity, as far as required.

Only pods with GPUs are known with their labels. What a pod wants of others is taken for granted as long as none of the
pods that it means is known; minDomains, matching taints (nodeTaintsPolicy) and preferences are left to kube-scheduler.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tidegate.sharing.index import Index
from tidegate.sharing.snapshot import Node, Pod, PodsNearby, Requirement, Spread


def holds(requirement: Requirement, actual: str | None) -> bool:
    """Whether the value (None when there is none) is as required."""
    _, operator, values = requirement
    match operator:
        case "In":
            return actual in values
        case "NotIn":
            return actual not in values
        case "Exists":
            return actual is not None
        case "DoesNotExist":
            return actual is None
        case "Gt" | "Lt":
            if actual is None or not actual.lstrip("-").isdigit():
                return False
            return int(actual) > int(values[0]) if operator == "Gt" else int(actual) < int(values[0])
        case _:
            return False


def is_selected(pod: Pod, node: Node) -> bool:
    """Whether the pod's node selector and required node affinity allow the node."""
    for key, value in pod.node_selector.items():
        if node.labels.get(key) != value:
            return False
    terms = pod.required_affinity
    return not terms or any(all(holds(one, _of_node(one[0], node)) for one in term) for term in terms)


def _of_node(key: str, node: Node) -> str | None:
    return node.name if key == "metadata.name" else node.labels.get(key)


class Topology:
    """Where the pods with GPUs are, those that were laid onto nodes here included, and where one more may go."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._laid: list[tuple[Pod, Node]] = []
        self._counts: dict[PodsNearby, Counter[str]] = {}
        self._places: dict[tuple[object, ...], frozenset[str]] = {}
        self._fewest: dict[tuple[PodsNearby, frozenset[str]], int] = {}
        self._keep_off: dict[PodsNearby, Counter[str]] = {}
        self._kept_off: dict[str, list[tuple[str, Counter[str]]]] = {}

    def lay(self, pod: Pod, node: Node) -> None:
        """From now on the pod counts as being on the node."""
        self._laid.append((pod, node))
        self._fewest.clear()
        for term, places in self._counts.items():
            if self._means(term, pod):
                places.update(_place(term, node))
        for term in pod.apart:
            if term not in self._keep_off:
                self._keep_off[term] = Counter()
                self._kept_off.clear()
            self._keep_off[term].update(_place(term, node))

    def concerns(self, pod: Pod) -> bool:
        """Whether it matters at all where others are."""
        return bool(pod.spread or pod.together or pod.apart or self._off_limits(pod))

    def allows(self, pod: Pod, node: Node) -> bool:
        """Whether kube-scheduler could place the pod there, if nothing but other pods is in the way."""
        return (
            all(self._is_even(spread, pod, node) for spread in pod.spread)
            and all(self._is_near(term, node) for term in pod.together)
            and not any(self._count(term)[place] for term in pod.apart for place in _place(term, node))
            and not any(places[node.labels.get(key, "")] for key, places in self._off_limits(pod))
        )

    def _is_even(self, spread: Spread, pod: Pod, node: Node) -> bool:
        place = node.labels.get(spread.pods.topology_key)
        if place is None:
            return False
        counts, places = self._count(spread.pods), self._places_for(spread, pod)
        key = (spread.pods, places)
        if key not in self._fewest:
            self._fewest[key] = min((counts[one] for one in places), default=0)
        return counts[place] + self._means(spread.pods, pod) - self._fewest[key] <= spread.max_skew

    def _is_near(self, term: PodsNearby, node: Node) -> bool:
        counts = self._count(term)
        return any(counts[place] or not counts.total() for place in _place(term, node))

    def _off_limits(self, pod: Pod) -> list[tuple[str, Counter[str]]]:
        """By topology key the places of pods that want none like this one beside them."""
        if not self._keep_off and not self._index.keep_off:
            return []
        if pod.uid not in self._kept_off:
            terms = (*self._index.keep_off.items(), *self._keep_off.items())
            self._kept_off[pod.uid] = [(t.topology_key, places) for t, places in terms if self._means(t, pod)]
        return self._kept_off[pod.uid]

    def _count(self, term: PodsNearby) -> Counter[str]:
        """How many of the pods that the term means are at each place."""
        if term not in self._counts:
            nodes = self._index.snapshot.nodes
            there = ((pod, nodes[pod.node]) for pod in self._candidates(term) if pod.node in nodes)
            found = (node for pod, node in (*there, *self._laid) if self._means(term, pod))
            self._counts[term] = Counter(place for node in found for place in _place(term, node))
        return self._counts[term]

    def _candidates(self, term: PodsNearby) -> Iterable[Pod]:
        """Bound pods among which all are that the term means, so that not every pod is looked at for each term."""
        for key, operator, values in term.selector or ():
            if operator == "In":
                return [pod for value in values for pod in self._index.bound_by_label.get((key, value), ())]
        return self._index.bound_gpu_pods

    def _places_for(self, spread: Spread, pod: Pod) -> frozenset[str]:
        """The places that count for the constraint, those without pods included."""
        mine = () if spread.all_nodes else (tuple(pod.node_selector.items()), pod.required_affinity)
        key = (spread.pods.topology_key, *mine)
        if key not in self._places:
            nodes = (n for n in self._index.snapshot.nodes.values() if spread.all_nodes or is_selected(pod, n))
            self._places[key] = frozenset(place for node in nodes for place in _place(spread.pods, node))
        return self._places[key]

    def _means(self, term: PodsNearby, pod: Pod) -> bool:
        selected = term.selector is not None and all(holds(one, pod.labels.get(one[0])) for one in term.selector)
        if not selected or pod.namespace in term.namespaces:
            return selected
        beside, labels = term.namespace_selector, self._index.snapshot.namespaces.get(pod.namespace, {})
        return beside is not None and all(holds(one, labels.get(one[0])) for one in beside)


def _place(term: PodsNearby, node: Node) -> tuple[str, ...]:
    """The place that the node is at in the sense of the term: none when it lacks the label."""
    place = node.labels.get(term.topology_key)
    return () if place is None else (place,)

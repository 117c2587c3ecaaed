"""Whether a pod could run on a node, as kube-scheduler would see it once the node is free and open to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tidegate.api import BatchPool
from tidegate.api.names import FENCE_TAINT
from tidegate.sharing.index import Index
from tidegate.sharing.snapshot import Node, Pod
from tidegate.sharing.topology import Topology, is_selected


def may_run(pod: Pod, node: Node) -> bool:
    """Whether selectors, affinity and tolerations let the pod onto the node and its whole room is enough.

    Our fence is left out of account: it is what a claim opens.
    """
    return _is_large_enough(pod, node) and is_selected(pod, node) and not _is_repelled(pod, node)


def _is_large_enough(pod: Pod, node: Node) -> bool:
    has_gpus = all(node.gpus.get(name, 0) >= count for name, count in pod.gpus.items())
    return has_gpus and pod.cpu_millis <= node.cpu_millis and pod.memory_mib <= node.memory_mib


def _is_repelled(pod: Pod, node: Node) -> bool:
    for taint in node.taints:
        hard = taint.effect in ("NoSchedule", "NoExecute") and taint.key != FENCE_TAINT
        if hard and not any(t.tolerates(taint) for t in pod.tolerations):
            return True
    return False


def obstacle(pod: Pod, node: Node) -> str:
    """Why the pod may never run on the node, as words about nodes; empty when it may."""
    if not _is_large_enough(pod, node):
        return "too small for it"
    if not is_selected(pod, node):
        return "not selected by its node selector or affinity"
    return "tainted, which it does not tolerate" if _is_repelled(pod, node) else ""


def could_run(pod: Pod, node: Node, index: Index) -> bool:
    """Whether the pod may run on the node and what is bound there now leaves room for it."""
    if not may_run(pod, node) or node.unschedulable or not node.ready:
        return False
    there = index.pods_by_node.get(node.name, ())
    return (
        all(node.gpus.get(g, 0) - sum(p.gpus.get(g, 0) for p in there) >= n for g, n in pod.gpus.items())
        and node.cpu_millis - sum(p.cpu_millis for p in there) >= pod.cpu_millis
        and node.memory_mib - sum(p.memory_mib for p in there) >= pod.memory_mib
    )


class Room(NamedTuple):
    """What is left of a node."""

    node: Node
    gpus: int
    cpu_millis: int
    memory_mib: int
    make: object
    """The same for nodes of one size and with the same taints but for our fence: what may run on one may on all."""

    @classmethod
    def of(cls, node: Node, there: Iterable[Pod], names: Sequence[str]) -> Room:
        """The node without what the pods there take. GPUs of these names count."""
        taints = tuple(taint for taint in node.taints if taint.key != FENCE_TAINT)
        make = (*node.gpus.items(), node.cpu_millis, node.memory_mib, taints)
        room = cls(node, sum(node.gpus.get(name, 0) for name in names), node.cpu_millis, node.memory_mib, make)
        for pod in there:
            room = room.without(pod, names)
        return room

    def without(self, pod: Pod, names: Sequence[str]) -> Room:
        """What the pod leaves of it."""
        gpus, cpu_millis, memory_mib = _amounts(pod, names)
        has_gpus, has_cpu, has_memory = self.gpus - gpus, self.cpu_millis - cpu_millis, self.memory_mib - memory_mib
        return Room(self.node, has_gpus, has_cpu, has_memory, self.make)


Rooms = dict[str, Room]
"""By node name."""


def _amounts(pod: Pod, names: Sequence[str]) -> tuple[int, int, int]:
    return sum([pod.gpus.get(name, 0) for name in names]), pod.cpu_millis, pod.memory_mib


Kind = tuple[object, ...]


def kind_of(pod: Pod) -> Kind:
    """The same for pods that may be on the same nodes: those that one controller made of one template."""
    return pod.namespace, pod.owner.uid, shape_of(pod), pod.spread, pod.together, pod.apart


def shape_of(pod: Pod) -> Kind:
    """The same for pods, of whomever, that may be on the same nodes as far as others do not matter to them."""
    selector, gpus = tuple(pod.node_selector.items()), tuple(pod.gpus.items())
    tolerations = tuple(one for one in pod.tolerations if one.key != FENCE_TAINT)
    return gpus, pod.cpu_millis, pod.memory_mib, selector, pod.required_affinity, tolerations


class Layout:
    """Pods laid onto nodes one after the other, as kube-scheduler would once the nodes are open to them."""

    def __init__(self, names: Sequence[str], index: Index) -> None:
        """`names` are the extended resources that count as GPUs."""
        self._names = names
        self._topology = Topology(index)

    def note(self, pod: Pod, node: Node) -> None:
        """The pod is there, in a room that nobody else is laid into."""
        self._topology.lay(pod, node)

    def cares(self, pod: Pod) -> bool:
        """Whether it matters to the pod where others are."""
        return self._topology.concerns(pod)

    def kind(self, pod: Pod) -> Kind:
        """The same for pods that fit into the same rooms."""
        return kind_of(pod) if self.cares(pod) else shape_of(pod)

    def fitting(self, pod: Pod, rooms: Rooms) -> Iterator[str]:
        """The rooms in which the pod finds what it needs, beside all that was laid so far."""
        names = self.fitting_alone(pod, rooms)
        if not self.cares(pod):
            return names
        return (name for name in names if self._topology.allows(pod, rooms[name].node))

    def fitting_alone(self, pod: Pod, rooms: Rooms) -> Iterator[str]:
        """The same, wherever others are."""
        gpus, cpu_millis, memory_mib = _amounts(pod, self._names)
        goes_anywhere = not pod.node_selector and not pod.required_affinity
        runs: dict[object, bool] = {}
        for name, (node, has_gpus, has_cpu, has_memory, make) in rooms.items():
            if has_gpus < gpus or has_cpu < cpu_millis or has_memory < memory_mib:
                continue
            if make not in runs:
                runs[make] = _is_large_enough(pod, node) and not _is_repelled(pod, node)
            if runs[make] and (goes_anywhere or is_selected(pod, node)):
                yield name

    def lay(self, pod: Pod, rooms: Rooms, full: set[Kind]) -> str | None:
        """Put the pod into the first of the rooms that it fits; its name, or None.

        `full` remembers which kinds found nothing in these rooms, which only fill up.
        """
        kind = self.kind(pod)
        if kind in full:
            return None
        found = next(self.fitting(pod, rooms), None)
        if found is not None:
            rooms[found] = rooms[found].without(pod, self._names)
            self._topology.lay(pod, rooms[found].node)
        elif not (pod.spread or pod.together or pod.apart):
            full.add(kind)
        return found

    def lay_all(self, pods: Sequence[Pod], rooms: Rooms) -> list[Pod]:
        """Lay the pods into the rooms, large ones first so that small ones fill what they leave; those left over."""
        full: set[Kind] = set()

        def size(pod: Pod) -> tuple[int, int, int, str]:
            gpus, cpu_millis, memory_mib = _amounts(pod, self._names)
            return -gpus, -cpu_millis, -memory_mib, pod.key

        ordered = sorted(pods, key=size)
        return [pod for pod in ordered if self.lay(pod, rooms, full) is None] if rooms else ordered

    def lay_on_fewest(self, pods: Iterable[Pod], spare: Rooms) -> tuple[Rooms, list[Pod]]:
        """Lay pods, in their order, into as few spare rooms as will do: these, and the pods that fit nowhere."""
        used: Rooms = {}
        full: set[Kind] = set()
        left: list[Pod] = []
        for pod in pods:
            if self.lay(pod, used, set()) is not None:
                continue
            if (name := self.lay(pod, spare, full)) is None:
                left.append(pod)
            else:
                used[name] = spare.pop(name)
        return used, left


def rooms_of(nodes: Iterable[Node], pool: BatchPool, index: Index) -> Rooms:
    """What nodes offer once they are back from Slurm; pods of others that stay there keep their room."""
    return {node.name: index.once(_room, node.name, pool.spec.gpu_resource_names) for node in nodes}


def _room(node_name: str, names: Sequence[str], index: Index) -> Room:
    there = (pod for pod in index.pods_by_node.get(node_name, ()) if pod.loan is None)
    return Room.of(index.snapshot.nodes[node_name], there, names)

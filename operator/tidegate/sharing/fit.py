"""Whether a pod could run on a node, as kube-scheduler would see it once the node is free and open to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tidegate.api import BatchPool
from tidegate.api.names import FENCE_TAINT
from tidegate.sharing.index import Index, gpus_of
from tidegate.sharing.snapshot import Node, Pod

_Term = tuple[tuple[str, str, tuple[str, ...]], ...]


def may_run(pod: Pod, node: Node) -> bool:
    """Whether selectors, affinity and tolerations let the pod onto the node and its whole room is enough.

    Our fence is left out of account: it is what a claim opens.
    """
    if any(node.labels.get(key) != value for key, value in pod.node_selector.items()):
        return False
    if pod.required_affinity and not any(_matches(term, node) for term in pod.required_affinity):
        return False
    for taint in node.taints:
        hard = taint.effect in ("NoSchedule", "NoExecute") and taint.key != FENCE_TAINT
        if hard and not any(t.tolerates(taint) for t in pod.tolerations):
            return False
    has_gpus = all(node.gpus.get(name, 0) >= count for name, count in pod.gpus.items())
    return has_gpus and pod.cpu_millis <= node.cpu_millis and pod.memory_mib <= node.memory_mib


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


def extra_nodes_needed(
    pods: Sequence[Pod], held: Sequence[Node], fresh: Sequence[Node], pool: BatchPool, index: Index
) -> int:
    """How many of the `fresh` nodes (empty of GPU pods once they are freed) the pods need beside the `held` ones.

    First-fit decreasing over GPUs, CPUs and memory; a pod that fits nowhere is left out: no node would help it.
    """
    nodes = {node.name: node for node in (*held, *fresh)}
    room = {node.name: _room(node, index.pods_by_node.get(node.name, ()), pool) for node in held}
    spare = {node.name: _room(node, _stays(node, index), pool) for node in fresh}
    used = 0
    for pod in sorted(pods, key=lambda p: (*(-amount for amount in _amounts(p, pool)), p.key)):
        wanted = _amounts(pod, pool)
        place = _first_fit(pod, wanted, room, nodes)
        if place is None:
            place = _first_fit(pod, wanted, spare, nodes)
            if place is None:
                continue
            room[place] = spare.pop(place)
            used += 1
        gpus, cpu_millis, memory_mib = room[place]
        room[place] = (gpus - wanted[0], cpu_millis - wanted[1], memory_mib - wanted[2])
    return used


_Amounts = tuple[int, int, int]
"""GPUs, CPU millis, MiB."""


def _first_fit(pod: Pod, wanted: _Amounts, rooms: Mapping[str, _Amounts], nodes: Mapping[str, Node]) -> str | None:
    return next(
        (
            name
            for name, room in rooms.items()
            if all(has >= wants for has, wants in zip(room, wanted, strict=True)) and may_run(pod, nodes[name])
        ),
        None,
    )


def _amounts(pod: Pod, pool: BatchPool) -> _Amounts:
    return sum(pod.gpus.get(name, 0) for name in pool.spec.gpu_resource_names), pod.cpu_millis, pod.memory_mib


def _stays(node: Node, index: Index) -> list[Pod]:
    return [p for p in index.pods_by_node.get(node.name, ()) if p.loan is None]


def _room(node: Node, there: Iterable[Pod], pool: BatchPool) -> _Amounts:
    taken = [_amounts(pod, pool) for pod in there]
    has = (gpus_of(node, pool), node.cpu_millis, node.memory_mib)
    gpus, cpu_millis, memory_mib = (amount - sum(t[i] for t in taken) for i, amount in enumerate(has))
    return gpus, cpu_millis, memory_mib


def _matches(term: _Term, node: Node) -> bool:
    return all(_holds(key, operator, values, node) for key, operator, values in term)


def _holds(key: str, operator: str, values: tuple[str, ...], node: Node) -> bool:
    actual = node.name if key == "metadata.name" else node.labels.get(key)
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

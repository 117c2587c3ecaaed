"""Whether a pod could run on a node, as kube-scheduler would see it once the node is free and open to it."""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.api import BatchPool
from tidegate.api.names import FENCE_TAINT
from tidegate.sharing.index import Index, gpu_resource
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
    """How many of the `fresh` nodes (empty once they are freed) the pods need beside the room on the `held` ones.

    First-fit decreasing over GPUs; a pod that fits nowhere is left out, because no node would help it.
    """
    room = {node.name: _free_gpus(node, pool, index) for node in held}
    nodes = {node.name: node for node in (*held, *fresh)}
    used: list[str] = []
    spare = [node.name for node in fresh]
    for pod in sorted(pods, key=lambda p: (-_gpus(p, pool), p.key)):
        wanted = _gpus(pod, pool)
        place = next((name for name, free in room.items() if free >= wanted and may_run(pod, nodes[name])), None)
        if place is None:
            place = next((name for name in spare if may_run(pod, nodes[name])), None)
            if place is None:
                continue
            spare.remove(place)
            used.append(place)
            resource = gpu_resource(nodes[place], pool)
            room[place] = nodes[place].gpus.get(resource, 0) if resource else 0
        room[place] -= wanted
    return len(used)


def _gpus(pod: Pod, pool: BatchPool) -> int:
    return sum(pod.gpus.get(name, 0) for name in pool.spec.gpu_resource_names)


def _free_gpus(node: Node, pool: BatchPool, index: Index) -> int:
    resource = gpu_resource(node, pool)
    if resource is None:
        return 0
    return node.gpus[resource] - sum(p.gpus.get(resource, 0) for p in index.pods_by_node.get(node.name, ()))


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

"""Whether a pod may be on a node, decided apart from Tidegate's own code for it, which this is to test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tidegate.cluster import views
from tidegate.cluster.client import Json


def obstacle(pod: Json, node: Json, there: Iterable[Json]) -> str:
    """Why the scheduler does not bind the pod there beside the pods that are there; empty when it does."""
    taints = [taint for taint in node["spec"].get("taints") or () if taint["effect"] != "PreferNoSchedule"]
    if node["spec"].get("unschedulable"):
        taints.append({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"})
    tolerations = pod["spec"].get("tolerations") or ()
    if any(not any(_tolerates(toleration, taint) for toleration in tolerations) for taint in taints):
        return "node(s) had untolerated taint(s)"
    if not selected(pod["spec"], node):
        return "node(s) didn't match Pod's node affinity/selector"
    short = short_of(pod, node, there)
    return f"Insufficient {short}" if short else ""


def short_of(pod: Json, node: Json, others: Iterable[Json]) -> str:
    """The first resource that the node lacks for the pod beside the others; empty when it fits."""
    free = {name: views.quantity(amount) for name, amount in node["status"]["allocatable"].items()}
    for other in others:
        for name, amount in views.requests(other["spec"]).items():
            free[name] = free.get(name, views.quantity(0)) - amount
    needed = views.requests(pod["spec"])
    return next((name for name, amount in sorted(needed.items()) if amount > free.get(name, 0)), "")


def _tolerates(toleration: Json, taint: Json) -> bool:
    key, effect = toleration.get("key"), toleration.get("effect")
    if (effect and effect != taint["effect"]) or (key and key != taint["key"]):
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")


def selected(spec: Json, node: Json) -> bool:
    """Whether node selector and required node affinity allow the node."""
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    fields = {"metadata.name": node["metadata"]["name"]}

    def holds(term: Json) -> bool:
        on_labels, on_fields = term.get("matchExpressions") or [], term.get("matchFields") or []
        return bool(on_labels or on_fields) and (
            all(_holds(requirement, labels) for requirement in on_labels)
            and all(_holds(requirement, fields) for requirement in on_fields)
        )

    return any(holds(term) for term in required["nodeSelectorTerms"])


def _holds(requirement: Json, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(requirement["key"]), requirement.get("values") or []
    match requirement["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and int(value) > int(values[0])
        case "Lt":
            return value is not None and int(value) < int(values[0])
        case unknown:
            raise ValueError(f"operator {unknown} is not one of Kubernetes")

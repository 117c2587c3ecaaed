"""What decisions see of Kubernetes objects: raw JSON in, small values out. Only excerpts are kept."""

# The library is typed in part only.
# mypy: untyped-calls-exclude=kubernetes

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, TypeVar

import pydantic
from kubernetes.utils import parse_quantity

from tidegate.api import Model
from tidegate.api.names import FINGERPRINT, GROUP, LOAN_LABEL, SERVICE_LABEL
from tidegate.sharing.snapshot import (
    DisruptionBudget,
    Node,
    Owner,
    Part,
    Pod,
    PodsNearby,
    Requirement,
    Spread,
    Taint,
    Toleration,
)

Json = Mapping[str, Any]
Resource = TypeVar("Resource", bound=Model)

_KEPT_ANNOTATIONS = (f"{GROUP}/", "karpenter.sh/", "cluster-autoscaler.kubernetes.io/", "descheduler.")
_KEPT_POD_LABELS = f"{GROUP}/"
_LONGEST_TEXT = 500
_MIB = 1024 * 1024


def node(raw: Json) -> Node:
    """A Node; its capacity is what is allocatable, CPU and memory rounded down."""
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    allocatable = {name: quantity(amount) for name, amount in (status.get("allocatable") or {}).items()}
    ready = _condition(status, "Ready")
    return Node(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        resource_version=metadata.get("resourceVersion", ""),
        labels=metadata.get("labels") or {},
        annotations=_annotations(metadata),
        taints=tuple(Taint(t["key"], t.get("value") or "", t["effect"]) for t in spec.get("taints") or ()),
        unschedulable=bool(spec.get("unschedulable")),
        ready=ready.get("status") == "True",
        gpus=_extended(allocatable),
        cpu_millis=math.floor(allocatable.get("cpu", 0) * 1000),
        memory_mib=math.floor(allocatable.get("memory", 0) / _MIB),
        deleting="deletionTimestamp" in metadata,
    )


def pod(raw: Json) -> Pod | None:
    """A Pod, or None when it is finished and so holds nothing.

    Our slurmd pods are seen until they are gone: one that the kubelet refused is `Failed`, and its loan must know.
    """
    metadata, spec, status = raw["metadata"], raw["spec"], raw.get("status") or {}
    needed = requests(spec)
    gpus = _extended(needed)
    labels = metadata.get("labels") or {}
    if not gpus:
        labels = {key: value for key, value in labels.items() if key.startswith(_KEPT_POD_LABELS)}
    phase = status.get("phase", "Pending")
    if phase in ("Succeeded", "Failed") and LOAN_LABEL not in labels:
        return None
    scheduled = _condition(status, "PodScheduled")
    return Pod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        node=spec.get("nodeName") or "",
        phase=phase,
        gpus=gpus,
        cpu_millis=math.ceil(needed.get("cpu", 0) * 1000),
        memory_mib=math.ceil(needed.get("memory", 0) / _MIB),
        priority=spec.get("priority") or 0,
        priority_class_name=spec.get("priorityClassName") or "",
        owner=controller(metadata) or Owner("v1", "Pod", metadata["name"], metadata.get("uid", "")),
        labels=labels,
        annotations=_annotations(metadata),
        tolerations=_tolerations(spec.get("tolerations") or ()),
        node_selector=spec.get("nodeSelector") or {},
        required_affinity=_required_affinity(spec),
        unschedulable=scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable",
        gated=bool(spec.get("schedulingGates")),
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        deleting="deletionTimestamp" in metadata,
        waiting_reason=_waiting_reason(status),
        scheduler_message=_cut(scheduled.get("message") or "") if scheduled.get("status") == "False" else "",
        grace_seconds=30 if (grace := spec.get("terminationGracePeriodSeconds")) is None else grace,
        **(_topology(spec, metadata) if gpus else {}),
    )


def controller(metadata: Json) -> Owner | None:
    """The object's controller, or None when nothing controls it."""
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller"):
            return Owner(reference["apiVersion"], reference["kind"], reference["name"], reference["uid"])
    return None


def part(raw: Json) -> Part | None:
    """What was made for an InferenceService, or None when nothing controls it."""
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    owner = next((ref["uid"] for ref in metadata.get("ownerReferences") or () if ref.get("controller")), None)
    if owner is None:
        return None
    refused = _condition(status, "ReplicaFailure")
    return Part(
        uid=metadata["uid"],
        owner_uid=owner,
        fingerprint=(metadata.get("annotations") or {}).get(FINGERPRINT, ""),
        revision=revision(raw),
        replicas=spec.get("replicas") or 0,
        existing=status.get("replicas") or 0,
        ready=status.get("readyReplicas") or 0,
        updated=status.get("updatedReplicas") or 0,
        settled=(status.get("observedGeneration") or 0) >= metadata.get("generation", 0),
        problem=_cut(refused.get("message") or "") if refused.get("status") == "True" else "",
    )


def revision(raw: Json) -> str:
    """Changes when somebody changes the object, and where the object counts generations not with its status."""
    metadata = raw["metadata"]
    return str(metadata.get("generation") or metadata["resourceVersion"])


def disruption_budget(raw: Json) -> DisruptionBudget:
    """A PodDisruptionBudget. What its status says counts only for the spec that it speaks of."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    current = status.get("observedGeneration", 0) >= metadata.get("generation", 0)
    return DisruptionBudget(
        namespace=metadata["namespace"],
        name=metadata["name"],
        selector=_selector((raw.get("spec") or {}).get("selector")),
        allowed=status.get("disruptionsAllowed", 0) if current else 0,
        part=part(raw) if SERVICE_LABEL in (metadata.get("labels") or {}) else None,
    )


def resource(model: type[Resource], raw: Json) -> Resource:
    """One of Tidegate's own resources.

    Raises `ValueError`, one sentence that names the object and the field, when it is not as this release knows it.
    """
    try:
        return model.model_validate(raw)
    except pydantic.ValidationError as error:
        metadata = raw.get("metadata") or {}
        name = "/".join(part for part in (metadata.get("namespace"), metadata.get("name")) if part)
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            f"{model.__name__} {name}: field {field} cannot be read ({first['msg']}); "
            "correct it, and see that the CRDs are of the operator's release."
        ) from error


def requests(pod_spec: Json) -> dict[str, Decimal]:
    """What a pod takes from its node, by resource name, as the scheduler counts it; CPU in cores, memory in bytes.

    The larger of what runs for good (containers and sidecars) and of each init container with the sidecars that run
    before it; then the overhead. Requests of the pod as a whole go before those of its containers.
    """
    total: dict[str, Decimal] = {}
    for container in pod_spec.get("containers") or ():
        _add(total, _container_requests(container))
    sidecars: dict[str, Decimal] = {}
    peak: dict[str, Decimal] = {}
    for container in pod_spec.get("initContainers") or ():
        needed = _container_requests(container)
        if container.get("restartPolicy") == "Always":
            _add(total, needed)
            _add(sidecars, needed)
            needed = {}
        _raise(
            peak, {name: sidecars.get(name, Decimal()) + needed.get(name, Decimal()) for name in {*sidecars, *needed}}
        )
    _raise(total, peak)
    total.update(_container_requests(pod_spec))
    _add(total, _numbers(pod_spec.get("overhead")))
    return total


@lru_cache(maxsize=4096)
def quantity(text: str | int | float) -> Decimal:
    """An amount as Kubernetes writes it (`500m`, `64Gi`, `1e3`) as a number. Raises `ValueError` when it is none."""
    number: Decimal = parse_quantity(text)
    return number


def _container_requests(container: Json) -> dict[str, Decimal]:
    resources = container.get("resources") or {}
    return _numbers(resources.get("limits")) | _numbers(resources.get("requests"))


def _numbers(quantities: Json | None) -> dict[str, Decimal]:
    return {name: quantity(amount) for name, amount in (quantities or {}).items()}


def _add(total: dict[str, Decimal], more: Mapping[str, Decimal]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, Decimal()) + amount


def _raise(total: dict[str, Decimal], least: Mapping[str, Decimal]) -> None:
    for name, amount in least.items():
        total[name] = max(total.get(name, Decimal()), amount)


def _extended(amounts: Mapping[str, Decimal]) -> dict[str, int]:
    """Extended resources, as Kubernetes tells them from its own: a domain that is not kubernetes.io."""
    return {
        name: int(amount) for name, amount in amounts.items() if amount and "/" in name and "kubernetes.io/" not in name
    }


def _condition(status: Json, type_: str) -> Json:
    return next((c for c in status.get("conditions") or () if c.get("type") == type_), {})


def _annotations(metadata: Json) -> dict[str, str]:
    found = metadata.get("annotations") or {}
    return {key: value for key, value in found.items() if key.startswith(_KEPT_ANNOTATIONS)}


def _tolerations(raw: Iterable[Json]) -> tuple[Toleration, ...]:
    return tuple(
        Toleration(t.get("key") or "", t.get("operator") or "Equal", t.get("value") or "", t.get("effect") or "")
        for t in raw
    )


def _required_affinity(spec: Json) -> tuple[tuple[Requirement, ...], ...]:
    node_affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    return tuple(_term(term) for term in required.get("nodeSelectorTerms") or ())


def _term(term: Json) -> tuple[Requirement, ...]:
    """The requirements of one term; those on fields have the key `metadata.name`."""
    found = [*(term.get("matchExpressions") or ()), *(term.get("matchFields") or ())]
    if not found:
        # A term without requirements matches no node, and not every node.
        return (("metadata.name", "In", ()),)
    return tuple((r["key"], r["operator"], tuple(r.get("values") or ())) for r in found)


def _topology(spec: Json, metadata: Json) -> dict[str, Any]:
    """Where the pod must be in relation to other pods."""
    affinity, anti_affinity = (
        (spec.get("affinity") or {}).get(kind) or {} for kind in ("podAffinity", "podAntiAffinity")
    )
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    return {
        "spread": tuple(
            Spread(
                _pods_nearby(one, metadata),
                one["maxSkew"],
                all_nodes=one.get("nodeAffinityPolicy") == "Ignore",
            )
            for one in spec.get("topologySpreadConstraints") or ()
            if one.get("whenUnsatisfiable") == "DoNotSchedule"
        ),
        "together": tuple(_pods_nearby(term, metadata) for term in affinity.get(required) or ()),
        "apart": tuple(_pods_nearby(term, metadata) for term in anti_affinity.get(required) or ()),
    }


def _pods_nearby(term: Json, metadata: Json) -> PodsNearby:
    """The pods that a spread constraint or a term of affinity means; labels of the pod itself may be part of that."""
    selector, own = _selector(term.get("labelSelector")), metadata.get("labels") or {}
    if selector is not None:
        alike = [(key, "In", (own[key],)) for key in term.get("matchLabelKeys") or () if key in own]
        unlike = [(key, "NotIn", (own[key],)) for key in term.get("mismatchLabelKeys") or () if key in own]
        selector = tuple(dict.fromkeys((*selector, *alike, *unlike)))
    namespaces, beside = tuple(term.get("namespaces") or ()), _selector(term.get("namespaceSelector"))
    if not namespaces and beside is None:
        namespaces = (metadata["namespace"],)
    return PodsNearby(term["topologyKey"], selector, namespaces, beside)


def _selector(raw: Json | None) -> tuple[Requirement, ...] | None:
    """A metav1.LabelSelector: an empty one selects everything, and none at all selects nothing."""
    if raw is None:
        return None
    labels = tuple((key, "In", (value,)) for key, value in (raw.get("matchLabels") or {}).items())
    expressions = raw.get("matchExpressions") or ()
    return labels + tuple((e["key"], e["operator"], tuple(e.get("values") or ())) for e in expressions)


def _waiting_reason(status: Json) -> str:
    if status.get("phase") == "Failed":
        return _sentence(status)
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    states = (container.get("state", {}).get("waiting") for container in containers)
    return next((_sentence(waiting) for waiting in states if waiting), "")


def _sentence(source: Json) -> str:
    return _cut(": ".join(part for part in (source.get("reason"), source.get("message")) if part))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"

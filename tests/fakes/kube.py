"""A Kubernetes in memory: an API server, and a scheduler and kubelets that act only when a test tells them to.

It is faithful where Tidegate's promises rest on Kubernetes: resource versions, UIDs, merge patches, the
separate status, finalizers, graceful deletion, binding and admission. A contract test holds it to the real API server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

import pydantic

from tests.fakes.placement import obstacle, selected, short_of
from tests.fakes.selectors import field_tests, label_selector_matches, label_tests
from tests.fakes.server_side import applied
from tidegate.api import BatchPool, CapacityClaim, InferenceService, NodeLoan, SlurmCluster
from tidegate.cluster import errors
from tidegate.cluster.client import Json, Objects
from tidegate.cluster.kinds import (
    BATCH_POOLS,
    CAPACITY_CLAIMS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    INFERENCE_SERVICES,
    NODE_LOANS,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    SLURM_CLUSTERS,
    Kind,
)

_MODELS: dict[Kind, type[BatchPool | CapacityClaim | InferenceService | NodeLoan | SlurmCluster]] = {
    BATCH_POOLS: BatchPool,
    CAPACITY_CLAIMS: CapacityClaim,
    INFERENCE_SERVICES: InferenceService,
    NODE_LOANS: NodeLoan,
    SLURM_CLUSTERS: SlurmCluster,
}
_WITH_STATUS = {*_MODELS, NODES, PODS, DEPLOYMENTS, DISRUPTION_BUDGETS}
_WITH_GENERATION = {*_MODELS, PODS, DEPLOYMENTS, DISRUPTION_BUDGETS}
_SYSTEM_FIELDS = ("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp")
Verb = Literal["get", "list", "create", "patch", "apply", "delete", "evict"]
Key = tuple[Kind, str, str]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change:
    """One event of the watch feed. `object` is a copy of that moment."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    kind: Kind
    object: Json
    resource_version: int


@dataclass(frozen=True, slots=True)
class Fault:
    """The next request of this verb on this kind fails with `error`, before or after it had its effect."""

    verb: Verb
    kind: Kind
    error: Exception
    after: bool


class FakeKube:
    """`KubeApi` in memory. `clock` tells the time; `changes` is all that a watch would ever have told, in order."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._objects: dict[Key, Json] = {}
        self._version = 0
        self._uids = 0
        self._faults: list[Fault] = []
        self._dead: set[str] = set()
        self._applied: dict[str, Json] = {}
        self.changes: list[Change] = []
        self.evicted: list[Json] = []
        """Pods as they were when their eviction was granted, in order."""

    # --- KubeApi

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Json:
        fault = self._fault("get", kind)
        found = _copy(self._found("get", kind, name, namespace))
        return _answer(found, fault)

    async def list(
        self, kind: Kind, namespace: str = "", label_selector: str = "", field_selector: str = ""
    ) -> Objects:
        fault = self._fault("list", kind)
        labels, fields = label_tests(label_selector), field_tests(kind, field_selector)
        found = [
            _copy(obj)
            for obj in self.peek(kind)
            if namespace in ("", obj["metadata"].get("namespace", ""))
            and all(test(obj["metadata"].get("labels") or {}) for test in labels)
            and all(test(obj) for test in fields)
        ]
        return _answer(found, fault)

    async def create(self, kind: Kind, body: Json, namespace: str = "") -> Json:
        fault = self._fault("create", kind)
        if kind.namespaced != bool(namespace):
            raise ValueError(f"{kind.plural} need {'a' if kind.namespaced else 'no'} namespace")
        name = body["metadata"]["name"]
        if (kind, namespace, name) in self._objects:
            raise errors.refused(409, "AlreadyExists", "", "create", kind, name, namespace)
        obj = {"apiVersion": kind.api_version, "kind": kind.kind} | _copy(body)
        metadata = obj["metadata"] = {k: v for k, v in obj["metadata"].items() if k not in _SYSTEM_FIELDS}
        self._uids += 1
        metadata["uid"] = f"uid-{self._uids}"
        metadata["creationTimestamp"] = self._now()
        if kind.namespaced:
            metadata["namespace"] = namespace
        if kind in _WITH_GENERATION:
            metadata["generation"] = 1
        if kind in _MODELS:
            obj.pop("status", None)
        if kind == NODES:
            obj.setdefault("spec", {})
        if kind == PODS:
            obj["status"] = {"phase": "Pending"}
            self._prioritise(obj, name, namespace)
        self._check(kind, obj, "create")
        self._objects[kind, namespace, name] = obj
        self._tell("ADDED", kind, obj)
        return _answer(_copy(obj), fault)

    async def patch(self, kind: Kind, name: str, body: Json, namespace: str = "", subresource: str = "") -> Json:
        fault = self._fault("patch", kind)
        old = self._found("patch", kind, name, namespace)
        asked = body.get("metadata") or {}
        if asked.get("uid") not in (None, old["metadata"]["uid"]):
            raise errors.refused(422, "Invalid", "metadata.uid: field is immutable", "patch", kind, name, namespace)
        if asked.get("resourceVersion") not in (None, "", old["metadata"]["resourceVersion"]):
            raise errors.refused(409, "Conflict", "another resourceVersion", "patch", kind, name, namespace)
        if subresource not in ("", "status") or (subresource and kind not in _WITH_STATUS):
            raise errors.refused(404, "NotFound", "no such subresource", "patch", kind, name, namespace, subresource)
        return _answer(self._change(kind, old, _merged(old, body), subresource), fault)

    async def apply(self, kind: Kind, body: Json, namespace: str = "") -> Json:
        fault = self._fault("apply", kind)
        old = self._objects.get((kind, namespace, body["metadata"]["name"]))
        if old is None:
            made = await self.create(kind, body, namespace)
        else:
            before = self._applied.get(old["metadata"]["uid"])
            made = self._change(kind, old, applied(_copy(old), before, _copy(body)))
        self._applied[made["metadata"]["uid"]] = _copy(body)
        return _answer(made, fault)

    def _change(self, kind: Kind, old: Json, new: Json, subresource: str = "") -> Json:
        """Write the new version of an object as far as the request may, and return it."""
        name, namespace = old["metadata"]["name"], old["metadata"].get("namespace", "")
        if subresource == "status":
            new = {**_copy(old), "status": new.get("status")}
        elif kind in _WITH_STATUS:
            new["status"] = _copy(old.get("status"))
        if not new.get("status"):
            new.pop("status", None)
        for field in _SYSTEM_FIELDS:
            if field in old["metadata"]:
                new["metadata"][field] = old["metadata"][field]
            else:
                new["metadata"].pop(field, None)
        self._check(kind, new, "patch", old)
        if new == old:
            unchanged: Json = _copy(old)
            return unchanged
        # Deployments count another annotation as another generation, too.
        said = ("spec", "annotations") if kind == DEPLOYMENTS else ("spec",)
        if kind in _WITH_GENERATION and any(_said(new, what) != _said(old, what) for what in said):
            new["metadata"]["generation"] += 1
        self._objects[kind, namespace, name] = new
        if not self._vanish_if_done(kind, new):
            self._tell("MODIFIED", kind, new)
        changed: Json = _copy(new)
        return changed

    async def delete(
        self, kind: Kind, name: str, namespace: str = "", uid: str = "", grace_seconds: int | None = None
    ) -> None:
        fault = self._fault("delete", kind)
        obj = self._found("delete", kind, name, namespace)
        if uid and uid != obj["metadata"]["uid"]:
            raise errors.refused(409, "Conflict", "uid is another", "delete", kind, name, namespace)
        self._delete(kind, obj, grace_seconds)
        _answer(None, fault)

    async def evict(self, name: str, namespace: str, uid: str, dry_run: bool = False) -> None:
        fault = self._fault("evict", PODS)
        pod = self._found("create", PODS, name, namespace)
        if uid != pod["metadata"]["uid"]:
            raise errors.refused(409, "Conflict", "uid is another", "create", PODS, name, namespace, "eviction")
        budget = None if _needs_no_leave(pod) else self._leave(pod)
        if not dry_run:
            if budget:
                budget["status"]["disruptionsAllowed"] -= 1
                self._tell("MODIFIED", DISRUPTION_BUDGETS, budget)
            if "deletionTimestamp" not in pod["metadata"]:
                self.evicted.append(_copy(pod))
            self._delete(PODS, pod, None)
        _answer(None, fault)

    def _leave(self, pod: Json) -> Json | None:
        """The budget that lets the pod go, None when none has a say. Raises as the Eviction API does."""
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        budgets = [one for one in self.peek(DISRUPTION_BUDGETS) if one["metadata"]["namespace"] == namespace]
        over = [one for one in budgets if label_selector_matches(one["spec"].get("selector"), _labels(pod))]
        if len(over) > 1:
            words = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            raise errors.refused(500, "InternalError", words, "create", PODS, name, namespace, "eviction")
        if not over:
            return None
        status, metadata = over[0].get("status") or {}, over[0]["metadata"]
        current = status.get("observedGeneration", 0) >= metadata["generation"]
        if not current or status.get("disruptionsAllowed", 0) < 1:
            words = "Cannot evict pod as it would violate the pod's disruption budget."
            raise errors.refused(429, "TooManyRequests", words, "create", PODS, name, namespace, "eviction")
        return over[0]

    async def close(self) -> None:
        """Nothing is open."""

    # --- the API server's insides

    def fail_next(self, verb: Verb, kind: Kind, error: Exception, after: bool = False) -> None:
        """Let the next such request fail; with `after` it has had its effect, and only the answer is lost."""
        self._faults.append(Fault(verb, kind, error, after))

    def changes_since(self, resource_version: str) -> tuple[Change, ...]:
        """What a watch from that version on tells."""
        return tuple(change for change in self.changes if change.resource_version > int(resource_version))

    @property
    def resource_version(self) -> str:
        """The version of the newest change."""
        return str(self._version)

    def peek(self, kind: Kind) -> Objects:
        """The objects themselves, by name, for tests that only look: copies would take most of their time."""
        found = [(key[1:], obj) for key, obj in self._objects.items() if key[0] == kind]
        return [obj for _, obj in sorted(found, key=lambda item: item[0])]

    def collect_garbage(self) -> tuple[str, ...]:
        """Delete objects all of whose owners are gone, and pods whose node is gone; `Kind namespace/name` of each."""
        uids = {obj["metadata"]["uid"] for obj in self._objects.values()}
        deleted = []
        for (kind, namespace, name), obj in list(self._objects.items()):
            owners = obj["metadata"].get("ownerReferences") or ()
            orphaned = bool(owners) and not any(owner["uid"] in uids for owner in owners)
            node = obj["spec"].get("nodeName") if kind == PODS else None
            stranded = bool(node) and (NODES, "", node) not in self._objects
            if (orphaned and "deletionTimestamp" not in obj["metadata"]) or stranded:
                self._delete(kind, obj, 0 if stranded else None)
                deleted.append(f"{kind.kind} {namespace}/{name}" if namespace else f"{kind.kind} {name}")
        return tuple(deleted)

    def count_budgets(self) -> None:
        """A turn of the disruption controller: how many pods of each budget may go now."""
        for budget in self.peek(DISRUPTION_BUDGETS):
            spec, metadata = budget["spec"], budget["metadata"]
            pods = [pod for pod in self._pods() if pod["metadata"]["namespace"] == metadata["namespace"]]
            pods = [pod for pod in pods if label_selector_matches(spec.get("selector"), _labels(pod))]
            there = [pod for pod in pods if pod["status"]["phase"] not in ("Succeeded", "Failed")]
            running = [pod for pod in there if pod["status"]["phase"] == "Running"]
            healthy = sum("deletionTimestamp" not in pod["metadata"] for pod in running)
            wanted = spec["minAvailable"] if "minAvailable" in spec else len(there) - spec.get("maxUnavailable", 0)
            status = {
                "observedGeneration": metadata["generation"],
                "expectedPods": len(there),
                "currentHealthy": healthy,
                "desiredHealthy": wanted,
                "disruptionsAllowed": max(healthy - wanted, 0),
            }
            if budget.get("status") != status:
                budget["status"] = status
                self._tell("MODIFIED", DISRUPTION_BUDGETS, budget)

    def _found(self, verb: Verb, kind: Kind, name: str, namespace: str) -> Json:
        obj = self._objects.get((kind, namespace, name))
        if obj is None:
            raise errors.refused(404, "NotFound", f'{kind.resource} "{name}" not found', verb, kind, name, namespace)
        return obj

    def _fault(self, verb: Verb, kind: Kind) -> Fault | None:
        fault = next((f for f in self._faults if (f.verb, f.kind) == (verb, kind)), None)
        if fault:
            self._faults.remove(fault)
            if not fault.after:
                raise fault.error
        return fault

    def _tell(self, type_: Literal["ADDED", "MODIFIED", "DELETED"], kind: Kind, obj: Json) -> None:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self.changes.append(Change(type_, kind, _copy(obj), self._version))

    def _check(self, kind: Kind, new: Json, verb: Verb, old: Json | None = None) -> None:
        """Validate and default as the schema and the built-in admission do."""
        metadata = new["metadata"]
        name, namespace = metadata["name"], metadata.get("namespace", "")
        model = _MODELS.get(kind)
        if model:
            try:
                parsed = model.model_validate(new)
            except pydantic.ValidationError as error:
                raise errors.refused(422, "Invalid", str(error), verb, kind, name, namespace) from error
            new["spec"] = parsed.spec.to_json()
            if "status" in new:
                # The server fills in no defaults where a status says nothing.
                new["status"] = parsed.status.model_dump(
                    mode="json", by_alias=True, exclude_none=True, exclude_unset=True
                )
        if old is None:
            return
        added = {*(metadata.get("finalizers") or ())} - {*(old["metadata"].get("finalizers") or ())}
        if added and "deletionTimestamp" in old["metadata"]:
            raise errors.refused(422, "Invalid", "no new finalizers while deleted", verb, kind, name, namespace)
        if kind == PODS:
            before, after = {**old["spec"]}, {**new["spec"]}
            had, has = before.pop("tolerations", None) or [], after.pop("tolerations", None) or []
            if before != after or not all(toleration in has for toleration in had):
                raise errors.refused(422, "Invalid", "pods may only get tolerations", verb, kind, name, namespace)

    def _prioritise(self, pod: Json, name: str, namespace: str) -> None:
        classes = {key[2]: obj for key, obj in self._objects.items() if key[0] == PRIORITY_CLASSES}
        wanted = pod["spec"].get("priorityClassName")
        default = next((class_ for class_, obj in classes.items() if obj.get("globalDefault")), None)
        if wanted and wanted not in classes:
            words = f"no PriorityClass with name {wanted} was found"
            raise errors.refused(403, "Forbidden", words, "create", PODS, name, namespace)
        class_ = wanted or default
        if class_:
            pod["spec"]["priorityClassName"] = class_
        pod["spec"]["priority"] = classes[class_]["value"] if class_ else 0

    def _delete(self, kind: Kind, obj: Json, grace_seconds: int | None) -> None:
        metadata = obj["metadata"]
        grace = 0
        if kind == PODS and obj["spec"].get("nodeName") and obj["status"]["phase"] not in ("Succeeded", "Failed"):
            grace = obj["spec"].get("terminationGracePeriodSeconds", 30) if grace_seconds is None else grace_seconds
        before = _copy(metadata)
        if "deletionTimestamp" not in metadata:
            metadata["deletionTimestamp"] = _text(self._clock() + timedelta(seconds=grace))
            if "generation" in metadata:
                metadata["generation"] += 1
        if kind == PODS:
            metadata["deletionGracePeriodSeconds"] = min(grace, metadata.get("deletionGracePeriodSeconds", grace))
        if not self._vanish_if_done(kind, obj) and metadata != before:
            self._tell("MODIFIED", kind, obj)

    def _vanish_if_done(self, kind: Kind, obj: Json) -> bool:
        metadata = obj["metadata"]
        if "deletionTimestamp" not in metadata or metadata.get("finalizers"):
            return False
        if metadata.get("deletionGracePeriodSeconds"):
            return False
        del self._objects[kind, metadata.get("namespace", ""), metadata["name"]]
        self._tell("DELETED", kind, obj)
        return True

    def _now(self) -> str:
        return _text(self._clock())

    # --- nodes, the scheduler and the kubelets

    async def add_node(
        self,
        name: str,
        gpus: int = 8,
        labels: Mapping[str, str] | None = None,
        gpu_resource_name: str = "nvidia.com/gpu",
        cpus: int = 64,
        memory: str = "512Gi",
    ) -> Json:
        """A ready node of this size."""
        amounts = {"cpu": str(cpus), "memory": memory, "pods": "110"}
        if gpus:
            amounts[gpu_resource_name] = str(gpus)
        labels = {"kubernetes.io/hostname": name, **(labels or {})}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        status = {"capacity": amounts, "allocatable": amounts, "conditions": [ready]}
        return await self.create(NODES, {"metadata": {"name": name, "labels": labels}, "spec": {}, "status": status})

    def node_dies(self, name: str) -> None:
        """The kubelet falls silent: nothing on the node is admitted or ended, and Kubernetes taints it."""
        self._dead.add(name)
        self._set_readiness(name, "Unknown", [{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}])

    def node_lives(self, name: str) -> None:
        """The kubelet is back."""
        self._dead.discard(name)
        self._set_readiness(name, "True", [])

    def _set_readiness(self, name: str, status: str, taints: Objects) -> None:
        node = self._found("get", NODES, name, "")
        kept = [t for t in node["spec"].get("taints") or [] if t["key"] != "node.kubernetes.io/unreachable"]
        node["spec"]["taints"] = kept + taints
        node["status"]["conditions"] = [{"type": "Ready", "status": status}]
        self._tell("MODIFIED", NODES, node)

    def schedule(self) -> tuple[str, ...]:
        """Bind each pending pod, the most important first, to the first node that may have it; their names.

        As kube-scheduler decides it from what is true now; without preemption.
        """
        pending = [p for p in self._pods() if not p["spec"].get("nodeName") and not p["spec"].get("schedulingGates")]
        pending.sort(key=lambda p: -p["spec"]["priority"])
        bound = []
        for pod in pending:
            obstacles: dict[str, int] = {}
            for node in self.peek(NODES):
                why_not = self._obstacle(pod, node)
                if not why_not:
                    self._bind(pod, node["metadata"]["name"])
                    bound.append(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")
                    break
                obstacles[why_not] = obstacles.get(why_not, 0) + 1
            else:
                self._reject(pod, obstacles)
        return tuple(bound)

    def schedule_stale(self, namespace: str, name: str, node: str) -> None:
        """Bind a pod by a decision of long ago, without a look at taints and room. Raises `Conflict` if it is bound."""
        pod = self._found("patch", PODS, name, namespace)
        if pod["spec"].get("nodeName") or "deletionTimestamp" in pod["metadata"]:
            raise errors.refused(409, "Conflict", "bound or being deleted", "patch", PODS, name, namespace, "binding")
        self._bind(pod, node)

    def kubelet(self, node: str) -> None:
        """One turn of the node's kubelet: start or refuse what was bound to it, then end what is being deleted."""
        if node in self._dead:
            return
        ours = [p for p in self._pods() if p["spec"].get("nodeName") == node]
        running = [p for p in ours if p["status"]["phase"] == "Running"]
        for pod in ours:
            if pod["status"]["phase"] == "Pending" and "deletionTimestamp" not in pod["metadata"]:
                self._admit(pod, self._found("get", NODES, node, ""), running)
        for pod in ours:
            if "deletionTimestamp" in pod["metadata"]:
                pod["metadata"]["deletionGracePeriodSeconds"] = 0
                self._vanish_if_done(PODS, pod)

    def _admit(self, pod: Json, node: Json, running: Objects) -> None:
        short = short_of(pod, node, running)
        if not selected(pod["spec"], node):
            reason = "NodeAffinity"
            message = f"Predicate {reason} failed: node(s) didn't match Pod's node affinity/selector"
        elif short:
            reason, message = f"OutOf{short}", f"Node didn't have enough resource: {short}"
        else:
            started = {"running": {"startedAt": self._now()}}
            names = [container["name"] for container in pod["spec"].get("containers") or ()]
            pod["status"]["phase"] = "Running"
            pod["status"]["containerStatuses"] = [{"name": name, "ready": True, "state": started} for name in names]
            running.append(pod)
            self._tell("MODIFIED", PODS, pod)
            return
        pod["status"] |= {"phase": "Failed", "reason": reason, "message": f"Pod was rejected: {message}"}
        self._tell("MODIFIED", PODS, pod)

    def _bind(self, pod: Json, node: str) -> None:
        pod["spec"]["nodeName"] = node
        pod["status"]["conditions"] = [{"type": "PodScheduled", "status": "True"}]
        self._tell("MODIFIED", PODS, pod)

    def _reject(self, pod: Json, obstacles: Mapping[str, int]) -> None:
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(obstacles.items()))
        message = f"0/{sum(obstacles.values())} nodes are available: {why}."
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        if pod["status"].get("conditions") != [condition]:
            pod["status"]["conditions"] = [condition]
            self._tell("MODIFIED", PODS, pod)

    def _obstacle(self, pod: Json, node: Json) -> str:
        there = [
            p
            for p in self._pods()
            if p["spec"].get("nodeName") == node["metadata"]["name"]
            and p["status"]["phase"] not in ("Succeeded", "Failed")
        ]
        return obstacle(pod, node, there)

    def _pods(self) -> Objects:
        """Pods, the oldest first."""
        return [obj for key, obj in self._objects.items() if key[0] == PODS]


def _said(obj: Json, what: str) -> Any:
    return obj.get(what) if what == "spec" else obj["metadata"].get(what)


def _needs_no_leave(pod: Json) -> bool:
    """Pods that give nothing to lose: the Eviction API asks no budget for them."""
    return "deletionTimestamp" in pod["metadata"] or pod["status"]["phase"] != "Running"


def _labels(obj: Json) -> Json:
    return obj["metadata"].get("labels") or {}


def _merged(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return _copy(patch)
    new = _copy(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = _merged(new.get(key), value)
    return new


def _answer(answer: T, fault: Fault | None) -> T:
    if fault:
        raise fault.error
    return answer


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item) for item in value]
    return value


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""What an InferenceService lacks: its objects as it says them, room for warm replicas, and a word how it stands."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta

from tidegate.api import CapacityClaim, InferenceService, InferenceServiceStatus
from tidegate.api.names import SERVICE_LABEL
from tidegate.sharing.commands import ApplyPart, Command, ForgetClaim, WriteServiceStatus
from tidegate.sharing.index import Index, gpus_of
from tidegate.sharing.needs import held_nodes
from tidegate.sharing.snapshot import Part, Pod

PARTS = ("Service", "PodDisruptionBudget", "Deployment")
"""What is made for each service, in this order: the replicas last."""
TRY_AGAIN_SECONDS = 60
"""What the API server refused may be fine later: a quota was raised, a policy changed."""
_RECIPE = "1"
"""Raised when what is made of the same spec changes."""
_ABOUT_NUMBERS = ("replicas", "minReplicas", "maxReplicas", "warmReplicas", "poolName")
_MOST_NAMES = 4


def tend_services(index: Index) -> list[Command]:
    """All that is to be done for the InferenceServices."""
    commands: list[Command] = []
    for view in _views(index):
        if view.service.metadata.deletion_timestamp is None:
            if not _problem(view, index):
                commands += _parts(view, index)
                commands += _warm(view, index)
            commands += _status(view, index)
    return commands


def wanted_replicas(service: InferenceService) -> int:
    """What people or an autoscaler asked for, within the service's bounds."""
    return min(max(service.spec.replicas, service.spec.min_replicas), service.spec.max_replicas)


def warm_claim_name(service: InferenceService) -> str:
    """The claim that holds room for the warm replicas."""
    return f"{service.metadata.name}-warm"


def fingerprint(service: InferenceService, gate_image: str) -> str:
    """A digest of all that the objects are made from, but for numbers of replicas."""
    spec = {key: value for key, value in service.spec.to_json().items() if key not in _ABOUT_NUMBERS}
    made_from = [_RECIPE, service.metadata.uid, gate_image, service.spec.warm_replicas > 0, spec]
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _View:
    """A service with what belongs to it."""

    service: InferenceService
    pods: list[Pod] = field(default_factory=list)
    claims: list[CapacityClaim] = field(default_factory=list)
    """Live claims for its replicas."""

    @property
    def namespace(self) -> str:
        return self.service.metadata.namespace or ""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.service.metadata.name}"

    @property
    def wanted(self) -> int:
        return wanted_replicas(self.service)

    def part(self, kind: str, index: Index) -> Part | None:
        """What was made of this kind for this very service."""
        part = index.snapshot.parts.get(f"{kind} {self.key}")
        return part if part and part.owner_uid == self.service.metadata.uid else None


def _views(index: Index) -> list[_View]:
    services = {f"{s.metadata.namespace}/{s.metadata.name}": s for s in index.snapshot.services}
    if not services:
        return []
    pods: dict[str, list[Pod]] = defaultdict(list)
    for pod in index.snapshot.pods:
        if name := pod.labels.get(SERVICE_LABEL):
            pods[f"{pod.namespace}/{name}"].append(pod)
    claims: dict[str, list[CapacityClaim]] = defaultdict(list)
    for claim in index.live_claims.values():
        holders = {ref.uid for ref in claim.metadata.owner_references}
        if claim.spec.holder_ref:
            holders.add(claim.spec.holder_ref.uid)
        for holder in holders:
            claims[holder].append(claim)
    views = []
    for key, service in sorted(services.items()):
        deployment = index.snapshot.parts.get(f"Deployment {key}")
        owners = dict.fromkeys((service.metadata.uid, *((deployment.uid,) if deployment else ())))
        owners |= dict.fromkeys(pod.owner.uid for pod in pods[key])
        views.append(_View(service, pods[key], [claim for owner in owners for claim in claims.get(owner, ())]))
    return views


def _problem(view: _View, index: Index) -> tuple[str, str] | None:
    """Why nothing can be made of it for now."""
    if words := index.snapshot.service_problems.get(view.key):
        return "TemplateUnusable", words
    meta = view.service.metadata
    refusal = index.snapshot.refusals.get(meta.uid)
    recent = refusal is not None and index.now - refusal.time < timedelta(seconds=TRY_AGAIN_SECONDS)
    if refusal and recent and refusal.generation == meta.generation:
        return "Refused", refusal.message
    if not index.snapshot.gate_image:
        return "NoGateImage", "the operator was not told its own image, which the gate needs: set TIDEGATE_IMAGE"
    return None


def _parts(view: _View, index: Index) -> list[Command]:
    """What is lacking, was made from another spec, or was changed by somebody."""
    mark = fingerprint(view.service, index.snapshot.gate_image)
    commands: list[Command] = []
    for kind in PARTS:
        part = view.part(kind, index)
        scaled = kind != "Deployment" or (part is not None and part.replicas == view.wanted)
        if part is None or part.fingerprint != mark or not part.as_applied or not scaled:
            commands.append(ApplyPart(view.service, kind, view.wanted, mark))
    return commands


def _warm(view: _View, index: Index) -> list[Command]:
    """The claim for warm replicas, as large as it has to be."""
    service, name = view.service, warm_claim_name(view.service)
    claim = next((c for c in index.snapshot.claims if _is_named(c, view.namespace, name)), None)
    if claim and service.metadata.uid not in {ref.uid for ref in claim.metadata.owner_references}:
        return []
    nodes = _warm_nodes(view, claim, index)
    if claim and (nodes == 0 or claim.spec.pool_name != service.spec.pool_name):
        return [ForgetClaim(claim)] if claim.metadata.deletion_timestamp is None else []
    same = claim and (claim.spec.nodes, claim.spec.priority_class_name) == (nodes, service.spec.priority_class_name)
    if nodes == 0 or same:
        return []
    return [ApplyPart(service, "CapacityClaim", nodes, fingerprint(service, index.snapshot.gate_image))]


def _is_named(claim: CapacityClaim, namespace: str, name: str) -> bool:
    return claim.metadata.name == name and claim.metadata.namespace == namespace


def _warm_nodes(view: _View, claim: CapacityClaim | None, index: Index) -> int:
    """Held nodes that replicas run on, and as many as those take that wait or may come.

    The replicas carry the claim's label, so that no automatic claim is made for them.
    """
    spec = view.service.spec
    pool = index.pools.get(spec.pool_name or "")
    nodes = index.nodes_of_pool[pool.metadata.name] if pool else []
    fitting = [gpus_of(node, pool) // spec.gpus_per_replica for node in nodes] if pool and spec.warm_replicas else []
    per_node = min((count for count in fitting if count), default=0)
    if not per_node:
        return 0
    held = {node.name for node in held_nodes(claim, index)} if claim else set()
    bound = [pod for pod in view.pods if pod.node]
    used = {pod.node for pod in bound} & held
    waiting = sum(not pod.node and not pod.deleting for pod in view.pods)
    to_come = max(view.wanted - sum(not pod.deleting for pod in bound), waiting)
    warm = min(spec.warm_replicas, spec.max_replicas - view.wanted)
    room = len(used) * per_node - sum(pod.node in used for pod in bound)
    return len(used) + -(-max(to_come + warm - room, 0) // per_node)


def _status(view: _View, index: Index) -> list[Command]:
    service = view.service
    deployment = view.part("Deployment", index)
    generation = service.metadata.generation or None
    status = InferenceServiceStatus(
        observed_generation=generation,
        conditions=service.status.conditions,
        replicas=deployment.existing if deployment else 0,
        ready_replicas=deployment.ready if deployment else 0,
        selector=f"{SERVICE_LABEL}={service.metadata.name}",
    )
    available, reason, words = _available(view.wanted, status.ready_replicas)
    status = status.with_condition(index.now, "Available", available, reason, words, generation)
    progressing, reason, words = _progress(view, deployment, index)
    status = status.with_condition(index.now, "Progressing", progressing, reason, words, generation)
    return [WriteServiceStatus(service, status)] if status != service.status else []


def _available(wanted: int, ready: int) -> tuple[bool, str, str]:
    if ready:
        return True, "Serving", f"{ready} of {wanted} replicas are ready"
    if not wanted:
        return False, "ScaledToZero", "no replica is wanted"
    return False, "NoReplicaReady", f"none of {wanted} replicas is ready"


def _progress(view: _View, deployment: Part | None, index: Index) -> tuple[bool, str, str]:
    """Whether there is yet to come what is wanted; if so, what it waits for."""
    if problem := _problem(view, index):
        return False, *problem
    missing = [kind for kind in PARTS if view.part(kind, index) is None]
    if deployment is None or missing:
        name = view.service.metadata.name
        words = f"not made yet: {', '.join(missing)} {name}; one of this name that somebody else made stays as it is"
        return True, "Making", words
    if deployment.ready < view.wanted:
        reason, why = _what_lacks(view, deployment)
        return True, reason, f"{deployment.ready} of {view.wanted} replicas are ready{why}"
    if deployment.updated < view.wanted or not deployment.settled:
        words = f"{deployment.updated} of {view.wanted} replicas are as the spec says; the others are replaced"
        return True, "Replacing", words
    ending = sum(pod.deleting for pod in view.pods)
    if ending or deployment.existing > view.wanted:
        return (
            True,
            "Draining",
            f"replicas that answer their last requests: {ending or deployment.existing - view.wanted}",
        )
    return False, "AsWanted", f"{deployment.ready} of {view.wanted} replicas are ready"


def _what_lacks(view: _View, deployment: Part) -> tuple[str, str]:
    if deployment.problem:
        return "ReplicasRefused", f": {deployment.problem}"
    waits = [claim for claim in view.claims if not claim.status.is_true("Satisfied")]
    unbound = [pod for pod in view.pods if not pod.node and not pod.deleting]
    if waits and unbound:
        satisfied = waits[0].status.condition("Satisfied")
        words = satisfied.message if satisfied else "it was just made"
        return "WaitingForNodes", f"; claim {waits[0].metadata.name}: {words}"
    for pod in sorted(view.pods, key=lambda p: p.name):
        if words := pod.waiting_reason:
            return "ReplicaDoesNotStart", f"; pod {pod.name}: {words}"
    for pod in unbound:
        if pod.scheduler_message:
            return "Unschedulable", f"; pod {pod.name}: {pod.scheduler_message}"
    starting = [pod.name for pod in view.pods if pod.node and not pod.deleting][:_MOST_NAMES]
    return "Starting", "; the others start" if starting else ""

"""Effects on what InferenceServices are made of."""

from __future__ import annotations

from tidegate.api import InferenceService
from tidegate.cluster import inference, views
from tidegate.cluster.client import Json
from tidegate.cluster.errors import Forbidden, Invalid, NotFound
from tidegate.cluster.kinds import (
    CAPACITY_CLAIMS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    INFERENCE_SERVICES,
    SERVICES,
    Kind,
)
from tidegate.controllers.events import tell_service
from tidegate.controllers.hands import Hands, NotYet
from tidegate.controllers.record_appliers import write_status
from tidegate.sharing.commands import ApplyPart, WriteServiceStatus

_KINDS = {kind.kind: kind for kind in (DEPLOYMENTS, SERVICES, DISRUPTION_BUDGETS, CAPACITY_CLAIMS)}


async def apply_part(command: ApplyPart, hands: Hands) -> None:
    service, kind = command.service, _KINDS[command.kind]
    await _as_seen(service, hands)
    body = _body(command, hands)
    await _not_of_others(kind, body, service, hands)
    try:
        made = await hands.kube.apply(kind, body, service.metadata.namespace or "")
    except (Invalid, Forbidden) as error:
        hands.refused(service, str(error), hands.clock())
        raise
    if kind == CAPACITY_CLAIMS:
        hands.remember(kind, made)
    else:
        hands.applied(kind, made)


async def write_service_status(command: WriteServiceStatus, hands: Hands) -> None:
    await write_status(INFERENCE_SERVICES, command.service, command.status, hands)
    await tell_service(command.service, command.status, hands)


def _body(command: ApplyPart, hands: Hands) -> Json:
    service, mark = command.service, command.fingerprint
    match command.kind:
        case "Deployment":
            try:
                return inference.deployment(service, command.amount, hands.gate_image, mark)
            except ValueError as error:
                raise NotYet(str(error)) from None
        case "Service":
            return inference.front(service, mark)
        case "PodDisruptionBudget":
            return inference.budget(service, mark)
        case _:
            return inference.warm_claim(service, command.amount, mark)


async def _as_seen(service: InferenceService, hands: Hands) -> None:
    """Somebody may have asked for another number of replicas meanwhile, or deleted the service."""
    meta = service.metadata
    raw = await hands.kube.get(INFERENCE_SERVICES, meta.name, meta.namespace or "")
    live = views.resource(InferenceService, raw).metadata
    if (live.uid, live.generation) != (meta.uid, meta.generation) or live.deletion_timestamp is not None:
        hands.remember(INFERENCE_SERVICES, raw)
        raise NotYet(f"InferenceService {meta.namespace}/{meta.name} changed since it was looked at")


async def _not_of_others(kind: Kind, body: Json, service: InferenceService, hands: Hands) -> None:
    """An object of that name that somebody else made is not ours to change."""
    name, namespace = body["metadata"]["name"], service.metadata.namespace or ""
    try:
        there = await hands.kube.get(kind, name, namespace)
    except NotFound:
        return
    owners = {ref["uid"] for ref in there["metadata"].get("ownerReferences") or () if ref.get("controller")}
    if service.metadata.uid not in owners:
        raise NotYet(f"{kind.kind} {namespace}/{name} was not made for the InferenceService of that name; rename one")

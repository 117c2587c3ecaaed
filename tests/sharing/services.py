"""InferenceServices for small worlds, and what was made of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from hypothesis import strategies as st

from tests.sharing.build import GPU, ago, claim, pod
from tidegate.api import CapacityClaim, InferenceService, Metadata, OwnerReference
from tidegate.api.names import API_VERSION, CLAIM_LABEL, SERVICE_LABEL
from tidegate.sharing.inference import PARTS, fingerprint
from tidegate.sharing.snapshot import Owner, Part, Pod

IMAGE = "tidegate:1"


def service(
    name: str = "chat", *, deleted: datetime | None = None, generation: int = 1, **spec: Any
) -> InferenceService:
    """A service of the team, of a server that needs no model; `spec` in the words of the resource."""
    fields = {
        "server": {"image": "server:1"},
        "gpusPerReplica": 2,
        "maxReplicas": 4,
        "priorityClassName": "high",
        **spec,
    }
    return InferenceService.model_validate(
        {
            "metadata": Metadata(
                name=name,
                namespace="team",
                uid=f"uid-{name}",
                resource_version="1",
                generation=generation,
                creation_timestamp=ago(1000),
                deletion_timestamp=deleted,
            ),
            "spec": fields,
        }
    )


def made(one: InferenceService, replicas: int = 1, *, ready: int | None = None, **more: Any) -> dict[str, Part]:
    """What there is when all is as the service says; `more` is told of the Deployment."""
    name = one.metadata.name
    parts = {
        f"{kind} team/{name}": Part(
            uid=f"uid-{kind}-{name}",
            owner_uid=one.metadata.uid,
            fingerprint=fingerprint(one, IMAGE),
            as_applied=True,
        )
        for kind in PARTS
    }
    deployment = f"Deployment team/{name}"
    numbers = {"replicas": replicas, "existing": replicas, "updated": replicas}
    numbers["ready"] = replicas if ready is None else ready
    parts[deployment] = replace(parts[deployment], **{**numbers, **more})
    return parts


def replica(name: str, *, of: str = "chat", on: str = "", warm: bool = False, deleting: bool = False) -> Pod:
    """A replica of a service, bound or waiting."""
    bare = pod(name, on=on, gpus=2, deleting=deleting, owner=of, resource=GPU)
    labels = {SERVICE_LABEL: of, **({CLAIM_LABEL: f"{of}-warm"} if warm else {})}
    return replace(bare, labels=labels, owner=Owner("apps/v1", "ReplicaSet", f"{of}-1", f"uid-rs-{of}"))


def warm_claim(of: str = "chat", nodes: int = 1, **more: Any) -> CapacityClaim:
    """The claim for the warm replicas of a service."""
    bare = claim(f"{of}-warm", nodes=nodes, **more)
    reference = OwnerReference(
        api_version=API_VERSION, kind="InferenceService", name=of, uid=f"uid-{of}", controller=True
    )
    return bare.model_copy(update={"metadata": bare.metadata.model_copy(update={"owner_references": (reference,)})})


@st.composite
def served(draw: st.DrawFn) -> tuple[list[Any], dict[str, Part]]:
    """A service with some of what it is made of, at any point of its way; replicas and the warm claim included."""
    bounds = draw(st.sampled_from([(0, 1), (1, 1), (1, 3)]))
    one = service(
        replicas=draw(st.integers(0, 4)),
        minReplicas=bounds[0],
        maxReplicas=bounds[1],
        warmReplicas=draw(st.sampled_from([0, 0, 1, 2])),
        poolName="batch",
        gpusPerReplica=draw(st.sampled_from([1, 8])),
        deleted=draw(st.sampled_from([None, None, None, ago(1)])),
    )
    parts = made(one, draw(st.integers(0, 3)), ready=draw(st.integers(0, 3)), existing=draw(st.integers(0, 3)))
    kept = {key: part for key, part in parts.items() if draw(st.integers(0, 3))}
    things: list[Any] = [one]
    for number in range(draw(st.integers(0, 2))):
        on = draw(st.sampled_from(["", "", "gpu-1", "gpu-2"]))
        things.append(replica(f"chat-{number}", on=on, warm=one.spec.warm_replicas > 0, deleting=draw(st.booleans())))
    if draw(st.booleans()):
        things.append(warm_claim(nodes=draw(st.integers(1, 3))))
    return things, kept

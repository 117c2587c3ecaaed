"""Effects on Tidegate's own objects: loans, claims, pools, clusters, and the events that tell of them."""

from __future__ import annotations

from tidegate.api import (
    BatchPool,
    CapacityClaim,
    CapacityClaimStatus,
    InferenceService,
    NodeLoan,
    NodeLoanStatus,
    SlurmCluster,
    Status,
)
from tidegate.api.names import API_VERSION, CLAIM_LABEL, POOL_LABEL, RETURN_FINALIZER, claim_fence
from tidegate.cluster.client import Json
from tidegate.cluster.errors import AlreadyExists, NotFound
from tidegate.cluster.fence import fence_of
from tidegate.cluster.kinds import BATCH_POOLS, CAPACITY_CLAIMS, NODE_LOANS, NODES, SLURM_CLUSTERS, Kind
from tidegate.controllers import events, metrics
from tidegate.controllers.events import tell_advice, tell_claim, tell_loan, tell_quarantine
from tidegate.controllers.hands import Hands, NotYet
from tidegate.sharing.commands import (
    CreateClaim,
    CreateLoan,
    EndLoan,
    ForgetClaim,
    ForgetLoan,
    GuardPool,
    RecallLoan,
    ResizeClaim,
    TellPod,
    TieToHolder,
    WriteClaimStatus,
    WriteClusterStatus,
    WriteLoanStatus,
    WritePoolStatus,
)
from tidegate.sharing.index import extra_of


async def create_loan(command: CreateLoan, hands: Hands) -> None:
    body = {
        "apiVersion": API_VERSION,
        "kind": "NodeLoan",
        "metadata": {
            "name": command.name,
            "labels": {POOL_LABEL: command.spec.pool_name[:63]},
            "finalizers": [RETURN_FINALIZER],
        },
        "spec": command.spec.to_json(),
    }
    try:
        hands.remember(NODE_LOANS, await hands.kube.create(NODE_LOANS, body))
    except AlreadyExists:
        hands.remember(NODE_LOANS, await hands.kube.get(NODE_LOANS, command.name))


async def recall_loan(command: RecallLoan, hands: Hands) -> None:
    """A recall is one-way, so what it was chosen by is looked at once more: Slurm may start a job at any moment."""
    if before := command.seen:
        now = await hands.slurm(before.cluster_name).node(command.loan.spec.slurm_node_name)
        if now and now.extra == extra_of(command.loan.metadata.name) and now.runs_more_than(before.record):
            raise NotYet(f"Slurm started a job on {now.name} since loan {command.loan.metadata.name} was chosen")
    spec = {"wanted": "Returned", "back": command.back.to_json()}
    body = {"metadata": _version(command.loan), "spec": spec}
    hands.remember(NODE_LOANS, await hands.kube.patch(NODE_LOANS, command.loan.metadata.name, body))
    metrics.RECALLS.labels(command.loan.spec.pool_name, command.back.reason, command.back.recall_class).inc()


async def write_loan_status(command: WriteLoanStatus, hands: Hands) -> None:
    await write_loan(command.loan, command.status, hands)


async def write_loan(loan: NodeLoan, status: NodeLoanStatus, hands: Hands) -> None:
    """Write the status, if the loan is still as it was seen, then the events and metrics of what changed."""
    await write_status(NODE_LOANS, loan, status, hands)
    metrics.observe_loan(loan, status)
    await tell_loan(loan, status, hands)


async def end_loan(command: EndLoan, hands: Hands) -> None:
    body = {"metadata": {**_version(command.loan), "finalizers": None}}
    try:
        hands.remember(NODE_LOANS, await hands.kube.patch(NODE_LOANS, command.loan.metadata.name, body))
    except NotFound:
        return


async def forget_loan(command: ForgetLoan, hands: Hands) -> None:
    await _delete(NODE_LOANS, command.loan, hands)


async def create_claim(command: CreateClaim, hands: Hands) -> None:
    owner = command.owner
    body = {
        "apiVersion": API_VERSION,
        "kind": "CapacityClaim",
        "metadata": {
            "name": command.name,
            "namespace": command.namespace,
            "labels": {CLAIM_LABEL: owner.uid},
            "ownerReferences": [
                {"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid}
            ],
        },
        "spec": command.spec.to_json(),
    }
    try:
        hands.remember(CAPACITY_CLAIMS, await hands.kube.create(CAPACITY_CLAIMS, body, command.namespace))
    except AlreadyExists:
        hands.remember(CAPACITY_CLAIMS, await hands.kube.get(CAPACITY_CLAIMS, command.name, command.namespace))


async def resize_claim(command: ResizeClaim, hands: Hands) -> None:
    meta = command.claim.metadata
    body = {"metadata": _version(command.claim), "spec": {"nodes": command.nodes}}
    hands.remember(CAPACITY_CLAIMS, await hands.kube.patch(CAPACITY_CLAIMS, meta.name, body, meta.namespace or ""))


async def tie_to_holder(command: TieToHolder, hands: Hands) -> None:
    meta, holder = command.claim.metadata, command.holder
    owners = [*(reference.to_json() for reference in meta.owner_references), holder.to_json()]
    body = {"metadata": {**_version(command.claim), "ownerReferences": owners}}
    hands.remember(CAPACITY_CLAIMS, await hands.kube.patch(CAPACITY_CLAIMS, meta.name, body, meta.namespace or ""))


async def tell_pod(command: TellPod, hands: Hands) -> None:
    await events.tell_pod(command.pod, command.message, hands)


async def write_claim_status(command: WriteClaimStatus, hands: Hands) -> None:
    claim, status = command.claim, command.status
    if claim.spec.gang and status.started and claim.status.started is None:
        await _all_held(claim, status, hands)
    await write_status(CAPACITY_CLAIMS, command.claim, command.status, hands)
    metrics.observe_claim(command.claim, command.status)
    await tell_claim(command.claim, command.status, hands)


async def _all_held(claim: CapacityClaim, status: CapacityClaimStatus, hands: Hands) -> None:
    """Look at the nodes themselves before a gang is told that it has them all: its pods may come from then on."""
    for name in status.nodes:
        if fence_of(await hands.kube.get(NODES, name)) != claim_fence(claim.metadata.uid):
            raise NotYet(f"node {name} is not held for claim {claim.metadata.namespace}/{claim.metadata.name} any more")


async def forget_claim(command: ForgetClaim, hands: Hands) -> None:
    await _delete(CAPACITY_CLAIMS, command.claim, hands)


async def write_pool_status(command: WritePoolStatus, hands: Hands) -> None:
    await write_status(BATCH_POOLS, command.pool, command.status, hands)
    await tell_quarantine(command.pool, command.status, hands)
    metrics.observe_advice(command.pool, command.status, command.advice)
    await tell_advice(command.pool, command.advice, hands)


async def guard_pool(command: GuardPool, hands: Hands) -> None:
    others = [name for name in command.pool.metadata.finalizers if name != RETURN_FINALIZER]
    finalizers = [*others, RETURN_FINALIZER] if command.guarded else others
    body = {"metadata": {**_version(command.pool), "finalizers": finalizers}}
    hands.remember(BATCH_POOLS, await hands.kube.patch(BATCH_POOLS, command.pool.metadata.name, body))


async def write_cluster_status(command: WriteClusterStatus, hands: Hands) -> None:
    await write_status(SLURM_CLUSTERS, command.cluster, command.status, hands)


async def write_status(kind: Kind, thing: _Thing, status: Status, hands: Hands) -> None:
    """Write a status, if the object is still as it was seen."""
    # A merge patch deletes a field only by an explicit null.
    cleared: Json = {
        (field.alias or name): None
        for name, field in type(status).model_fields.items()
        if getattr(status, name) is None
    }
    body = {"metadata": _version(thing), "status": {**cleared, **status.to_json()}}
    meta = thing.metadata
    hands.remember(kind, await hands.kube.patch(kind, meta.name, body, meta.namespace or "", subresource="status"))


async def _delete(kind: Kind, thing: _Thing, hands: Hands) -> None:
    meta = thing.metadata
    try:
        await hands.kube.delete(kind, meta.name, meta.namespace or "", uid=meta.uid)
    except NotFound:
        return


def _version(thing: _Thing) -> Json:
    return {"resourceVersion": thing.metadata.resource_version}


_Thing = NodeLoan | CapacityClaim | BatchPool | SlurmCluster | InferenceService

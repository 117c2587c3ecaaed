"""Effects on nodes and pods. Each looks at the API server itself before it acts on what may be an old observation."""

from __future__ import annotations

from collections.abc import Callable

from tidegate.api import CapacityClaim, NodeLoan
from tidegate.api.names import FENCE_TAINT, LOAN_LABEL, claim_fence
from tidegate.cluster import fence, views
from tidegate.cluster.client import Json
from tidegate.cluster.errors import AlreadyExists, Conflict, NotFound
from tidegate.cluster.kinds import CAPACITY_CLAIMS, NODE_LOANS, NODES, PODS
from tidegate.cluster.slurmd_pod import slurmd_pod
from tidegate.controllers.hands import Hands, NotYet
from tidegate.controllers.record_appliers import write_loan
from tidegate.sharing.commands import (
    ConfirmVacated,
    CreateSlurmdPod,
    DeleteSlurmdPod,
    FenceNode,
    FreeNode,
    FreeSurplus,
    HoldNode,
    ReleaseNode,
    TolerateFence,
    UnlabelNode,
)
from tidegate.sharing.index import extra_of, is_drained_by_others, wants_gpu
from tidegate.sharing.snapshot import Node, Taint

SLURMD_GRACE_SECONDS = 2
"""A drained slurmd has nothing to end; this bounds how long its node waits for it."""


async def fence_node(command: FenceNode, hands: Hands) -> None:
    node = await _as_seen(command.node, hands)
    await _patch_node(node, fence.fence_for_loan, command.loan.metadata.name, hands)


async def confirm_vacated(command: ConfirmVacated, hands: Hands) -> None:
    loan = await live_loan(command.loan, hands)
    if loan.is_wanted_back:
        raise NotYet(f"loan {loan.metadata.name} is wanted back")
    name = loan.spec.node_name
    node = views.node(await hands.kube.get(NODES, name))
    if node.fence != loan.metadata.name or node.loan_label != loan.metadata.name:
        raise NotYet(f"node {name} does not carry the fence of loan {loan.metadata.name}")
    # The list is newer than the fence: whoever is not on it can only come past the kubelet, which counts GPUs itself.
    there = await hands.kube.list(PODS, field_selector=f"spec.nodeName={name}")
    pods = [pod for item in there if (pod := views.pod(item)) is not None]
    holders = [pod.key for pod in pods if pod.loan is None and wants_gpu(pod, command.pool)]
    if holders:
        raise NotYet(f"pod {holders[0]} holds GPUs of node {name}")
    status = loan.status.with_condition(
        hands.clock(), "Vacated", True, "NoGpuPods", f"no GPU pod of others is on node {name}", loan.metadata.generation
    )
    await write_loan(loan, status.model_copy(update={"state": "Vacated"}), hands)


async def create_slurmd_pod(command: CreateSlurmdPod, hands: Hands) -> None:
    loan = await live_loan(command.loan, hands)
    if loan.is_wanted_back or not loan.status.is_true("Vacated"):
        raise NotYet(f"loan {loan.metadata.name} does not want slurmd now")
    try:
        pod = slurmd_pod(
            loan, command.pool, command.cluster, command.cpus, command.memory_mib, hands.namespace, command.drained
        )
    except ValueError as error:
        raise NotYet(str(error)) from None
    try:
        hands.remember(PODS, await hands.kube.create(PODS, pod, hands.namespace))
    except AlreadyExists:
        hands.remember(PODS, await hands.kube.get(PODS, pod["metadata"]["name"], hands.namespace))


async def unlabel_node(command: UnlabelNode, hands: Hands) -> None:
    node, name = await hands.kube.get(NODES, command.node.name), command.loan.metadata.name
    if views.node(node).loan_label == name:
        await _patch_node(node, fence.remove_label, name, hands)


async def delete_slurmd_pod(command: DeleteSlurmdPod, hands: Hands) -> None:
    pod, loan = command.pod, command.loan
    record = await hands.slurm(command.cluster_name).node(loan.spec.slurm_node_name)
    if record and record.extra == extra_of(loan.metadata.name) and not record.is_drained:
        raise NotYet(f"Slurm node {record.name} may get jobs: it registered meanwhile and is not drained")
    try:
        await hands.kube.delete(PODS, pod.name, pod.namespace, uid=pod.uid, grace_seconds=SLURMD_GRACE_SECONDS)
    except (NotFound, Conflict):
        # It is gone, or another pod has its name by now.
        return


async def release_node(command: ReleaseNode, hands: Hands) -> None:
    loan = await live_loan(command.loan, hands)
    name = loan.metadata.name
    if not loan.is_wanted_back or not loan.status.is_true("Left"):
        raise NotYet(f"loan {name} has not left node {loan.spec.node_name}")
    node = await hands.kube.get(NODES, loan.spec.node_name)
    seen = views.node(node)
    if seen.fence != name:
        hands.remember(NODES, node)
        return
    if seen.loan_label == name:
        await _patch_node(node, fence.remove_label, name, hands)
        raise NotYet(f"node {seen.name} still let slurmd pods of loan {name} in")
    if loan.status.is_true("Vacated"):
        await _nothing_left(loan, command.cluster_name, hands)
    claim_uid = command.claim_uid
    if claim_uid is None:
        await _promised_to_nobody(loan, hands)
    if claim_uid:
        await _patch_node(node, lambda raw, loan_name: fence.swap_fence(raw, loan_name, claim_uid), name, hands)
    else:
        await _patch_node(node, fence.remove_loan_fence, name, hands)


async def _promised_to_nobody(loan: NodeLoan, hands: Hands) -> None:
    """Another operator may have given the node to a claim since the decision was made."""
    claim = loan.spec.back.claim if loan.spec.back else None
    if claim is None:
        return
    try:
        live = views.resource(CapacityClaim, await hands.kube.get(CAPACITY_CLAIMS, claim.name, claim.namespace))
    except NotFound:
        return
    if live.metadata.uid == claim.uid and not live.is_over:
        raise NotYet(f"claim {claim.namespace}/{claim.name} waits for node {loan.spec.node_name}")


async def _nothing_left(loan: NodeLoan, cluster_name: str, hands: Hands) -> None:
    selector = f"{LOAN_LABEL}={loan.metadata.name}"
    if pods := await hands.kube.list(PODS, hands.namespace, label_selector=selector):
        raise NotYet(f"slurmd pod {pods[0]['metadata']['name']} of loan {loan.metadata.name} is still there")
    record = await hands.slurm(cluster_name).node(loan.spec.slurm_node_name)
    ours = record is not None and record.extra == extra_of(loan.metadata.name)
    if record and ours and not is_drained_by_others(record):
        raise NotYet(f"Slurm still has node {record.name} of loan {loan.metadata.name}")


async def hold_node(command: HoldNode, hands: Hands) -> None:
    node = await _as_seen(command.node, hands)
    await _patch_node(node, fence.fence_for_claim, command.claim_uid, hands)


async def free_node(command: FreeNode, hands: Hands) -> None:
    node = await _as_seen(command.node, hands)
    claims = [views.resource(CapacityClaim, item) for item in await hands.kube.list(CAPACITY_CLAIMS)]
    if any(claim.metadata.uid == command.claim_uid and not claim.is_over for claim in claims):
        raise NotYet(f"the claim that holds node {command.node.name} is alive")
    await _patch_node(node, fence.remove_claim_fence, command.claim_uid, hands)


async def free_surplus(command: FreeSurplus, hands: Hands) -> None:
    meta, ours = command.claim.metadata, claim_fence(command.claim.metadata.uid)
    node = await _as_seen(command.node, hands)
    live = views.resource(CapacityClaim, await hands.kube.get(CAPACITY_CLAIMS, meta.name, meta.namespace or ""))
    if (live.metadata.uid, live.metadata.generation) != (meta.uid, meta.generation):
        raise NotYet(f"claim {meta.namespace}/{meta.name} changed since it was looked at")
    for name in command.keeps:
        if fence.fence_of(await hands.kube.get(NODES, name)) != ours:
            raise NotYet(f"node {name} is not held for claim {meta.namespace}/{meta.name} any more")
    there = await hands.kube.list(PODS, field_selector=f"spec.nodeName={command.node.name}")
    pods = [pod for item in there if (pod := views.pod(item)) is not None]
    held_by = Taint(FENCE_TAINT, ours, "NoSchedule")
    if user := next((p for p in pods if p.gpus and any(t.tolerates(held_by) for t in p.tolerations)), None):
        raise NotYet(f"pod {user.key} came to node {command.node.name}")
    await _patch_node(node, fence.remove_claim_fence, meta.uid, hands)


async def tolerate_fence(command: TolerateFence, hands: Hands) -> None:
    pod = await hands.kube.get(PODS, command.pod.name, command.pod.namespace)
    if pod["metadata"]["uid"] != command.pod.uid or pod["spec"].get("nodeName"):
        return
    toleration = {
        "key": FENCE_TAINT,
        "operator": "Equal",
        "value": claim_fence(command.claim_uid),
        "effect": "NoSchedule",
    }
    tolerations = pod["spec"].get("tolerations", [])
    if toleration not in tolerations:
        version = pod["metadata"]["resourceVersion"]
        body = {"metadata": {"resourceVersion": version}, "spec": {"tolerations": [*tolerations, toleration]}}
        hands.remember(PODS, await hands.kube.patch(PODS, command.pod.name, body, command.pod.namespace))


async def _as_seen(seen: Node, hands: Hands) -> Json:
    """The live node, only if it is still the one that the decision looked at. Raises `Conflict` otherwise."""
    node = await hands.kube.get(NODES, seen.name)
    if node["metadata"]["resourceVersion"] != seen.resource_version:
        hands.remember(NODES, node)
        raise Conflict(409, f"Node {seen.name} changed since it was looked at.")
    return node


async def _patch_node(node: Json, build: Callable[[Json, str], Json], holder: str, hands: Hands) -> None:
    """Patch the node as it was just read. A fence of somebody else is left alone."""
    try:
        patch = build(node, holder)
    except ValueError as error:
        raise NotYet(str(error)) from None
    hands.remember(NODES, await hands.kube.patch(NODES, node["metadata"]["name"], patch))


async def live_loan(loan: NodeLoan, hands: Hands) -> NodeLoan:
    live = await hands.kube.get(NODE_LOANS, loan.metadata.name)
    hands.remember(NODE_LOANS, live)
    return views.resource(NodeLoan, live)

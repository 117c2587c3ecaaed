"""The Deployment controller in short: as many pods as replicas, of the present template; old ones go first."""

from __future__ import annotations

import json

from tests.fakes.kube import FakeKube
from tidegate.cluster.client import Json
from tidegate.cluster.errors import KubeError
from tidegate.cluster.kinds import DEPLOYMENTS, PODS

_TEMPLATE = "fake/template"


async def control(kube: FakeKube) -> None:
    """One turn for all Deployments."""
    for deployment in await kube.list(DEPLOYMENTS):
        if "template" not in deployment["spec"]:
            # A test makes its pods itself.
            continue
        await _control(kube, deployment)


async def _control(kube: FakeKube, deployment: Json) -> None:
    namespace, name = deployment["metadata"]["namespace"], deployment["metadata"]["name"]
    template = json.dumps(deployment["spec"]["template"], sort_keys=True)
    pods = [
        pod
        for pod in await kube.list(PODS, namespace)
        if any(ref["uid"] == deployment["metadata"]["uid"] for ref in pod["metadata"].get("ownerReferences") or ())
        and "deletionTimestamp" not in pod["metadata"]
    ]
    old = [pod for pod in pods if pod["metadata"]["annotations"][_TEMPLATE] != template]
    surplus = pods[deployment["spec"]["replicas"] :]
    for pod in {pod["metadata"]["name"]: pod for pod in (*old, *surplus)}.values():
        await kube.delete(PODS, pod["metadata"]["name"], namespace)
    for _ in range(deployment["spec"]["replicas"] - (len(pods) - len(old))):
        if not await _make(kube, deployment, template):
            break
    ready = sum(pod["status"]["phase"] == "Running" for pod in pods)
    numbers = {"replicas": len(pods), "readyReplicas": ready, "updatedReplicas": len(pods) - len(old)}
    generation = {"observedGeneration": deployment["metadata"]["generation"]}
    await kube.patch(DEPLOYMENTS, name, {"status": numbers | generation}, namespace, "status")


async def _make(kube: FakeKube, deployment: Json, template: str) -> bool:
    metadata, given = deployment["metadata"], deployment["spec"]["template"]
    number = 1 + len([key for key in kube.changes if key.type == "ADDED" and key.kind == PODS])
    owner = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }
    body = {
        "metadata": {
            "name": f"{metadata['name']}-{number}",
            "labels": given["metadata"].get("labels", {}),
            "annotations": {_TEMPLATE: template},
            "ownerReferences": [owner],
        },
        "spec": given["spec"],
    }
    try:
        await kube.create(PODS, body, metadata["namespace"])
    except KubeError:
        return False
    return True

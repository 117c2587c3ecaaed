"""Who is found behind a pod, what is read for it, and what happens when it cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.fakes.kube import FakeKube
from tests.sharing.build import NOW
from tidegate.cluster import views
from tidegate.cluster.client import Json
from tidegate.cluster.errors import KubeError, Unreachable, refused
from tidegate.cluster.kinds import DEPLOYMENTS, JOBS, PODS, REPLICA_SETS, STATEFUL_SETS, Kind
from tidegate.controllers.owners import Owners
from tidegate.sharing.snapshot import Pod

JOB_SETS = Kind("jobsets", "jobset.x-k8s.io/v1alpha2", "JobSet", namespaced=True)
LEADER_WORKER_SETS = Kind("leaderworkersets", "leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", namespaced=True)
SERVICES = Kind("inferenceservices", "tidegate.dev/v1alpha1", "InferenceService", namespaced=True)
NAMESPACE = "team"
SILENT = Unreachable(0, "the API server did not answer")
FORBIDDEN = refused(403, "Forbidden", "no", "get", REPLICA_SETS, "web-1", NAMESPACE)


class Cluster:
    """Objects that own each other, an `Owners` that reads them, and a clock."""

    def __init__(self) -> None:
        self.now = NOW
        self.kube = FakeKube(self.clock)
        self.owners = Owners(self.kube, self.clock)

    def clock(self) -> datetime:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    async def make(self, kind: Kind, name: str, owner: Json | None = None) -> Json:
        metadata: Json = {"name": name}
        if owner:
            named = {key: owner["metadata"][key] for key in ("name", "uid")}
            reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "controller": True, **named}
            metadata["ownerReferences"] = [reference]
        spec = {"containers": [{"name": "c", "image": "i"}]} if kind == PODS else {}
        return await self.kube.create(kind, {"metadata": metadata, "spec": spec}, NAMESPACE)

    async def chain(self, *kinds: Kind) -> Pod:
        """A pod at the end of such a chain, the top of which comes first."""
        owner: Json | None = None
        for number, kind in enumerate(kinds):
            owner = await self.make(kind, f"{kind.kind.lower()}-{number}", owner)
        return seen(await self.make(PODS, "pod", owner))

    def above(self, pod: Pod) -> list[str] | None:
        """The kinds above the pod's controller; None as long as they are not known."""
        found = self.owners.above.get(pod.owner.uid)
        return None if found is None else [owner.kind for owner in found]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def seen(raw: Json) -> Pod:
    pod = views.pod(raw)
    assert pod is not None
    return pod


@pytest.mark.parametrize(
    ("kinds", "above"),
    [
        ([REPLICA_SETS], []),
        ([DEPLOYMENTS, REPLICA_SETS], ["Deployment"]),
        ([SERVICES, DEPLOYMENTS, REPLICA_SETS], ["Deployment", "InferenceService"]),
        ([STATEFUL_SETS], []),
        ([JOBS], []),
        ([JOB_SETS, JOBS], ["JobSet"]),
        ([LEADER_WORKER_SETS, STATEFUL_SETS], ["LeaderWorkerSet"]),
        ([LEADER_WORKER_SETS, STATEFUL_SETS, PODS, STATEFUL_SETS], ["Pod", "StatefulSet", "LeaderWorkerSet"]),
        ([JOB_SETS], []),
    ],
)
async def test_references_are_followed_to_the_top(cluster: Cluster, kinds: list[Kind], above: list[str]) -> None:
    pod = await cluster.chain(*kinds)
    assert not await cluster.owners.look([pod])
    assert cluster.above(pod) == above


async def test_a_bare_pod_asks_for_nothing(cluster: Cluster) -> None:
    pod = await cluster.chain()
    await cluster.owners.look([pod])
    assert cluster.owners.above == {}


async def test_what_is_known_is_not_read_again_before_its_time(cluster: Cluster) -> None:
    pod = await cluster.chain(DEPLOYMENTS, REPLICA_SETS)
    await cluster.owners.look([pod])
    cluster.kube.fail_next("get", REPLICA_SETS, SILENT)
    await cluster.owners.look([pod, pod])
    cluster.wait(59)
    await cluster.owners.look([pod])
    assert cluster.above(pod) == ["Deployment"]
    orphan: Any = {"metadata": {"ownerReferences": None}}
    await cluster.kube.patch(REPLICA_SETS, pod.owner.name, orphan, NAMESPACE)
    cluster.wait(1)
    await cluster.owners.look([pod])
    assert cluster.above(pod) == ["Deployment"], "one lost answer takes nothing away that was known"
    cluster.wait(1)
    await cluster.owners.look([pod])
    assert cluster.above(pod) == []


async def test_controllers_of_pods_that_wait_no_more_are_forgotten(cluster: Cluster) -> None:
    pod = await cluster.chain(DEPLOYMENTS, REPLICA_SETS)
    await cluster.owners.look([pod])
    await cluster.owners.look([])
    assert cluster.owners.above == {}


async def gone(cluster: Cluster, kind: Kind, name: str) -> None:
    await cluster.kube.delete(kind, name, NAMESPACE)


async def replaced(cluster: Cluster, kind: Kind, name: str) -> None:
    await cluster.kube.delete(kind, name, NAMESPACE)
    await cluster.make(kind, name)


@pytest.mark.parametrize("lose", [gone, replaced])
async def test_what_a_lost_controller_left_behind_stands_for_itself(cluster: Cluster, lose: Callable[..., Any]) -> None:
    pod = await cluster.chain(SERVICES, DEPLOYMENTS, REPLICA_SETS)
    await lose(cluster, DEPLOYMENTS, "deployment-1")
    await cluster.owners.look([pod])
    assert cluster.above(pod) == []
    await lose(cluster, REPLICA_SETS, "replicaset-2")
    cluster.wait(60)
    await cluster.owners.look([pod])
    assert cluster.above(pod) == []


async def test_no_answer_is_waited_for_a_while_and_then_the_last_one_known_is_the_top(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    pod = await cluster.chain(SERVICES, DEPLOYMENTS, REPLICA_SETS)
    for _ in range(10):
        cluster.kube.fail_next("get", DEPLOYMENTS, SILENT)
        await cluster.owners.look([pod])
        assert cluster.above(pod) is None
        cluster.wait(1)
    cluster.kube.fail_next("get", DEPLOYMENTS, SILENT)
    await cluster.owners.look([pod])
    assert cluster.above(pod) == ["Deployment"]
    (record,) = caplog.records
    assert record.getMessage().startswith("Deployment team/deployment-1 counts as the top controller: ")
    cluster.wait(60)
    await cluster.owners.look([pod])
    assert cluster.above(pod) == ["Deployment", "InferenceService"]


@pytest.mark.parametrize(("error", "above"), [(SILENT, None), (FORBIDDEN, [])])
async def test_what_may_not_be_read_is_not_waited_for(cluster: Cluster, error: KubeError, above: Any) -> None:
    pod = await cluster.chain(DEPLOYMENTS, REPLICA_SETS)
    cluster.kube.fail_next("get", REPLICA_SETS, error)
    await cluster.owners.look([pod])
    assert cluster.above(pod) == above


async def test_many_are_read_in_several_rounds(cluster: Cluster) -> None:
    pods = []
    for number in range(100):
        owner = await cluster.make(JOBS, f"job-{number}")
        pods.append(seen(await cluster.make(PODS, f"pod-{number}", owner)))
    assert await cluster.owners.look(pods)
    assert not await cluster.owners.look(pods)
    assert len(cluster.owners.above) == 100


async def test_a_circle_ends(cluster: Cluster) -> None:
    pod = await cluster.chain(DEPLOYMENTS, REPLICA_SETS)
    replicas = await cluster.kube.get(REPLICA_SETS, pod.owner.name, NAMESPACE)
    back = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": True, "name": pod.owner.name}
    reference = {**back, "uid": replicas["metadata"]["uid"]}
    await cluster.kube.patch(DEPLOYMENTS, "deployment-0", {"metadata": {"ownerReferences": [reference]}}, NAMESPACE)
    await cluster.owners.look([pod])
    assert len(cluster.above(pod) or []) == 8

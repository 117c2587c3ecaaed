"""The fake's scheduler, kubelets, watch feed and faults: what tests of the hand-over lean on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.fakes.kube import FakeKube
from tidegate.api import BatchPool, NodeLoan, SlurmCluster
from tidegate.api.names import LOAN_LABEL
from tidegate.cluster import fence, views
from tidegate.cluster.client import Json
from tidegate.cluster.errors import Conflict, NotFound, Unreachable
from tidegate.cluster.kinds import NODE_LOANS, NODES, PODS, PRIORITY_CLASSES
from tidegate.cluster.slurmd_pod import slurmd_pod

START = datetime(2026, 11, 21, 10, tzinfo=UTC)
GPU = "nvidia.com/gpu"


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kube(clock: Clock) -> FakeKube:
    return FakeKube(clock)


async def add_pod(kube: FakeKube, name: str, gpus: int = 1, **spec: Any) -> Json:
    container = {"name": "c", "resources": {"requests": {GPU: str(gpus), "cpu": "1"}}}
    return await kube.create(PODS, {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}, "jobs")


async def node_of(kube: FakeKube, name: str) -> str | None:
    node: str | None = (await kube.get(PODS, name, "jobs"))["spec"].get("nodeName")
    return node


async def phase_of(kube: FakeKube, name: str) -> str:
    status = (await kube.get(PODS, name, "jobs"))["status"]
    return f"{status['phase']} {status.get('reason', '')}".strip()


async def test_pods_are_bound_where_there_is_room_the_important_ones_first(kube: FakeKube) -> None:
    await kube.add_node("n1", gpus=2)
    for name, value in (("low", 0), ("high", 10)):
        await kube.create(PRIORITY_CLASSES, {"metadata": {"name": name}, "value": value})
    await add_pod(kube, "a", gpus=2, priorityClassName="low")
    await add_pod(kube, "b", gpus=2, priorityClassName="high")
    assert kube.schedule() == ("jobs/b",)
    pod = views.pod(await kube.get(PODS, "a", "jobs"))
    assert pod is not None
    assert pod.unschedulable
    assert pod.scheduler_message == "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    version = kube.resource_version
    assert kube.schedule() == ()
    assert kube.resource_version == version


TOLERATED = {"tolerations": [{"key": "t", "operator": "Equal", "value": "v", "effect": "NoSchedule"}]}


def affinity(operator: str, *values: str, key: str = "zone", fields: bool = False) -> Json:
    requirement = {"key": key, "operator": operator, "values": list(values)}
    term = {"matchFields" if fields else "matchExpressions": [requirement]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return {"affinity": {"nodeAffinity": required}}


EMPTY_TERM: Json = {
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}]}}}
}


@pytest.mark.parametrize(
    ("node_spec", "pod_spec", "fits"),
    [
        ({}, {}, True),
        ({"unschedulable": True}, {}, False),
        ({"taints": [{"key": "t", "value": "v", "effect": "NoSchedule"}]}, {}, False),
        ({"taints": [{"key": "t", "value": "v", "effect": "PreferNoSchedule"}]}, {}, True),
        ({"taints": [{"key": "t", "value": "v", "effect": "NoSchedule"}]}, TOLERATED, True),
        ({"taints": [{"key": "t", "value": "w", "effect": "NoSchedule"}]}, TOLERATED, False),
        ({"taints": [{"key": "t", "value": "v", "effect": "NoExecute"}]}, TOLERATED, False),
        ({"taints": [{"key": "x", "effect": "NoExecute"}]}, {"tolerations": [{"operator": "Exists"}]}, True),
        ({}, {"nodeSelector": {"zone": "a"}}, True),
        ({}, {"nodeSelector": {"zone": "b"}}, False),
        ({}, affinity("In", "a", "b"), True),
        ({}, affinity("NotIn", "a"), False),
        ({}, affinity("NotIn", "a", key="none"), True),
        ({}, affinity("Exists"), True),
        ({}, affinity("DoesNotExist"), False),
        ({}, affinity("Gt", "6", key="rank"), True),
        ({}, affinity("Gt", "7", key="rank"), False),
        ({}, affinity("Lt", "8", key="rank"), True),
        ({}, affinity("Lt", "8", key="none"), False),
        ({}, affinity("In", "n1", key="metadata.name", fields=True), True),
        ({}, affinity("In", "n2", key="metadata.name", fields=True), False),
        ({}, EMPTY_TERM, False),
        ({}, {"schedulingGates": [{"name": "g"}]}, False),
    ],
)
async def test_a_pod_is_bound_only_where_it_may_go(kube: FakeKube, node_spec: Json, pod_spec: Json, fits: bool) -> None:
    await kube.add_node("n1", labels={"zone": "a", "rank": "7"})
    await kube.patch(NODES, "n1", {"spec": node_spec})
    await add_pod(kube, "a", **pod_spec)
    kube.schedule()
    assert (await node_of(kube, "a") == "n1") == fits


async def test_a_kubelet_refuses_what_a_stale_scheduler_sent(kube: FakeKube) -> None:
    await kube.add_node("n1", gpus=8)
    await add_pod(kube, "first", gpus=8)
    await add_pod(kube, "late", gpus=8)
    kube.schedule()
    kube.kubelet("n1")
    await kube.patch(NODES, "n1", fence.fence_for_loan(await kube.get(NODES, "n1"), "n1-1"))
    kube.schedule_stale("jobs", "late", "n1")
    with pytest.raises(Conflict):
        kube.schedule_stale("jobs", "late", "n1")
    kube.kubelet("n1")
    assert await phase_of(kube, "first") == "Running"
    assert await phase_of(kube, "late") == "Failed OutOfnvidia.com/gpu"


async def test_a_slurmd_pod_is_bound_to_its_fenced_node_and_cannot_be_once_the_label_is_gone(kube: FakeKube) -> None:
    await kube.add_node("n1", gpus=8)
    await kube.add_node("n2", gpus=8)
    await kube.create(PRIORITY_CLASSES, {"metadata": {"name": "tidegate-slurmd"}, "value": 1000})
    await create_slurmd(kube, "n2", "n2-1")
    assert kube.schedule() == ()
    await kube.patch(NODES, "n2", fence.fence_for_loan(await kube.get(NODES, "n2"), "n2-1"))
    await kube.patch(NODES, "n2", fence.remove_label(await kube.get(NODES, "n2"), "n2-1"))
    assert kube.schedule() == ()
    await kube.patch(NODES, "n2", fence.fence_for_loan(await kube.get(NODES, "n2"), "n2-1"))
    assert kube.schedule() == ("tidegate/slurmd-n2-1",)
    kube.kubelet("n2")
    pod = views.pod(await kube.get(PODS, "slurmd-n2-1", "tidegate"))
    assert pod is not None
    assert (pod.node, pod.phase, pod.priority) == ("n2", "Running", 1000)


async def test_a_kubelet_refuses_a_slurmd_pod_whose_label_went(kube: FakeKube) -> None:
    await kube.add_node("n1", gpus=8)
    await kube.create(PRIORITY_CLASSES, {"metadata": {"name": "tidegate-slurmd"}, "value": 1000})
    await create_slurmd(kube, "n1", "n1-1")
    kube.schedule_stale("tidegate", "slurmd-n1-1", "n1")
    kube.kubelet("n1")
    pod = views.pod(await kube.get(PODS, "slurmd-n1-1", "tidegate"))
    assert pod is not None
    assert (pod.phase, pod.waiting_reason.partition(":")[0]) == ("Failed", "NodeAffinity")


async def create_slurmd(kube: FakeKube, node: str, loan_name: str) -> None:
    cluster = {"endpoint": "http://s:1", "credentialsSecretName": "k", "controllerAddress": "s:6817"}
    pool = {"nodeSelector": {"a": "b"}, "slurmClusterName": "s", "partition": "p", "slurmd": {"image": "i"}}
    loan = {"poolName": "p", "nodeName": node, "slurmNodeName": node, "gpuResourceName": GPU, "gpus": 8, "priority": 0}
    made = await kube.create(NODE_LOANS, {"metadata": {"name": loan_name}, "spec": loan})
    pod = slurmd_pod(
        views.resource(NodeLoan, made),
        views.resource(BatchPool, {"metadata": {"name": "p"}, "spec": pool}),
        views.resource(SlurmCluster, {"metadata": {"name": "s"}, "spec": cluster}),
        cpus=60,
        memory_mib=1000,
        namespace="tidegate",
    )
    await kube.create(PODS, pod, "tidegate")


async def test_a_deleted_pod_holds_its_gpus_until_its_kubelet_has_ended_it(kube: FakeKube, clock: Clock) -> None:
    await kube.add_node("n1", gpus=8)
    await add_pod(kube, "old", gpus=8)
    kube.schedule()
    kube.kubelet("n1")
    await kube.delete(PODS, "old", "jobs")
    assert (await kube.get(PODS, "old", "jobs"))["metadata"]["deletionTimestamp"] == "2026-11-21T10:00:30Z"
    await add_pod(kube, "new", gpus=8)
    assert kube.schedule() == ()
    kube.node_dies("n1")
    clock.now += timedelta(hours=1)
    kube.kubelet("n1")
    assert await phase_of(kube, "old") == "Running"
    kube.node_lives("n1")
    kube.kubelet("n1")
    with pytest.raises(NotFound):
        await kube.get(PODS, "old", "jobs")
    assert kube.schedule() == ("jobs/new",)


async def test_a_dead_node_is_not_ready_and_gets_no_new_pods(kube: FakeKube) -> None:
    await kube.add_node("n1")
    kube.node_dies("n1")
    await add_pod(kube, "a")
    assert kube.schedule() == ()
    assert not views.node(await kube.get(NODES, "n1")).ready
    kube.node_lives("n1")
    assert kube.schedule() == ("jobs/a",)
    assert views.node(await kube.get(NODES, "n1")).taints == ()


async def test_what_is_owned_goes_with_its_owner_and_pods_go_with_their_node(kube: FakeKube) -> None:
    await kube.add_node("n1", gpus=8)
    await kube.create(PRIORITY_CLASSES, {"metadata": {"name": "tidegate-slurmd"}, "value": 1000})
    await create_slurmd(kube, "n1", "n1-1")
    await add_pod(kube, "web")
    kube.schedule()
    assert kube.collect_garbage() == ()
    await kube.delete(NODE_LOANS, "n1-1")
    assert kube.collect_garbage() == ("Pod tidegate/slurmd-n1-1",)
    await kube.delete(NODES, "n1")
    assert kube.collect_garbage() == ("Pod jobs/web",)
    assert await kube.list(PODS) == []


async def test_a_fault_comes_once_before_or_after_the_effect(kube: FakeKube) -> None:
    await kube.add_node("n1")
    for after in (False, True):
        kube.fail_next("patch", NODES, Unreachable(0, "gone"), after=after)
        with pytest.raises(Unreachable):
            await kube.patch(NODES, "n1", {"metadata": {"labels": {LOAN_LABEL: "n1-1"}}})
        assert (LOAN_LABEL in (await kube.get(NODES, "n1"))["metadata"]["labels"]) == after
    await kube.patch(NODES, "n1", {"metadata": {"labels": {LOAN_LABEL: None}}})


async def test_the_feed_tells_every_change_as_it_was(kube: FakeKube) -> None:
    await kube.add_node("n1", labels={"a": "1"})
    version = kube.resource_version
    await kube.patch(NODES, "n1", {"metadata": {"labels": {"a": "2"}}})
    await kube.patch(NODES, "n1", {"metadata": {"labels": {"a": "2"}}})
    await kube.delete(NODES, "n1")
    told = [(change.type, change.object["metadata"]["labels"]["a"]) for change in kube.changes]
    assert told == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")]
    assert [change.type for change in kube.changes_since(version)] == ["MODIFIED", "DELETED"]


async def test_what_is_handed_out_is_a_copy(kube: FakeKube) -> None:
    node = await kube.add_node("n1")
    node["metadata"]["labels"]["a"] = "changed"
    (await kube.list(NODES))[0]["spec"]["unschedulable"] = True
    fresh = await kube.get(NODES, "n1")
    assert "a" not in fresh["metadata"]["labels"]
    assert fresh["spec"] == {}

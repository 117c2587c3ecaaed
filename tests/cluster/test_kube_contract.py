"""What Tidegate relies on in an API server: one test body for the fake and for a real one."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from tests.fakes.kube import FakeKube
from tidegate.api import BatchPool, InferenceService, NodeLoan, SlurmCluster
from tidegate.api.names import FENCE_TAINT, LOAN_LABEL, SERVICE_LABEL, claim_fence
from tidegate.cluster import fence, inference, views
from tidegate.cluster.client import Json, KubeApi, KubeClient
from tidegate.cluster.errors import AlreadyExists, Conflict, Forbidden, Invalid, KubeError, NotFound, Protected
from tidegate.cluster.kinds import (
    BATCH_POOLS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    INFERENCE_SERVICES,
    NODE_LOANS,
    NODES,
    PODS,
    SERVICES,
    Kind,
)
from tidegate.cluster.slurmd_pod import slurmd_pod

FINALIZER = "tidegate.dev/return"


class Site:
    """An API server, a name that nobody else uses, and what was made there."""

    def __init__(self, kube: KubeApi) -> None:
        self.kube = kube
        self.name = f"contract-{uuid.uuid4().hex[:8]}"
        self._made: list[tuple[Kind, str, str]] = []

    async def create(self, kind: Kind, body: Json, namespace: str = "") -> Json:
        made = await self.kube.create(kind, body, namespace)
        self._made.append((kind, body["metadata"]["name"], namespace))
        return made

    async def loan(self, **metadata: Any) -> Json:
        """A NodeLoan of no node."""
        spec = {
            "poolName": "p",
            "nodeName": "n",
            "slurmNodeName": "n",
            "gpuResourceName": "nvidia.com/gpu",
            "gpus": 8,
            "priority": -100,
        }
        return await self.create(NODE_LOANS, {"metadata": {"name": self.name, **metadata}, "spec": spec})

    async def pod(self, **spec: Any) -> Json:
        """A pod that no scheduler can bind."""
        metadata = {"name": self.name, "labels": {"contract": self.name}}
        container = {"name": "c", "image": "none", "imagePullPolicy": "Never"}
        spec = {"containers": [container], "nodeSelector": {"contract": "none"}, **spec}
        return await self.create(PODS, {"metadata": metadata, "spec": spec}, "default")

    kinds: ClassVar = {kind.kind: kind for kind in (DEPLOYMENTS, SERVICES, DISRUPTION_BUDGETS)}

    async def service(self) -> InferenceService:
        """An InferenceService of which no pod can be bound."""
        spec = {"server": {"image": "none"}, "minReplicas": 0, "template": {"spec": {"schedulerName": "nobody"}}}
        made = await self.create(INFERENCE_SERVICES, {"metadata": {"name": self.name}, "spec": spec}, "default")
        return views.resource(InferenceService, made)

    async def apply(self, body: Json) -> Json:
        kind = self.kinds[body["kind"]]
        self._made.append((kind, body["metadata"]["name"], "default"))
        return await self.kube.apply(kind, body, "default")

    async def clean(self) -> None:
        for kind, name, namespace in self._made:
            with suppress(NotFound):
                await self.kube.patch(kind, name, {"metadata": {"finalizers": None}}, namespace)
                await self.kube.delete(kind, name, namespace, grace_seconds=0)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.lab)])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    kube: KubeApi
    if request.param == "fake":
        kube = FakeKube(lambda: datetime.now(UTC))
    else:
        request.getfixturevalue("crds")
        kube = await KubeClient.connect(request.getfixturevalue("lab").kubeconfig, "tidegate-contract-test")
    site = Site(kube)
    yield site
    await site.clean()
    await kube.close()


async def test_an_object_that_is_not_there_is_not_found(site: Site) -> None:
    for attempt in (
        site.kube.get(NODES, site.name),
        site.kube.patch(PODS, site.name, {"metadata": {"labels": {"a": "b"}}}, "default"),
        site.kube.delete(NODE_LOANS, site.name),
    ):
        with pytest.raises(NotFound, match=site.name):
            await attempt


async def test_a_new_object_has_what_the_server_gives_it_and_can_be_made_only_once(site: Site) -> None:
    made = await site.loan()
    assert made["metadata"]["uid"]
    assert made["metadata"]["resourceVersion"]
    assert made["metadata"]["generation"] == 1
    assert datetime.fromisoformat(made["metadata"]["creationTimestamp"]).tzinfo
    assert (made["kind"], made["apiVersion"]) == ("NodeLoan", "tidegate.dev/v1alpha1")
    assert await site.kube.get(NODE_LOANS, site.name) == made
    with pytest.raises(AlreadyExists, match=f"NodeLoan {site.name}"):
        await site.loan()


async def test_defaults_of_the_schema_are_filled_in_and_a_status_is_not_taken(site: Site) -> None:
    spec = {"nodeSelector": {"a": "b"}, "slurmClusterName": "s", "partition": "p", "slurmd": {"image": "i"}}
    body = {"metadata": {"name": site.name}, "spec": spec, "status": {"demandNodes": 3}}
    made = await site.create(BATCH_POOLS, body)
    assert made["spec"]["lending"]["idleSeconds"] == 600
    assert made["spec"]["recall"]["quick"]["requeueSeconds"] == 30
    assert made["spec"]["gpuResourceNames"] == ["nvidia.com/gpu"]
    assert "cap" not in made["spec"]["lending"]
    assert made.get("status", {}).get("demandNodes", 0) == 0


async def test_what_the_schema_forbids_is_invalid_and_the_server_says_why(site: Site) -> None:
    await site.loan()
    with pytest.raises(Invalid, match=r"(?s)NodeLoan contract-\w+: the API server refuses it: .*wanted"):
        await site.kube.patch(NODE_LOANS, site.name, {"spec": {"wanted": "Sometimes"}})


async def test_a_merge_patch_deletes_by_null_replaces_lists_and_keeps_the_rest(site: Site) -> None:
    await site.loan(labels={"keep": "1", "drop": "1"}, finalizers=["a.example/x", "a.example/y"])
    patch = {"metadata": {"labels": {"drop": None, "add": "1"}, "finalizers": ["a.example/y"]}}
    patched = await site.kube.patch(NODE_LOANS, site.name, patch)
    assert patched["metadata"]["labels"] == {"keep": "1", "add": "1"}
    assert patched["metadata"]["finalizers"] == ["a.example/y"]
    assert patched["spec"]["gpus"] == 8


async def test_a_patch_of_what_was_not_seen_last_is_a_conflict_without_effect(site: Site) -> None:
    seen = await site.loan()
    await site.kube.patch(NODE_LOANS, site.name, {"metadata": {"labels": {"by": "other"}}})
    version = {"resourceVersion": seen["metadata"]["resourceVersion"]}
    with pytest.raises(Conflict, match=f"NodeLoan {site.name}"):
        await site.kube.patch(NODE_LOANS, site.name, {"metadata": version, "spec": {"wanted": "Returned"}})
    with pytest.raises(Conflict):
        await site.kube.patch(NODE_LOANS, site.name, {"metadata": version, "status": {"state": "Lent"}}, "", "status")
    now = await site.kube.get(NODE_LOANS, site.name)
    assert now["spec"]["wanted"] == "Lent"
    version = {"resourceVersion": now["metadata"]["resourceVersion"]}
    patched = await site.kube.patch(NODE_LOANS, site.name, {"metadata": version, "spec": {"wanted": "Returned"}})
    assert patched["spec"]["wanted"] == "Returned"


async def test_a_patch_for_an_object_with_another_uid_is_refused(site: Site) -> None:
    await site.loan()
    with pytest.raises(Invalid):
        await site.kube.patch(NODE_LOANS, site.name, {"metadata": {"uid": "another"}, "spec": {"wanted": "Returned"}})
    assert (await site.kube.get(NODE_LOANS, site.name))["spec"]["wanted"] == "Lent"


async def test_spec_and_status_are_written_apart_and_only_the_spec_counts_generations(site: Site) -> None:
    await site.loan()
    both = {"spec": {"wanted": "Returned"}, "status": {"state": "Lent"}}
    patched = await site.kube.patch(NODE_LOANS, site.name, both, subresource="status")
    assert (patched["spec"]["wanted"], patched["status"]) == ("Lent", {"state": "Lent"})
    assert patched["metadata"]["generation"] == 1
    both["status"]["state"] = "Returned"
    patched = await site.kube.patch(NODE_LOANS, site.name, both)
    assert (patched["spec"]["wanted"], patched["status"]["state"]) == ("Returned", "Lent")
    assert patched["metadata"]["generation"] == 2


async def test_a_field_that_a_status_patch_does_not_name_stays_and_null_clears_it(site: Site) -> None:
    await site.loan()
    first = {"state": "Lent", "deadline": "2026-11-21T10:00:00.000001Z"}
    await site.kube.patch(NODE_LOANS, site.name, {"status": first}, subresource="status")
    patched = await site.kube.patch(NODE_LOANS, site.name, {"status": {"state": "Left"}}, subresource="status")
    assert patched["status"]["deadline"] == "2026-11-21T10:00:00.000001Z"
    patched = await site.kube.patch(NODE_LOANS, site.name, {"status": {"deadline": None}}, subresource="status")
    assert "deadline" not in patched["status"]


async def test_a_patch_that_changes_nothing_makes_no_new_version(site: Site) -> None:
    made = await site.loan()
    patched = await site.kube.patch(NODE_LOANS, site.name, {"spec": {"wanted": "Lent"}})
    assert patched["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_a_finalizer_keeps_a_deleted_object_until_it_is_dropped(site: Site) -> None:
    await site.loan(finalizers=[FINALIZER])
    await site.kube.delete(NODE_LOANS, site.name)
    await site.kube.delete(NODE_LOANS, site.name)
    kept = await site.kube.get(NODE_LOANS, site.name)
    assert kept["metadata"]["deletionTimestamp"]
    with pytest.raises(Invalid):
        await site.kube.patch(NODE_LOANS, site.name, {"metadata": {"finalizers": [FINALIZER, "a.example/x"]}})
    await site.kube.patch(NODE_LOANS, site.name, {"metadata": {"finalizers": None}})
    with pytest.raises(NotFound):
        await site.kube.get(NODE_LOANS, site.name)


async def test_only_the_object_with_the_named_uid_is_deleted(site: Site) -> None:
    made = await site.loan()
    with pytest.raises(Conflict):
        await site.kube.delete(NODE_LOANS, site.name, uid="another")
    await site.kube.delete(NODE_LOANS, site.name, uid=made["metadata"]["uid"])
    with pytest.raises(NotFound):
        await site.kube.get(NODE_LOANS, site.name)


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("contract={name}", True),
        ("contract={name},contract", True),
        ("contract in (x, {name}),!other", True),
        ("contract notin ({name})", False),
        ("contract={name},other=1", False),
        ("contract={name},other!=1", True),
    ],
)
async def test_lists_are_chosen_by_label(site: Site, selector: str, found: bool) -> None:
    pod = await site.pod()
    pods = await site.kube.list(PODS, "default", label_selector=selector.format(name=site.name))
    assert ([p for p in pods if p["metadata"]["name"] == site.name] != []) == found
    everywhere = await site.kube.list(PODS, label_selector=f"contract={site.name}")
    assert [(p["kind"], p["apiVersion"], p["metadata"]["uid"]) for p in everywhere] == [
        ("Pod", "v1", pod["metadata"]["uid"])
    ]


async def test_lists_are_chosen_by_field(site: Site) -> None:
    await site.pod(nodeName="contract-no-such-node", nodeSelector=None)
    bound = await site.kube.list(PODS, field_selector="spec.nodeName=contract-no-such-node")
    assert site.name in [pod["metadata"]["name"] for pod in bound]
    named = await site.kube.list(PODS, field_selector=f"metadata.name={site.name},spec.nodeName!=contract-no-such-node")
    assert named == []
    with pytest.raises(Invalid, match="pods"):
        await site.kube.list(PODS, field_selector="spec.colour=red")


async def test_a_pod_may_get_tolerations_and_nothing_else(site: Site) -> None:
    pod = await site.pod()
    tolerations = [*(pod["spec"].get("tolerations") or []), {"key": FENCE_TAINT, "operator": "Exists"}]
    patched = await site.kube.patch(PODS, site.name, {"spec": {"tolerations": tolerations}}, "default")
    assert patched["spec"]["tolerations"] == tolerations
    for change in ({"tolerations": None}, {"nodeSelector": {"a": "b"}}):
        with pytest.raises(Invalid):
            await site.kube.patch(PODS, site.name, {"spec": change}, "default")


async def test_a_pod_needs_a_priority_class_that_exists(site: Site) -> None:
    with pytest.raises(Forbidden, match="no PriorityClass with name contract-none was found"):
        await site.pod(priorityClassName="contract-none")
    pod = await site.pod()
    assert pod["spec"]["priority"] == 0


async def test_a_pod_that_is_not_bound_is_deleted_at_once_and_a_bound_one_when_its_kubelet_is_done(site: Site) -> None:
    await site.pod()
    await site.kube.delete(PODS, site.name, "default")
    with pytest.raises(NotFound):
        await site.kube.get(PODS, site.name, "default")
    await site.pod(nodeName="contract-no-such-node", nodeSelector=None, terminationGracePeriodSeconds=7)
    await site.kube.delete(PODS, site.name, "default")
    ending = await site.kube.get(PODS, site.name, "default")
    assert ending["metadata"]["deletionTimestamp"]
    assert ending["metadata"]["deletionGracePeriodSeconds"] == 7
    await site.kube.delete(PODS, site.name, "default", uid=ending["metadata"]["uid"], grace_seconds=0)
    with pytest.raises(NotFound):
        await site.kube.get(PODS, site.name, "default")


async def test_an_eviction_is_graceful_and_only_of_the_named_pod(site: Site) -> None:
    with pytest.raises(NotFound, match=site.name):
        await site.kube.evict(site.name, "default", "nobody")
    pod = await site.pod(nodeName="contract-no-such-node", nodeSelector=None, terminationGracePeriodSeconds=7)
    uid = pod["metadata"]["uid"]
    with pytest.raises(Conflict):
        await site.kube.evict(site.name, "default", "another")
    await site.kube.evict(site.name, "default", uid, dry_run=True)
    assert "deletionTimestamp" not in (await site.kube.get(PODS, site.name, "default"))["metadata"]
    await site.kube.evict(site.name, "default", uid)
    ending = await site.kube.get(PODS, site.name, "default")
    assert ending["metadata"]["deletionTimestamp"]
    assert ending["metadata"]["deletionGracePeriodSeconds"] == 7
    await site.kube.evict(site.name, "default", uid)


async def running_pod(site: Site) -> Json:
    """A pod whose kubelet said that it runs and is ready."""
    await site.pod(nodeName="contract-no-such-node", nodeSelector=None, terminationGracePeriodSeconds=0)
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    return await site.kube.patch(PODS, site.name, {"status": status}, "default", "status")


async def budget(site: Site, least: int, suffix: str = "") -> None:
    """A budget over the pod that keeps so many of it, counted by its controller."""
    name = site.name + suffix
    spec = {"minAvailable": least, "selector": {"matchLabels": {"contract": site.name}}}
    await site.create(DISRUPTION_BUDGETS, {"metadata": {"name": name}, "spec": spec}, "default")
    deadline = time.monotonic() + 30
    while (await site.kube.get(DISRUPTION_BUDGETS, name, "default")).get("status", {}).get("currentHealthy") != 1:
        assert time.monotonic() < deadline, "the disruption controller does not count"
        if isinstance(site.kube, FakeKube):
            site.kube.count_budgets()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(("least", "allowed"), [(1, 0), (0, 1)])
async def test_a_budget_says_how_many_pods_may_go_and_is_kept(site: Site, least: int, allowed: int) -> None:
    uid = (await running_pod(site))["metadata"]["uid"]
    await budget(site, least)
    seen = views.disruption_budget(await site.kube.get(DISRUPTION_BUDGETS, site.name, "default"))
    assert (seen.allowed, seen.selector) == (allowed, (("contract", "In", (site.name,)),))
    for dry_run in (True, False):
        if allowed:
            await site.kube.evict(site.name, "default", uid, dry_run)
        else:
            with pytest.raises(Protected, match=r"violate the pod's disruption budget"):
                await site.kube.evict(site.name, "default", uid, dry_run)
            await site.kube.get(PODS, site.name, "default")
    if allowed:
        with pytest.raises(NotFound):
            await site.kube.get(PODS, site.name, "default")


async def test_a_pod_that_two_budgets_select_is_not_evicted(site: Site) -> None:
    uid = (await running_pod(site))["metadata"]["uid"]
    await budget(site, 0)
    await budget(site, 0, "-b")
    with pytest.raises(KubeError, match="more than one PodDisruptionBudget"):
        await site.kube.evict(site.name, "default", uid)


async def test_a_pod_that_does_not_run_needs_no_leave_of_a_budget(site: Site) -> None:
    pod = await site.pod(nodeName="contract-no-such-node", nodeSelector=None, terminationGracePeriodSeconds=0)
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"contract": site.name}}}
    await site.create(DISRUPTION_BUDGETS, {"metadata": {"name": site.name}, "spec": spec}, "default")
    await site.kube.evict(site.name, "default", pod["metadata"]["uid"])
    with pytest.raises(NotFound):
        await site.kube.get(PODS, site.name, "default")


async def test_a_node_is_fenced_handed_over_and_freed_and_foreign_taints_stay(site: Site) -> None:
    foreign = {"key": "site.example/foreign", "value": "v", "effect": "PreferNoSchedule"}
    await site.create(NODES, {"metadata": {"name": site.name, "labels": {"a": "b"}}, "spec": {"taints": [foreign]}})

    node = await patch_node(site, lambda node: fence.fence_for_loan(node, "loan-1"))
    assert (fence.fence_of(node), node["metadata"]["labels"][LOAN_LABEL]) == ("loan-1", "loan-1")
    node = await patch_node(site, lambda node: fence.remove_label(node, "loan-1"))
    assert (fence.fence_of(node), LOAN_LABEL in node["metadata"]["labels"]) == ("loan-1", False)
    node = await patch_node(site, lambda node: fence.swap_fence(node, "loan-1", "c1"))
    assert fence.fence_of(node) == claim_fence("c1")
    node = await patch_node(site, lambda node: fence.remove_claim_fence(node, "c1"))
    assert fence.fence_of(node) is None
    assert foreign in node["spec"]["taints"]
    assert node["metadata"]["labels"]["a"] == "b"


async def test_the_slurmd_pod_is_taken_as_it_is(site: Site) -> None:
    loan = views.resource(NodeLoan, await site.loan())
    spec = {"nodeSelector": {"a": "b"}, "slurmClusterName": "s", "partition": "p", "slurmd": {"image": "i"}}
    cluster = {"endpoint": "http://s:1", "credentialsSecretName": "k", "controllerAddress": "s:6817"}
    body = slurmd_pod(
        loan,
        views.resource(BatchPool, {"metadata": {"name": "p"}, "spec": spec}),
        views.resource(SlurmCluster, {"metadata": {"name": "s"}, "spec": cluster}),
        cpus=60,
        memory_mib=1000,
        namespace="default",
    )
    # Whether the chart's PriorityClass is there is another test's matter.
    del body["spec"]["priorityClassName"]
    assert_kept(body, await site.create(PODS, body, "default"))


async def test_an_apply_makes_the_object_and_later_takes_back_what_it_does_not_say_any_more(site: Site) -> None:
    one = await site.service()
    first = await site.apply(inference.deployment(one, 1, "gate:1", "a"))
    assert (first["metadata"]["generation"], first["spec"]["replicas"]) == (1, 1)
    assert first["metadata"]["labels"][SERVICE_LABEL] == site.name
    same, deadline, last = inference.deployment(one, 1, "gate:1", "a"), time.monotonic() + 30, ""
    while (again := (await site.apply(same))["metadata"]["resourceVersion"]) != last:
        assert time.monotonic() < deadline, "what says nothing new is written each time"
        last = again  # the Deployment's own controller may still write its first status between two of them

    theirs = {"metadata": {"labels": {"by": "other"}, "annotations": {"by": "other"}}}
    await site.kube.patch(DEPLOYMENTS, site.name, theirs, "default")
    tolerant = one.model_copy(
        update={"spec": one.spec.model_copy(update={"template": {"spec": {"nodeSelector": {"a": "b"}}}})}
    )
    with_more = await site.apply(inference.deployment(tolerant, 2, "gate:1", "b"))
    assert with_more["spec"]["template"]["spec"]["nodeSelector"] == {"a": "b"}
    assert with_more["metadata"]["generation"] == 3, "annotations of a Deployment count"
    without = await site.apply(inference.deployment(one, 2, "gate:2", "c"))
    assert "nodeSelector" not in without["spec"]["template"]["spec"]
    assert [c["image"] for c in without["spec"]["template"]["spec"]["initContainers"]] == ["gate:2"]
    assert without["metadata"]["labels"] == first["metadata"]["labels"] | {"by": "other"}


async def test_an_apply_takes_a_field_from_whoever_changed_it(site: Site) -> None:
    one = await site.service()
    made = await site.apply(inference.deployment(one, 1, "gate:1", "a"))
    await site.kube.patch(DEPLOYMENTS, site.name, {"spec": {"replicas": 7, "minReadySeconds": 3}}, "default")
    back = await site.apply(inference.deployment(one, 1, "gate:1", "a"))
    assert (back["spec"]["replicas"], back["spec"]["minReadySeconds"]) == (1, 3)
    assert back["metadata"]["generation"] == made["metadata"]["generation"] + 2


async def test_the_parts_of_a_service_are_taken_as_they_are(site: Site) -> None:
    one = await site.service()
    for body in (inference.deployment(one, 0, "gate:1", "a"), inference.front(one, "a"), inference.budget(one, "a")):
        made = await site.apply(body)
        assert_kept(body, made)
        changed = {"metadata": {"labels": {"by": "other"}}}
        seen = await site.kube.patch(site.kinds[body["kind"]], site.name, changed, "default")
        assert (views.revision(seen) == views.revision(made)) == (body["kind"] != "Service")


def assert_kept(sent: Any, got: Any) -> None:
    """All that was sent came back: the server knows each field and changes none."""
    if isinstance(sent, dict):
        for key, value in sent.items():
            assert key in got, f"the server dropped {key}"
            assert_kept(value, got[key])
    elif isinstance(sent, list) and sent and isinstance(sent[0], dict):
        for ours, theirs in zip(sent, got, strict=False):
            assert_kept(ours, theirs)
    else:
        assert got == sent


async def patch_node(site: Site, build: Callable[[Json], Json]) -> Json:
    """Patch the node as it is now; Kubernetes' own controllers may change it in between, for a few seconds at most."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return await site.kube.patch(NODES, site.name, build(await site.kube.get(NODES, site.name)))
        except Conflict:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)

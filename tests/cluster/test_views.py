"""What decisions see of raw objects."""

from __future__ import annotations

import json
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import pytest

from tidegate.api import BatchPool, NodeLoan
from tidegate.api.names import SERVICE_LABEL
from tidegate.cluster import views
from tidegate.sharing.snapshot import Owner, Pod, PodsNearby, Spread, Taint, Toleration

Json = dict[str, Any]


def raw_node(**changes: Any) -> Json:
    return {
        "metadata": {
            "name": "gpu-1",
            "uid": "n1",
            "resourceVersion": "7",
            "labels": {"kubernetes.io/arch": "amd64", "site/room": "b"},
            "annotations": {"karpenter.sh/do-not-disrupt": "true", "csi.volume.kubernetes.io/nodeid": "x" * 900},
        },
        "spec": {"taints": [{"key": "a", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}]},
        "status": {
            "capacity": {"cpu": "64", "memory": "100Gi", "nvidia.com/gpu": "8"},
            "allocatable": {
                "cpu": "63500m",
                "memory": "104857599Ki",
                "nvidia.com/gpu": "8",
                "amd.com/gpu": "0",
                "example.kubernetes.io/thing": "3",
                "hugepages-2Mi": "0",
                "pods": "110",
            },
            "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
        },
    } | changes


def raw_pod(spec: Json | None = None, status: Json | None = None, **metadata: Any) -> Json:
    return {
        "metadata": {
            "name": "web-1",
            "namespace": "jobs",
            "uid": "p1",
            "creationTimestamp": "2026-11-21T10:00:00Z",
            **metadata,
        },
        "spec": {"containers": [{"name": "c"}], **(spec or {})},
        "status": {"phase": "Running", **(status or {})},
    }


def resources(requests: Json | None = None, limits: Json | None = None, **more: Any) -> Json:
    return {"name": "c", "resources": {"requests": requests or {}, "limits": limits or {}}, **more}


def test_a_node_offers_what_is_allocatable() -> None:
    node = views.node(raw_node())
    assert (node.name, node.uid, node.resource_version) == ("gpu-1", "n1", "7")
    assert (node.gpus, node.cpu_millis, node.memory_mib) == ({"nvidia.com/gpu": 8}, 63500, 102399)
    assert node.taints == (Taint("a", "", "NoExecute"),)
    assert node.ready
    assert not node.unschedulable
    assert not node.deleting


def test_a_node_keeps_all_labels_but_only_the_annotations_that_decisions_read() -> None:
    node = views.node(raw_node())
    assert node.labels == {"kubernetes.io/arch": "amd64", "site/room": "b"}
    assert node.annotations == {"karpenter.sh/do-not-disrupt": "true"}


@pytest.mark.parametrize("conditions", [[], [{"type": "Ready", "status": "Unknown"}], None])
def test_a_node_is_ready_only_when_its_kubelet_says_so(conditions: Any) -> None:
    assert not views.node(raw_node(status={"conditions": conditions})).ready


def test_a_bare_new_node_can_be_seen() -> None:
    node = views.node({"metadata": {"name": "n", "deletionTimestamp": "2026-11-21T10:00:00Z"}, "spec": {}})
    assert (node.gpus, node.cpu_millis, node.memory_mib, node.deleting) == ({}, 0, 0, True)


def test_a_pod_is_seen_with_what_decisions_need() -> None:
    controller = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "r1", "controller": True}
    other = {"apiVersion": "v1", "kind": "ConfigMap", "name": "m", "uid": "m1"}
    pod = views.pod(
        raw_pod(
            spec={
                "nodeName": "gpu-1",
                "priority": 5,
                "priorityClassName": "web",
                "nodeSelector": {"room": "b"},
                "tolerations": [{"key": "k", "operator": "Exists"}, {"key": "x", "value": "y", "effect": "NoSchedule"}],
                "containers": [resources({"nvidia.com/gpu": "2", "cpu": "1500m", "memory": "1.5Gi"})],
            },
            labels={"app": "web", "tidegate.dev/claim": "mine"},
            annotations={"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "note": "long"},
            ownerReferences=[other, controller],
        )
    )
    assert pod is not None
    assert (pod.key, pod.node, pod.phase, pod.uid) == ("jobs/web-1", "gpu-1", "Running", "p1")
    assert (pod.gpus, pod.cpu_millis, pod.memory_mib) == ({"nvidia.com/gpu": 2}, 1500, 1536)
    assert (pod.priority, pod.priority_class_name) == (5, "web")
    assert pod.owner == Owner("apps/v1", "ReplicaSet", "web", "r1")
    assert pod.labels == {"app": "web", "tidegate.dev/claim": "mine"}
    assert pod.grace_seconds == 30
    assert pod.annotations == {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
    assert pod.tolerations == (Toleration("k", "Exists"), Toleration("x", "Equal", "y", "NoSchedule"))
    assert pod.node_selector == {"room": "b"}
    assert pod.created == datetime(2026, 11, 21, 10, tzinfo=UTC)
    assert not pod.deleting


def test_only_pods_with_gpus_keep_labels_that_are_not_ours() -> None:
    pod = views.pod(raw_pod(labels={"app": "web", "tidegate.dev/claim": "mine"}))
    assert pod is not None
    assert pod.labels == {"tidegate.dev/claim": "mine"}


MINE = {"matchLabels": {"app": "web"}}
APP = ("app", "In", ("web",))


def topology(spec: Json, **metadata: Any) -> Pod:
    gpus = {"containers": [resources({"nvidia.com/gpu": "1"})]}
    pod = views.pod(raw_pod(spec=gpus | spec, labels={"app": "web", "rev": "7"}, **metadata))
    assert pod is not None
    return pod


@pytest.mark.parametrize(
    ("more", "spread"),
    [
        ({}, [Spread(PodsNearby("zone", (APP,), ("jobs",)), 2)]),
        ({"whenUnsatisfiable": "ScheduleAnyway"}, []),
        ({"labelSelector": None}, [Spread(PodsNearby("zone", None, ("jobs",)), 2)]),
        ({"labelSelector": {}}, [Spread(PodsNearby("zone", (), ("jobs",)), 2)]),
        ({"nodeAffinityPolicy": "Ignore"}, [Spread(PodsNearby("zone", (APP,), ("jobs",)), 2, all_nodes=True)]),
        (
            {"matchLabelKeys": ["rev", "none"]},
            [Spread(PodsNearby("zone", (APP, ("rev", "In", ("7",))), ("jobs",)), 2)],
        ),
    ],
)
def test_spread_constraints_that_must_hold_are_seen(more: Json, spread: list[Spread]) -> None:
    constraint = {"topologyKey": "zone", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": MINE}
    assert topology({"topologySpreadConstraints": [constraint | more]}).spread == tuple(spread)


@pytest.mark.parametrize(
    ("more", "meant"),
    [
        ({}, PodsNearby("host", (APP,), ("jobs",))),
        ({"namespaces": ["a", "b"]}, PodsNearby("host", (APP,), ("a", "b"))),
        ({"namespaceSelector": {}}, PodsNearby("host", (APP,), (), ())),
        ({"mismatchLabelKeys": ["rev"]}, PodsNearby("host", (APP, ("rev", "NotIn", ("7",))), ("jobs",))),
        (
            {"labelSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}},
            PodsNearby("host", (("app", "Exists", ()),), ("jobs",)),
        ),
    ],
)
def test_required_affinity_to_pods_and_against_them_is_seen(more: Json, meant: PodsNearby) -> None:
    term = {"topologyKey": "host", "labelSelector": MINE} | more
    required = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}]}
    assert topology({"affinity": {"podAffinity": required}}).together == (meant,)
    assert topology({"affinity": {"podAntiAffinity": required}}).apart == (meant,)
    plain = topology({"affinity": {"podAffinity": preferred, "podAntiAffinity": preferred}})
    assert (plain.together, plain.apart) == ((), ())


@pytest.mark.parametrize(("spec", "seconds"), [({}, 30), ({"terminationGracePeriodSeconds": 0}, 0)])
def test_a_pod_has_the_grace_that_it_asks_for(spec: Any, seconds: int) -> None:
    pod = views.pod(raw_pod(spec=spec))
    assert pod is not None
    assert pod.grace_seconds == seconds


def raw_budget(spec: Any, status: Any, **metadata: Any) -> Any:
    return {
        "metadata": {"namespace": "team", "name": "web", "generation": 2, **metadata},
        "spec": spec,
        "status": status,
    }


@pytest.mark.parametrize(
    ("status", "allowed"),
    [
        ({"observedGeneration": 2, "disruptionsAllowed": 3}, 3),
        ({"observedGeneration": 1, "disruptionsAllowed": 3}, 0),
        ({"observedGeneration": 2}, 0),
        (None, 0),
    ],
)
def test_a_budget_allows_only_what_its_status_says_of_its_present_spec(status: Any, allowed: int) -> None:
    assert views.disruption_budget(raw_budget({}, status)).allowed == allowed


@pytest.mark.parametrize(
    ("spec", "selector"),
    [
        ({}, None),
        ({"selector": {}}, ()),
        ({"selector": {"matchLabels": {"app": "web"}}}, (("app", "In", ("web",)),)),
        (
            {"selector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a", "b"]},
                                               {"key": "x", "operator": "Exists"}]}},
            (("app", "NotIn", ("a", "b")), ("x", "Exists", ())),
        ),
    ],
)  # fmt: skip
def test_a_budget_selects_pods_by_their_labels(spec: Any, selector: Any) -> None:
    assert views.disruption_budget(raw_budget(spec, {})).selector == selector


def test_a_budget_of_an_inference_service_is_a_part_of_it_as_long_as_it_carries_the_label() -> None:
    owner = {"apiVersion": "tidegate.dev/v1alpha1", "kind": "InferenceService", "name": "c", "uid": "s1"}
    ours = {"uid": "b1", "resourceVersion": "5", "ownerReferences": [{**owner, "controller": True}]}
    labelled = views.disruption_budget(raw_budget({}, {}, **ours, labels={SERVICE_LABEL: "c"}))
    assert labelled.part is not None
    assert labelled.part.owner_uid == "s1"
    assert views.disruption_budget(raw_budget({}, {}, **ours)).part is None


def test_a_bare_pod_owns_itself() -> None:
    pod = views.pod(raw_pod())
    assert pod is not None
    assert pod.owner == Owner("v1", "Pod", "web-1", "p1")


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_finished_pods_hold_nothing_and_are_not_seen(phase: str) -> None:
    assert views.pod(raw_pod(status={"phase": phase})) is None


def test_a_refused_slurmd_pod_is_seen_with_the_reason() -> None:
    status = {"phase": "Failed", "reason": "OutOfnvidia.com/gpu", "message": "Node didn't have enough resource"}
    pod = views.pod(raw_pod(status=status, labels={"tidegate.dev/loan": "gpu-1-3"}))
    assert pod is not None
    assert (pod.loan, pod.phase) == ("gpu-1-3", "Failed")
    assert pod.waiting_reason == "OutOfnvidia.com/gpu: Node didn't have enough resource"


def test_the_first_container_that_waits_says_why() -> None:
    waiting = {"reason": "ErrImageNeverPull", "message": "image is not present"}
    statuses = [{"name": "a", "state": {"running": {}}}, {"name": "b", "state": {"waiting": waiting}}]
    pod = views.pod(raw_pod(status={"containerStatuses": statuses}))
    assert pod is not None
    assert pod.waiting_reason == "ErrImageNeverPull: image is not present"


def test_a_pod_that_the_scheduler_rejected_is_unschedulable_and_a_gated_one_is_not() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    rejected = views.pod(raw_pod(status={"phase": "Pending", "conditions": [condition]}))
    held = views.pod(
        raw_pod(
            spec={"schedulingGates": [{"name": "wait"}]},
            status={"conditions": [condition | {"reason": "SchedulingGated", "message": "gated"}]},
        )
    )
    assert rejected is not None
    assert held is not None
    assert (rejected.unschedulable, rejected.gated, rejected.scheduler_message) == (True, False, "0/3 nodes")
    assert (held.unschedulable, held.gated) == (False, True)


def test_required_affinity_is_any_of_its_terms_and_an_empty_term_matches_nothing() -> None:
    terms = [
        {
            "matchExpressions": [
                {"key": "zone", "operator": "In", "values": ["a", "b"]},
                {"key": "g", "operator": "Exists"},
            ]
        },
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["gpu-1"]}]},
        {},
    ]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    pod = views.pod(raw_pod(spec={"affinity": {"nodeAffinity": required}}))
    assert pod is not None
    assert pod.required_affinity == (
        (("zone", "In", ("a", "b")), ("g", "Exists", ())),
        (("metadata.name", "In", ("gpu-1",)),),
        (("metadata.name", "In", ()),),
    )


ALWAYS: Json = {"restartPolicy": "Always"}
GPU = "nvidia.com/gpu"


@pytest.mark.parametrize(
    ("spec", "gpus", "cpu_millis", "memory_mib"),
    [
        ({"containers": [resources({"cpu": "1"}), resources({"cpu": "250m", GPU: "1"})]}, 1, 1250, 0),
        ({"containers": [resources({}, {"cpu": "2", GPU: "4"})]}, 4, 2000, 0),
        ({"containers": [resources({"cpu": "1"}, {"cpu": "2"})]}, 0, 1000, 0),
        ({"containers": [resources({"cpu": "1"})], "initContainers": [resources({"cpu": "3", GPU: "2"})]}, 2, 3000, 0),
        (
            {"containers": [resources({"cpu": "1"})], "initContainers": [resources({"cpu": "2"}, **ALWAYS)]},
            0,
            3000,
            0,
        ),
        (
            {
                "containers": [resources({"cpu": "1"})],
                "initContainers": [
                    resources({"cpu": "5"}),
                    resources({"cpu": "2"}, **ALWAYS),
                    resources({"cpu": "4"}),
                ],
            },
            0,
            6000,
            0,
        ),
        ({"containers": [resources({"memory": "1"})], "overhead": {"cpu": "100m", "memory": "10M"}}, 0, 100, 10),
        ({"containers": [resources({"cpu": "1", GPU: "1"})], "resources": {"requests": {"cpu": "8"}}}, 1, 8000, 0),
    ],
    ids=["sum", "limits", "requests-first", "init", "sidecar", "init-after-sidecar", "overhead", "pod-level"],
)
def test_a_pod_takes_what_the_scheduler_counts(spec: Json, gpus: int, cpu_millis: int, memory_mib: int) -> None:
    pod = views.pod(raw_pod(spec=spec))
    assert pod is not None
    assert (pod.gpus.get(GPU, 0), pod.cpu_millis, pod.memory_mib) == (gpus, cpu_millis, memory_mib)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2Ki", 2048),
        ("1Mi", 2**20),
        ("3Gi", 3 * 2**30),
        ("5M", 5_000_000),
        ("12e3", 12000),
        ("1E3", 1000),
        ("7", 7),
        (7, 7),
    ],
)
def test_quantities_are_read_in_all_their_notations(text: str | int, number: int) -> None:
    assert views.quantity(text) == number
    assert views.quantity("250m") * 4 == 1


def test_resources_of_ours_are_read_by_their_models() -> None:
    spec = {"nodeSelector": {"gpu": "yes"}, "slurmClusterName": "s", "partition": "p", "slurmd": {"image": "i"}}
    pool = views.resource(BatchPool, {"metadata": {"name": "pool"}, "spec": spec})
    assert pool.spec.lending.idle_seconds == 600


def test_a_resource_that_cannot_be_read_names_object_and_field() -> None:
    raw = {"metadata": {"name": "gpu-1-1"}, "spec": {"poolName": "p", "nodeName": "gpu-1", "gpus": "many"}}
    with pytest.raises(ValueError, match=r"^NodeLoan gpu-1-1: field spec\.\w+ cannot be read \(.*\); correct it"):
        views.resource(NodeLoan, raw)


def test_ten_thousand_pods_stay_small() -> None:
    text = json.dumps(
        raw_pod(
            spec={
                "nodeName": "gpu-1",
                "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
                "containers": [resources({"cpu": "1", "memory": "1Gi", GPU: "1"}) | {"env": [{"name": "A" * 999}] * 9}],
            },
            labels={f"label-{i}": "x" * 40 for i in range(9)},
            annotations={f"annotation-{i}": "x" * 900 for i in range(9)},
            managedFields=[{"manager": "m", "fieldsV1": {f"f:{i}": {} for i in range(99)}}],
        )
    )
    tracemalloc.start()
    pods = [views.pod(json.loads(text)) for _ in range(1000)]
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(pods) == 1000
    assert size / 1000 < 4000, "bytes for each pod"

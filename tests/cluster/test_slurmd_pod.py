"""The pod that runs slurmd on a lent node."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate.api import BatchPool, BatchPoolSpec, Metadata, NodeLoan, NodeLoanSpec, SlurmCluster, SlurmClusterSpec
from tidegate.api.batch_pool import Slurmd
from tidegate.cluster import views
from tidegate.cluster.slurmd_pod import slurmd_pod, template_problem

Json = dict[str, Any]

LOAN = NodeLoan(
    metadata=Metadata(name="gpu-7.site-3", uid="l1"),
    spec=NodeLoanSpec(
        pool_name="night",
        node_name="gpu-7.site",
        slurm_node_name="gpu-7",
        gpu_resource_name="nvidia.com/gpu",
        gpus=8,
        priority=-100,
    ),
)
CLUSTER = SlurmCluster(
    metadata=Metadata(name="slurm"),
    spec=SlurmClusterSpec(
        endpoint="https://slurm.example:6820",
        credentials_secret_name="slurm-keys",
        controller_address="slurm.example:6817",
    ),
)


def pool(template: Any = None, name: str = "night") -> BatchPool:
    return BatchPool(
        metadata=Metadata(name=name),
        spec=BatchPoolSpec(
            node_selector={"gpu": "yes"},
            slurm_cluster_name="slurm",
            partition="lent",
            features=("lent", "a100"),
            slurmd=Slurmd(image="site.example/slurmd:24.11", template=template or {}),
        ),
    )


def made(template: Any = None) -> Json:
    return slurmd_pod(LOAN, pool(template), CLUSTER, cpus=60, memory_mib=500000, namespace="tidegate")


AMOUNTS = {"nvidia.com/gpu": "8", "cpu": "60", "memory": "500000Mi"}
GOLDEN: Json = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "slurmd-gpu-7.site-3",
        "namespace": "tidegate",
        "labels": {
            "app.kubernetes.io/name": "slurmd",
            "tidegate.dev/loan": "gpu-7.site-3",
            "tidegate.dev/pool": "night",
        },
        "ownerReferences": [
            {
                "apiVersion": "tidegate.dev/v1alpha1",
                "kind": "NodeLoan",
                "name": "gpu-7.site-3",
                "uid": "l1",
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    },
    "spec": {
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [
                                {"key": "tidegate.dev/loan", "operator": "In", "values": ["gpu-7.site-3"]}
                            ],
                            "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["gpu-7.site"]}],
                        }
                    ]
                }
            }
        },
        "tolerations": [
            {"key": "tidegate.dev/fence", "operator": "Equal", "value": "gpu-7.site-3", "effect": "NoSchedule"}
        ],
        "priorityClassName": "tidegate-slurmd",
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 5,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [
            {
                "name": "slurmd",
                "image": "site.example/slurmd:24.11",
                "imagePullPolicy": "IfNotPresent",
                "args": [
                    "-D",
                    "-Z",
                    "-N",
                    "gpu-7",
                    "--conf-server",
                    "slurm.example:6817",
                    "--conf",
                    "Feature=lent,a100 Gres=gpu:8 CPUs=60 RealMemory=500000",
                    "--extra",
                    "tidegate=gpu-7.site-3",
                ],
                "securityContext": {"privileged": True},
                "resources": {"requests": AMOUNTS, "limits": AMOUNTS},
                "volumeMounts": [{"name": "slurm-key", "mountPath": "/run/slurm-key", "readOnly": True}],
            }
        ],
        "volumes": [
            {
                "name": "slurm-key",
                "secret": {
                    "secretName": "slurm-keys",
                    "items": [{"key": "slurm.key", "path": "slurm.key"}],
                    "defaultMode": 256,
                },
            }
        ],
    },
}


def test_without_a_template_the_pod_is_exactly_this() -> None:
    assert made() == GOLDEN


def test_the_pod_takes_what_it_offers_to_slurm() -> None:
    seen = views.pod({**made(), "metadata": {**made()["metadata"], "creationTimestamp": "2026-11-21T10:00:00Z"}})
    assert seen is not None
    assert (seen.gpus, seen.cpu_millis, seen.memory_mib) == ({"nvidia.com/gpu": 8}, 60000, 500000)
    assert seen.loan == "gpu-7.site-3"


def test_a_template_adds_volumes_mounts_environment_containers_and_labels() -> None:
    scratch: Json = {"name": "scratch", "hostPath": {"path": "/scratch"}}
    mount = {"name": "scratch", "mountPath": "/scratch"}
    variables = [{"name": "SITE", "value": "here"}]
    sidecar = {"name": "exporter", "image": "exporter"}
    prepare = {"name": "prepare", "image": "prepare", "resources": {"requests": {"cpu": "1"}}}
    pod = made(
        {
            "metadata": {"labels": {"team": "batch"}, "annotations": {"note": "x"}},
            "spec": {
                "runtimeClassName": "nvidia",
                "hostNetwork": True,
                "imagePullSecrets": [{"name": "pull"}],
                "volumes": [scratch],
                "initContainers": [prepare],
                "containers": [
                    sidecar,
                    {
                        "name": "slurmd",
                        "env": variables,
                        "volumeMounts": [mount],
                        "securityContext": {"seccompProfile": {"type": "Unconfined"}},
                    },
                ],
            },
        }
    )
    spec, golden = pod["spec"], GOLDEN["spec"]
    assert pod["metadata"]["labels"] == {**GOLDEN["metadata"]["labels"], "team": "batch"}
    assert pod["metadata"]["annotations"] == {"note": "x"}
    assert (spec["runtimeClassName"], spec["imagePullSecrets"]) == ("nvidia", [{"name": "pull"}])
    assert spec["volumes"] == [*golden["volumes"], scratch]
    assert spec["initContainers"] == [prepare]
    slurmd, other = spec["containers"]
    assert other == sidecar
    assert slurmd == {
        **golden["containers"][0],
        "env": variables,
        "volumeMounts": [*golden["containers"][0]["volumeMounts"], mount],
        "securityContext": {"privileged": True, "seccompProfile": {"type": "Unconfined"}},
    }
    untouched = ("affinity", "tolerations", "priorityClassName", "restartPolicy", "dnsPolicy")
    assert {key: spec[key] for key in untouched} == {key: golden[key] for key in untouched}


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ({"containers": []}, "containers is not read; a template has metadata and spec here"),
        ({"metadata": {"name": "x"}}, "metadata.name is not read; a template has labels and annotations here"),
        ({"spec": []}, "spec must be an object"),
        ({"spec": {"nodeName": "n"}}, "spec.nodeName is not for templates, Tidegate decides it; leave it out"),
        ({"spec": {"containers": [{"image": "i"}]}}, "spec.containers must be a list whose entries each have `name`"),
        ({"spec": {"volumes": {}}}, "spec.volumes must be a list whose entries each have `name`"),
        (
            {"spec": {"containers": [{"name": "slurmd", "volumeMounts": [{"name": "v"}]}]}},
            "spec.containers[slurmd].volumeMounts must be a list whose entries each have `mountPath`",
        ),
        (
            {"spec": {"containers": [{"name": "x", "resources": {"requests": {"cpu": "1"}}}]}},
            "spec.containers[x].resources is not for templates: slurmd takes all of the node; leave it out",
        ),
        (
            {"spec": {"initContainers": [{"name": "x", "restartPolicy": "Always", "resources": {}}]}},
            "spec.initContainers[x].resources is not for templates: slurmd takes all of the node; leave it out",
        ),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_by_pool_and_field(template: Json, sentence: str) -> None:
    assert template_problem(pool(template)) == f"BatchPool night: spec.slurmd.template.{sentence}."
    with pytest.raises(ValueError, match=r"^BatchPool night: spec\.slurmd\.template"):
        made(template)


@pytest.mark.parametrize(
    ("spec", "field", "value"),
    [
        ({"hostNetwork": False}, "spec.hostNetwork", "True"),
        ({"priorityClassName": "high"}, "spec.priorityClassName", "'tidegate-slurmd'"),
        ({"tolerations": [{"operator": "Exists"}]}, "spec.tolerations", "[{"),
        ({"containers": [{"name": "slurmd", "image": "i"}]}, "spec.containers[slurmd].image", "'site.example"),
        (
            {"volumes": [{"name": "slurm-key", "secret": {"secretName": "x"}}]},
            "spec.volumes[slurm-key].secret",
            "'slurm",
        ),
    ],
)
def test_a_template_cannot_contradict_what_is_ours(spec: Json, field: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"is Tidegate's own \(.*\); leave it out\.$") as caught:
        made({"spec": spec})
    start = f"BatchPool night: spec.slurmd.template.{field}"
    assert str(caught.value).startswith(start)
    assert value in str(caught.value)
    assert (template_problem(pool({"spec": spec})) or "").startswith(start)


def test_a_pool_whose_name_cannot_be_a_label_is_refused() -> None:
    words = template_problem(pool(name="n" * 64)) or ""
    assert words.endswith(": its name labels pods and may have 63 characters; make it anew, shorter.")


def test_a_template_that_can_be_used_has_no_problem() -> None:
    assert template_problem(pool()) is None
    assert template_problem(pool({"spec": {"containers": [{"name": "logs", "image": "i"}]}})) is None

"""The pod that runs slurmd on a lent node: it fits there and nowhere else, and takes what it offers to Slurm."""

from __future__ import annotations

from typing import Any

from tidegate.api import BatchPool, Metadata, NodeLoan, NodeLoanSpec, SlurmCluster, SlurmClusterSpec
from tidegate.api.names import FENCE_TAINT, JOINING_REASON, LOAN_LABEL, POOL_LABEL
from tidegate.cluster.pod_template import PodTemplate

PRIORITY_CLASS = "tidegate-slurmd"
CONTAINER = "slurmd"

# Where a pod goes and what it takes decides who owns the node, so that a template has no say in it.
_NOT_FOR_TEMPLATES = (
    "nodeName",
    "nodeSelector",
    "priority",
    "preemptionPolicy",
    "schedulerName",
    "schedulingGates",
    "topologySpreadConstraints",
    "resources",
    "resourceClaims",
    "activeDeadlineSeconds",
)

# What a template may say does not depend on the loan, but what it contradicts shows only in a whole pod.
_SAMPLE_LOAN = NodeLoan(
    metadata=Metadata(name="sample"),
    spec=NodeLoanSpec(
        pool_name="sample", node_name="sample", slurm_node_name="sample", gpu_resource_name="gpu", gpus=1, priority=0
    ),
)
_SAMPLE_CLUSTER = SlurmCluster(
    metadata=Metadata(name="sample"),
    spec=SlurmClusterSpec(
        endpoint="https://sample:1",
        credentials_secret_name="sample",  # noqa: S106 - the name of a Secret
        controller_address="sample:1",
    ),
)

Json = dict[str, Any]


def slurmd_pod(
    loan: NodeLoan,
    pool: BatchPool,
    cluster: SlurmCluster,
    cpus: int,
    memory_mib: int,
    namespace: str,
    drained: bool = False,
) -> Json:
    """The pod of a loan, with the pool's template under it.

    `cpus` and `memory_mib` are what pods that stay have left of the node. With `drained` it registers so, and no job
    comes before somebody lifts that. Raises `ValueError` with the sentence of `template_problem`.
    """
    if len(pool.metadata.name) > 63:
        words = "its name labels pods and may have 63 characters; make it anew, shorter."
        raise ValueError(f"BatchPool {pool.metadata.name}: {words}")
    template = PodTemplate(
        f"BatchPool {pool.metadata.name}", "spec.slurmd.template", pool.spec.slurmd.template, CONTAINER
    )
    template.check(_NOT_FOR_TEMPLATES)
    _leave_the_node_to_slurmd(template)
    offer = f"Feature={','.join(pool.spec.features)} Gres=gpu:{loan.spec.gpus} CPUs={cpus} RealMemory={memory_mib}"
    offer += f' State=DRAIN Reason="{JOINING_REASON}"' if drained else ""
    return template.under(_pod(loan, pool, cluster, cpus, memory_mib, namespace, offer))


def template_problem(pool: BatchPool) -> str | None:
    """One sentence, which names the pool and the field, why no slurmd pod can be made for it; None if one can."""
    try:
        slurmd_pod(_SAMPLE_LOAN, pool, _SAMPLE_CLUSTER, cpus=1, memory_mib=1, namespace="sample")
    except ValueError as error:
        return str(error)
    return None


def _leave_the_node_to_slurmd(template: PodTemplate) -> None:
    for field in ("containers", "initContainers"):
        for container in template.given.get("spec", {}).get(field, []):
            stays = field == "containers" or container.get("restartPolicy") == "Always"
            where = f"spec.{field}[{container['name']}].resources"
            problem = "is not for templates: slurmd takes all of the node; leave it out"
            template.need(not (stays and "resources" in container), where, problem)


def _pod(
    loan: NodeLoan, pool: BatchPool, cluster: SlurmCluster, cpus: int, memory_mib: int, namespace: str, offer: str
) -> Json:
    name, gpus = loan.metadata.name, loan.spec.gpus
    # The CPU and memory that are requested are the ones offered to Slurm: both schedulers count the node once.
    resources = {loan.spec.gpu_resource_name: str(gpus), "cpu": str(cpus), "memory": f"{memory_mib}Mi"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"slurmd-{name}",
            "namespace": namespace,
            "labels": {
                "app.kubernetes.io/name": "slurmd",
                LOAN_LABEL: name,
                POOL_LABEL: pool.metadata.name,
            },
            "ownerReferences": [
                {
                    "apiVersion": loan.api_version,
                    "kind": loan.kind,
                    "name": name,
                    "uid": loan.metadata.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": {
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _only_node(loan)}},
            "tolerations": [{"key": FENCE_TAINT, "operator": "Equal", "value": name, "effect": "NoSchedule"}],
            "priorityClassName": PRIORITY_CLASS,
            # slurmctld and srun must reach slurmd at the node's own address.
            "hostNetwork": True,
            "dnsPolicy": "ClusterFirstWithHostNet",
            # A slurmd that crashes comes back in place, with the same GPUs. `Never` would turn each crash into the end
            # of the loan. A pod that the kubelet refused stays `Failed` either way.
            "restartPolicy": "Always",
            # The pod is deleted only when Slurm has nothing on the node, or when nothing there can be saved.
            "terminationGracePeriodSeconds": 5,
            # slurmd needs no right in Kubernetes, and jobs must not find one.
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "containers": [
                {
                    "name": CONTAINER,
                    "image": pool.spec.slurmd.image,
                    "imagePullPolicy": pool.spec.slurmd.image_pull_policy,
                    "args": [
                        "-D",
                        "-Z",
                        "-N",
                        loan.spec.slurm_node_name,
                        "--conf-server",
                        cluster.spec.controller_address,
                        "--conf",
                        offer,
                        "--extra",
                        f"tidegate={name}",
                    ],
                    "securityContext": {"privileged": True},
                    "resources": {"requests": resources, "limits": dict(resources)},
                    "volumeMounts": [{"name": "slurm-key", "mountPath": "/run/slurm-key", "readOnly": True}],
                }
            ],
            "volumes": [
                {
                    "name": "slurm-key",
                    "secret": {
                        "secretName": cluster.spec.credentials_secret_name,
                        "items": [{"key": "slurm.key", "path": "slurm.key"}],
                        "defaultMode": 0o400,
                    },
                }
            ],
        },
    }


def _only_node(loan: NodeLoan) -> Json:
    """This node, and only while it carries the loan's label: a pod for a finished loan can never be bound."""
    return {
        "nodeSelectorTerms": [
            {
                "matchExpressions": [{"key": LOAN_LABEL, "operator": "In", "values": [loan.metadata.name]}],
                "matchFields": [{"key": "metadata.name", "operator": "In", "values": [loan.spec.node_name]}],
            }
        ]
    }

"""What a site does without Tidegate: one Deployment of slurmd pods that notebooks preempt."""

from __future__ import annotations

import base64
from types import TracebackType
from typing import Self

from e2e.kube import Json
from e2e.operator import wait_for
from e2e.stage import GPU, WORK, Stage, slurmd_template

APP = "slurmd"
PRIORITY_CLASS = "plain-slurmd"
PRIORITY = -100
SPARE_REPLICAS = 2
"""Replicas beyond what the nodes can run: an autoscaler that looks at waiting jobs asks for more than there is."""


class PlainSlurmd:
    """There while the context is open. Real slurmd: each pod registers its node, and Slurm runs jobs on it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def __enter__(self) -> Self:
        stage = self._stage
        key = base64.b64encode(stage.lab.slurm_key).decode()
        stage.kube.delete("secrets", APP, WORK)
        stage.kube.create("secrets", {"metadata": {"name": APP}, "data": {"slurm.key": key}}, WORK)
        body = {"metadata": {"name": PRIORITY_CLASS}, "value": PRIORITY, "preemptionPolicy": "Never"}
        stage.ensure("priorityclasses", body)
        stage.kube.create("deployments", _deployment(stage), WORK)
        nodes = len(stage.lab.workers)
        wait_for("all nodes in Slurm", lambda: len(self._idle_or_busy()) == nodes, 60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stage = self._stage
        stage.kube.delete("deployments", APP, WORK)
        stage.lab.slurm("scancel", "--user=alice", check=False)
        wait_for(
            "the end of the slurmd pods", lambda: not stage.kube.list("pods", WORK, labelSelector=f"app={APP}"), 60
        )
        wait_for("a Slurm without nodes", self._remove_nodes, 60, pause=1)
        stage.kube.delete("secrets", APP, WORK)
        stage.kube.delete("priorityclasses", PRIORITY_CLASS)

    def _idle_or_busy(self) -> list[str]:
        nodes = self._stage.slurm_nodes()
        return [name for name, node in nodes.items() if {"IDLE", "ALLOCATED", "MIXED"} & set(node["state"])]

    def _remove_nodes(self) -> bool:
        for name in self._stage.slurm_nodes():
            change = (f"nodename={name}", "state=down", "reason=plain slurmd ended")
            self._stage.lab.slurm("scontrol", "update", *change, check=False)
            self._stage.lab.slurm("scontrol", "delete", f"nodename={name}", check=False)
        return not self._stage.slurm_nodes()


def _deployment(stage: Stage) -> Json:
    labels, gpus = {"app": APP}, stage.lab.gpus_per_node
    offer = f"Feature={stage.lab.partition} Gres=gpu:{gpus} CPUs=2 RealMemory=1000"
    address = ["--conf-server", stage.lab.slurmctld_address]
    shared = slurmd_template()["spec"]
    container = {
        "name": "slurmd",
        "image": stage.lab.slurmd_image,
        "imagePullPolicy": "Never",
        "args": ["-D", "-Z", "-N", "$(NODE)", *address, "--conf", offer],
        "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "securityContext": {"privileged": True},
        "resources": {"limits": {GPU: str(gpus)}},
        "volumeMounts": [{"name": "key", "mountPath": "/run/slurm-key"}, *shared["containers"][0]["volumeMounts"]],
    }
    spec = {
        "hostNetwork": True,
        "priorityClassName": PRIORITY_CLASS,
        "terminationGracePeriodSeconds": 5,
        "containers": [container],
        "volumes": [{"name": "key", "secret": {"secretName": APP, "defaultMode": 0o400}}, *shared["volumes"]],
    }
    template = {"metadata": {"labels": labels}, "spec": spec}
    replicas = len(stage.lab.workers) + SPARE_REPLICAS
    return {
        "metadata": {"name": APP},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }

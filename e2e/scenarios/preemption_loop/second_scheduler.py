"""A second kube-scheduler on the control plane, such as JupyterHub brings one: the node's own program, another name."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Self

from e2e.kube import Json
from e2e.lab import Lab

SCHEDULER = "notebooks"
NAMESPACE = "kube-system"
POD = "notebooks-scheduler"
KUBECONFIG = "/etc/kubernetes/scheduler.conf"
CONFIGURATION = "/etc/notebooks/scheduler.yaml"
PORT = 10269
"""The first one has 10259 of the same host."""


class SecondScheduler:
    """There while the context is open. It serves pods whose `schedulerName` is `notebooks`, and preempts for them."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def __enter__(self) -> Self:
        self._take_away()
        for manifest in (self._config_map(), self._pod()):
            self._lab.kubectl("apply", "-f", "-", input=json.dumps(manifest))
        self._lab.kubectl("wait", "--for=condition=Ready", "--timeout=60s", f"--namespace={NAMESPACE}", f"pod/{POD}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._take_away()

    def _take_away(self) -> None:
        options = ("--ignore-not-found", "--grace-period=1", f"--namespace={NAMESPACE}")
        self._lab.kubectl("delete", f"pod/{POD}", f"configmap/{POD}", *options)

    def _config_map(self) -> Json:
        configuration = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "clientConnection": {"kubeconfig": KUBECONFIG},
            "leaderElection": {"leaderElect": False},
            "profiles": [{"schedulerName": SCHEDULER}],
        }
        metadata = {"name": POD, "namespace": NAMESPACE}
        # JSON is YAML
        data = {"scheduler.yaml": json.dumps(configuration)}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}

    def _pod(self) -> Json:
        node = self._lab.cluster.control_plane
        raw = self._lab.kubectl("get", "pod", f"kube-scheduler-{node}", f"--namespace={NAMESPACE}", "--output=json")
        first = json.loads(raw)["spec"]["containers"][0]
        container = {
            "name": "kube-scheduler",
            "image": first["image"],
            "imagePullPolicy": "Never",
            "command": [
                "kube-scheduler",
                f"--config={CONFIGURATION}",
                f"--authentication-kubeconfig={KUBECONFIG}",
                f"--authorization-kubeconfig={KUBECONFIG}",
                "--bind-address=127.0.0.1",
                f"--secure-port={PORT}",
            ],
            "readinessProbe": {
                "httpGet": {"host": "127.0.0.1", "path": "/readyz", "port": PORT, "scheme": "HTTPS"},
                "periodSeconds": 1,
            },
            "volumeMounts": [
                {"name": "kubeconfig", "mountPath": KUBECONFIG, "readOnly": True},
                {"name": "configuration", "mountPath": "/etc/notebooks", "readOnly": True},
            ],
        }
        spec = {
            "nodeName": node,
            "hostNetwork": True,
            "priorityClassName": "system-cluster-critical",
            "containers": [container],
            "volumes": [
                {"name": "kubeconfig", "hostPath": {"path": KUBECONFIG, "type": "File"}},
                {"name": "configuration", "configMap": {"name": POD}},
            ],
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD, "namespace": NAMESPACE}, "spec": spec}

"""What an InferenceService is made of: Deployment with a gate in each pod, Service, PodDisruptionBudget, warm claim.

Each function returns the whole object as it is applied from the server's side: what is not in it is not ours.
"""

from __future__ import annotations

from typing import Any

from tidegate.api import InferenceService, ModelSource
from tidegate.api.inference_service import InferenceServiceSpec, Preset, Server
from tidegate.api.names import API_VERSION, CLAIM_LABEL, FINGERPRINT, SERVICE_LABEL
from tidegate.cluster.pod_template import PodTemplate
from tidegate.sharing.inference import warm_claim_name

Json = dict[str, Any]

CONTAINER = "server"
GATE = "gate"
MODELS = "/models"
GATE_PORT = 8080
CONTROL_PORT = 8081
SERVER_PORT = 8000
STOP_SECONDS = 30
"""What a server gets to end after its last answer."""
PROGRESS_SECONDS = 3600
"""A replica that waits for a node and then loads a large model is slow, but not stuck."""
_IMAGES = {"vllm": "vllm/vllm-openai:latest", "llama.cpp": "ghcr.io/ggml-org/llama.cpp:server-cuda"}

# What scales, drains and places the replicas is ours.
_NOT_FOR_TEMPLATES = (
    "nodeName",
    "priority",
    "restartPolicy",
    "hostNetwork",
    "activeDeadlineSeconds",
    "schedulingGates",
)
_NOT_FOR_SERVERS = ("image", "imagePullPolicy", "command", "args", "lifecycle", "livenessProbe", "startupProbe")

_SAMPLE_IMAGE = "sample"


def deployment(service: InferenceService, replicas: int, gate_image: str, fingerprint: str) -> Json:
    """The replicas. Raises `ValueError` with the sentence of `template_problem`."""
    template = PodTemplate(
        f"InferenceService {service.metadata.namespace}/{service.metadata.name}",
        "spec.template",
        service.spec.template,
        CONTAINER,
    )
    _check(template)
    return {
        **_head(service, "apps/v1", "Deployment", service.metadata.name, fingerprint),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": selector(service)},
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": PROGRESS_SECONDS,
            # A new replica answers before an old one goes; the node for it is claimed like any other.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": template.under(_pod(service, gate_image)),
        },
    }


def front(service: InferenceService, fingerprint: str) -> Json:
    """The Service before the replicas' gates."""
    port = {"name": "http", "port": 80, "targetPort": GATE_PORT, "protocol": "TCP"}
    return {
        **_head(service, "v1", "Service", service.metadata.name, fingerprint),
        "spec": {"selector": selector(service), "ports": [port]},
    }


def budget(service: InferenceService, fingerprint: str) -> Json:
    """One replica at a time may be evicted; one that does not answer at any time."""
    return {
        **_head(service, "policy/v1", "PodDisruptionBudget", service.metadata.name, fingerprint),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector(service)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def warm_claim(service: InferenceService, nodes: int, fingerprint: str) -> Json:
    """The claim that holds nodes for the replicas of a burst."""
    spec: Json = {"poolName": service.spec.pool_name, "nodes": nodes}
    if service.spec.priority_class_name:
        spec["priorityClassName"] = service.spec.priority_class_name
    return {**_head(service, API_VERSION, "CapacityClaim", warm_claim_name(service), fingerprint), "spec": spec}


def selector(service: InferenceService) -> dict[str, str]:
    """The labels by which the replicas' pods are found."""
    return {SERVICE_LABEL: service.metadata.name}


def template_problem(service: InferenceService) -> str | None:
    """One sentence, which names the service and the field, why no replica can be made of it; None if one can."""
    try:
        deployment(service, 0, _SAMPLE_IMAGE, "")
    except ValueError as error:
        return str(error)
    return None


def _head(service: InferenceService, api_version: str, kind: str, name: str, fingerprint: str) -> Json:
    owner = {
        "apiVersion": service.api_version,
        "kind": service.kind,
        "name": service.metadata.name,
        "uid": service.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    labels = selector(service) | {"app.kubernetes.io/managed-by": "tidegate"}
    metadata: Json = {
        "name": name,
        "namespace": service.metadata.namespace,
        "labels": labels,
        "annotations": {FINGERPRINT: fingerprint},
        "ownerReferences": [owner],
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _check(template: PodTemplate) -> None:
    template.check(_NOT_FOR_TEMPLATES)
    for container in template.given.get("spec", {}).get("containers", []):
        if container["name"] == CONTAINER:
            for field in _NOT_FOR_SERVERS:
                where = f"spec.containers[{CONTAINER}].{field}"
                problem = "is not for templates, `server` or `preset` and Tidegate decide it; leave it out"
                template.need(field not in container, where, problem)


def _pod(service: InferenceService, gate_image: str) -> Json:
    spec, name = service.spec, service.metadata.name
    labels = selector(service)
    if spec.warm_replicas:
        labels[CLAIM_LABEL] = warm_claim_name(service)
    model = spec.model
    pod: Json = {
        # The server gets the whole drain, and then its own time to end.
        "terminationGracePeriodSeconds": spec.drain_seconds + STOP_SECONDS,
        "enableServiceLinks": False,
        "initContainers": [_gate(service, gate_image)],
        "containers": [_server(spec, name)],
    }
    if spec.priority_class_name:
        pod["priorityClassName"] = spec.priority_class_name
    volumes = []
    if model:
        volumes.append({"name": "model", **_volume(model)})
    if _shares_memory(spec):
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
    if volumes:
        pod["volumes"] = volumes
    # The drain is asked for at the server's end, and only who knows the token may ask.
    pod["containers"][0]["lifecycle"] = {
        "preStop": {
            "httpGet": {
                "path": "/drain",
                "port": CONTROL_PORT,
                "httpHeaders": [{"name": "Tidegate-Drain", "value": service.metadata.uid}],
            }
        }
    }
    return {"metadata": {"labels": labels}, "spec": pod}


def _gate(service: InferenceService, image: str) -> Json:
    """A sidecar that starts before the server and ends after it."""
    spec, question = service.spec, service.spec.readiness
    port = spec.server.port if spec.server else SERVER_PORT
    options = {
        "server-port": port,
        "port": GATE_PORT,
        "control-port": CONTROL_PORT,
        "path": question.path,
        "interval-seconds": question.interval_seconds,
        "timeout-seconds": question.timeout_seconds,
        "drain-seconds": spec.drain_seconds,
        **({"model": question.model} if question.model else {}),
    }
    return {
        "name": GATE,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "command": ["tidegate", "gate", *(f"--{name}={value}" for name, value in options.items())],
        "env": [{"name": "TIDEGATE_DRAIN_TOKEN", "value": service.metadata.uid}],
        "ports": [
            {"name": "http", "containerPort": GATE_PORT, "protocol": "TCP"},
            {"name": "control", "containerPort": CONTROL_PORT, "protocol": "TCP"},
        ],
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": CONTROL_PORT},
            "periodSeconds": 2,
            "timeoutSeconds": 2,
            "failureThreshold": 2,
        },
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        },
    }


def _server(spec: InferenceServiceSpec, name: str) -> Json:
    source = spec.server or spec.preset
    if source is None:
        raise ValueError("`server` or `preset` is needed")
    command, args = _words(source, spec, name)
    image = source.image or _IMAGES[source.name] if isinstance(source, Preset) else source.image
    container: Json = {"name": CONTAINER, "image": image, "imagePullPolicy": source.image_pull_policy}
    if command:
        container["command"] = command
    if args:
        container["args"] = args
    if source.env:
        container["env"] = list(source.env)
    if spec.gpus_per_replica:
        gpus = {spec.gpu_resource_name: str(spec.gpus_per_replica)}
        container["resources"] = {"requests": gpus, "limits": dict(gpus)}
    mounts: list[Json] = []
    if spec.model:
        mounts.append({"name": "model", "mountPath": MODELS, "readOnly": True})
    if _shares_memory(spec):
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108 - vLLM's own place
    if mounts:
        container["volumeMounts"] = mounts
    return container


def _words(source: Server | Preset, spec: InferenceServiceSpec, name: str) -> tuple[list[str], list[str]]:
    """Command and arguments. A preset listens to nobody but the gate."""
    if isinstance(source, Server):
        return list(source.command), list(source.args)
    path = f"{MODELS}/{spec.model.path}".rstrip("/") if spec.model else MODELS
    listen = ["--host", "127.0.0.1", "--port", str(SERVER_PORT)]
    if source.name == "llama.cpp":
        return [], ["--model", path, *listen, *source.args]
    gpus = ["--tensor-parallel-size", str(spec.gpus_per_replica)] if spec.gpus_per_replica > 1 else []
    return ["vllm", "serve", path], ["--served-model-name", name, *listen, *gpus, *source.args]


def _shares_memory(spec: InferenceServiceSpec) -> bool:
    """Whether the server's processes talk by shared memory, of which a container has 64 MiB."""
    return spec.preset is not None and spec.preset.name == "vllm"


def _volume(model: ModelSource) -> Json:
    if model.persistent_volume_claim:
        return {"persistentVolumeClaim": {"claimName": model.persistent_volume_claim, "readOnly": True}}
    if model.image:
        return {"image": {"reference": model.image.reference, "pullPolicy": model.image.pull_policy}}
    return dict(model.volume or {})

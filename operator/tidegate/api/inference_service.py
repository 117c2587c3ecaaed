"""InferenceService: replicas of a model server that scale without a failed request."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from tidegate.api.names import API_VERSION
from tidegate.api.resource import Metadata, Model, Status, cel

Text = Annotated[str, Field(max_length=4096)]
PullPolicy = Literal["Always", "IfNotPresent", "Never"]
_FREE_FORM: dict[str, Any] = {"x-kubernetes-preserve-unknown-fields": True}
_ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
_ARGS_DESCRIPTION = "Arguments of the server, after those that Tidegate gives it; the later one wins in most servers."


def _env() -> Any:
    return Field(
        default=(),
        description="Environment of the server, entries as in any container.",
        max_length=128,
        json_schema_extra={**_ATOMIC, "items": {"type": "object", **_FREE_FORM}},
    )


class Server(Model):
    """A model server of your own."""

    image: str = Field(description="The server's image.", min_length=1, max_length=512)
    image_pull_policy: PullPolicy = Field(default="IfNotPresent", description="As in any container.")
    command: tuple[Text, ...] = Field(
        default=(),
        description="The program, instead of the image's own.",
        max_length=64,
        json_schema_extra=_ATOMIC,
    )
    args: tuple[Text, ...] = Field(
        default=(), description="Arguments of the server.", max_length=256, json_schema_extra=_ATOMIC
    )
    env: tuple[dict[str, Any], ...] = _env()
    port: int = Field(
        default=8000,
        description="Where it listens for HTTP. Not 8080 and 8081, which the gate before it has.",
        ge=1,
        le=65535,
        json_schema_extra=cel(
            (
                "self != 8080 && self != 8081",
                "must not be 8080 or 8081, which the gate has; let the server listen elsewhere",
            )
        ),
    )


class Preset(Model):
    """A well-known model server with the arguments that it needs."""

    name: Literal["vllm", "llama.cpp"] = Field(
        description="`vllm` (`vllm serve`, over all GPUs of a replica) or `llama.cpp` (its `llama-server`)."
    )
    image: str | None = Field(
        default=None,
        description="Instead of the project's own image; name one with a version to know what runs.",
        min_length=1,
        max_length=512,
    )
    image_pull_policy: PullPolicy = Field(default="IfNotPresent", description="As in any container.")
    args: tuple[Text, ...] = Field(default=(), description=_ARGS_DESCRIPTION, max_length=256, json_schema_extra=_ATOMIC)
    env: tuple[dict[str, Any], ...] = _env()


class ModelImage(Model):
    """An image (OCI artifact) that holds the model's files."""

    reference: str = Field(description="The image.", min_length=1, max_length=512)
    pull_policy: PullPolicy = Field(default="IfNotPresent", description="As in any image volume.")


class ModelSource(Model):
    """Where the model's files are. They are mounted at `/models`, read-only."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "[has(self.persistentVolumeClaim), has(self.image), has(self.volume)].filter(given, given).size() == 1",
                "say one of `persistentVolumeClaim`, `image` and `volume`",
            )
        )
    )

    persistent_volume_claim: str | None = Field(
        default=None,
        description="A PersistentVolumeClaim in the namespace; all replicas read it.",
        min_length=1,
        max_length=253,
    )
    image: ModelImage | None = Field(default=None, description="An image (OCI artifact) that holds the model's files.")
    volume: dict[str, Any] | None = Field(
        default=None,
        description="Any other volume, as in a pod but without `name`, such as `hostPath` or `nfs`.",
        json_schema_extra=_FREE_FORM,
    )
    path: str = Field(
        default="",
        description="The model within the volume: a directory or a file.",
        max_length=1024,
        json_schema_extra=cel(
            (
                "!self.startsWith('/') && !self.contains('..')",
                "must be a path within the volume, such as `tiny/model.gguf`",
            )
        ),
    )


class ReadinessQuestion(Model):
    """How a replica proves that it works: by generating one token."""

    path: Literal["/v1/completions", "/v1/chat/completions"] = Field(
        default="/v1/completions", description="Where the token is asked for."
    )
    model: str | None = Field(
        default=None,
        description="The model's name; the first that the server lists when absent.",
        min_length=1,
        max_length=253,
    )
    interval_seconds: int = Field(
        default=10,
        description="A token proves for this long that more will come. Those of users count, too; without any "
        "Tidegate asks for one.",
        ge=1,
        le=3600,
    )
    timeout_seconds: int = Field(
        default=30,
        description="A replica that generates no token for this long gets no more requests until it does.",
        ge=1,
        le=600,
    )


class InferenceServiceSpec(Model):
    """The server, its model, and how many replicas of which size."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("has(self.server) != has(self.preset)", "say either `server` or `preset`"),
            ("!has(self.preset) || has(self.model)", "a `preset` needs a `model`"),
            (
                "self.minReplicas <= self.maxReplicas",
                "`minReplicas` must not be above `maxReplicas`: raise `maxReplicas`, or lower `minReplicas`",
            ),
            (
                "self.warmReplicas == 0 || has(self.poolName)",
                "`warmReplicas` are held in a BatchPool: name it in `poolName`",
            ),
            (
                "self.warmReplicas == 0 || self.gpusPerReplica > 0",
                "`warmReplicas` hold nodes with GPUs: set `gpusPerReplica`",
            ),
        )
    )

    server: Server | None = Field(default=None, description="A model server of your own.")
    preset: Preset | None = Field(
        default=None, description="A well-known model server with the arguments that it needs."
    )
    model: ModelSource | None = Field(
        default=None, description="Where the model's files are; absent when the server's image has them."
    )
    gpus_per_replica: int = Field(default=1, description="GPUs of each replica.", ge=0, le=64)
    gpu_resource_name: str = Field(
        default="nvidia.com/gpu", description="The extended resource that counts as GPU.", min_length=1, max_length=253
    )
    replicas: int = Field(
        default=1,
        description="How many replicas are wanted now, within `minReplicas` and `maxReplicas`. Leave it away where an "
        "autoscaler drives the service: it writes here.",
        ge=0,
        le=1000,
    )
    min_replicas: int = Field(default=1, description="Never fewer replicas than this.", ge=0, le=1000)
    max_replicas: int = Field(default=1, description="Never more replicas than this.", ge=1, le=1000)
    warm_replicas: int = Field(
        default=0,
        description="Room that is held for this many more replicas, so that a burst starts at once. It shrinks as "
        "`replicas` come near `maxReplicas`. Switching it on or off replaces the replicas.",
        ge=0,
        le=100,
    )
    pool_name: str | None = Field(
        default=None,
        description="The BatchPool whose nodes `warmReplicas` hold.",
        min_length=1,
        max_length=253,
    )
    priority_class_name: str | None = Field(
        default=None,
        description="PriorityClass of the replicas, and so of what is claimed for them.",
        min_length=1,
        max_length=253,
    )
    readiness: ReadinessQuestion = Field(
        default=ReadinessQuestion(), description="How a replica proves that it works: by generating one token."
    )
    drain_seconds: int = Field(
        default=120,
        description="A replica that ends gets no new requests and has this long to answer those it has.",
        ge=5,
        le=3600,
    )
    template: dict[str, Any] = Field(
        default_factory=dict,
        description="Optional pod template (metadata and spec) that is laid under ours: resources, tolerations, "
        "volumes, service account. Its container named `server` is merged with ours.",
        json_schema_extra=_FREE_FORM,
    )


class InferenceServiceStatus(Status):
    """How many replicas there are.

    Conditions: `Available` (somebody answers) and `Progressing` (there is not yet what is wanted, and why).
    """

    replicas: int = Field(default=0, description="Replicas that exist.", ge=0)
    ready_replicas: int = Field(default=0, description="Replicas that answer.", ge=0)
    selector: str = Field(
        default="", description="Label selector of the replicas' pods, for autoscalers.", max_length=512
    )


class InferenceService(Model):
    """Replicas of a model server with a Service before them; nodes come back from Slurm when they grow.

    Tidegate makes a Deployment, a Service (port 80), a PodDisruptionBudget and, for `warmReplicas`, a CapacityClaim.
    """

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "size(self.metadata.name) <= 58 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                "`metadata.name` must be the name of a Service: at most 58 letters, digits and `-`, a letter first",
            )
        )
    )

    api_version: Literal["tidegate.dev/v1alpha1"] = API_VERSION
    kind: Literal["InferenceService"] = "InferenceService"
    metadata: Metadata
    spec: InferenceServiceSpec
    status: InferenceServiceStatus = InferenceServiceStatus()

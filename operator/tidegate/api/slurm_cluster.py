"""SlurmCluster: a Slurm that Tidegate may lend nodes to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from tidegate.api.names import API_VERSION
from tidegate.api.resource import Metadata, Model, Status, cel


class JobPriority(Model):
    """What the jobs of a partition or a QOS are worth on the one number line that PriorityClasses are on."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.partition) || has(self.qos)",
                "must name a `partition` or a `qos`, or both: the jobs that have this priority",
            )
        )
    )

    partition: str | None = Field(
        default=None, description="Jobs of this partition. Any partition when absent.", min_length=1, max_length=64
    )
    qos: str | None = Field(
        default=None, description="Jobs of this QOS. Any QOS when absent.", min_length=1, max_length=64
    )
    priority: int = Field(
        description="Their priority, to be compared with the values of PriorityClasses: only claims of a strictly "
        "higher one recall the nodes on which such jobs run, and where the pool's `lending.preemption` allows it, "
        "such jobs take nodes from pods of strictly lower ones.",
        ge=-1000000000,
        le=1000000000,
    )


class SlurmClusterSpec(Model):
    """Where Slurm is and how Tidegate proves who it is."""

    endpoint: str = Field(
        description="Address of slurmrestd, such as `https://slurmrestd.example:6820`, without a path. "
        "With https the certificate is verified, against `ca.crt` of the credentials Secret where it has one.",
        min_length=8,
        max_length=253,
        json_schema_extra=cel(
            (
                "self.matches('^https?://[^/?#@ ]+$')",
                "must be the address of slurmrestd without path and user, such as `https://slurmrestd.example:6820`",
            )
        ),
    )
    credentials_secret_name: str = Field(
        description="Secret in the operator's namespace. It has `jwt_hs256.key` (the key of auth/jwt, short-lived "
        "tokens are minted from it) or `token` (a ready token, re-read when it changes); `slurm.key` (the key of "
        "auth/slurm, mounted into slurmd pods); and `ca.crt` where slurmrestd's certificate needs it.",
        min_length=1,
        max_length=253,
    )
    user: str = Field(
        default="slurm",
        description="The Slurm user that tokens are minted for. It needs the right to change nodes: SlurmUser, "
        "or accounting level Administrator.",
        min_length=1,
        max_length=64,
    )
    controller_address: str = Field(
        description="Where slurmd pods find slurmctld, as `host:port`, such as `slurm.example:6817`.",
        min_length=3,
        max_length=253,
        json_schema_extra=cel(
            (
                "self.matches('^[^/:@ ]+:[0-9]{1,5}$')",
                "must be host and port of slurmctld, such as `slurm.example:6817`",
            )
        ),
    )
    poll_seconds: int = Field(
        default=5,
        description="How often Slurm is asked while nothing changes hands there, in seconds. "
        "While a node changes hands it is asked several times a second.",
        ge=1,
        le=60,
    )
    priorities: tuple[JobPriority, ...] = Field(
        default=(),
        description="How important jobs are, by partition or QOS; of several entries that fit a job the highest "
        "counts. A job that none fits is as important as its pool says.",
        max_length=64,
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )


class SlurmClusterStatus(Status):
    """What Slurm answered. Condition `Ready`: it answers, knows our token and speaks a common version."""

    release: str | None = Field(default=None, description="Release of slurmrestd, such as `24.11.5`.", max_length=32)
    data_parser: str | None = Field(
        default=None, description="The REST version in use: the newest that both sides know.", max_length=32
    )
    capabilities: tuple[Annotated[str, Field(max_length=32)], ...] = Field(
        default=(),
        description="What this Slurm can do beyond the common ground, such as `requeue`.",
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


class SlurmCluster(Model):
    """A Slurm cluster that BatchPools lend nodes to: its REST endpoint, credentials, and whether it answers."""

    api_version: Literal["tidegate.dev/v1alpha1"] = API_VERSION
    kind: Literal["SlurmCluster"] = "SlurmCluster"
    metadata: Metadata
    spec: SlurmClusterSpec
    status: SlurmClusterStatus = SlurmClusterStatus()

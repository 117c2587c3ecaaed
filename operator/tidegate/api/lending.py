"""On which terms a pool lends: how many nodes, how long they idle before, and at which times other terms hold."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from tidegate.api.resource import Model, Time, cel

LendingPolicy = Literal["DemandDriven", "Eager"]


class Headroom(Model):
    """Free nodes that are kept for Kubernetes. Two marks, because a single one makes nodes flap."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("self.low <= self.high", "`low` must not be above `high`: raise `high`, or lower `low` to at most `high`")
        )
    )

    low: int = Field(default=0, description="With fewer free nodes than this, loans are recalled.", ge=0, le=10000)
    high: int = Field(
        default=0, description="A node is lent only while more free nodes than this remain.", ge=0, le=10000
    )


class FlapBudget(Model):
    """How often one node may change hands."""

    loans: int = Field(default=6, description="Most loans of one node that may start within the window.", ge=1, le=100)
    window_seconds: int = Field(default=3600, description="Length of the sliding window.", ge=60, le=86400)


class KubernetesSide(Model):
    """How many nodes of the pool are Kubernetes' own: used by GPU pods, free for them, or held for claims."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.cap) || self.floor <= self.cap",
                "`floor` must not be above `cap`: raise `cap`, leave it away for no limit, or lower `floor`",
            )
        )
    )

    floor: int = Field(
        default=0,
        description="No node is lent that would leave Kubernetes with fewer than this; when it has fewer, loans "
        "are recalled.",
        ge=0,
        le=10000,
    )
    cap: int | None = Field(
        default=None,
        description="Claims and headroom recall loans only while Kubernetes has fewer nodes than this, so that the "
        "rest of the lent nodes stays with Slurm; no limit when absent.",
        ge=0,
        le=10000,
    )


class Window(Model):
    """A time at which some of the terms are others. What it leaves away is as in the pool."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.policy) || has(self.floor) || has(self.cap) || has(self.headroom) || has(self.kubernetes)",
                "must change something: give it `policy`, `floor`, `cap`, `headroom` or `kubernetes`",
            ),
        )
    )

    schedule: str = Field(
        description="When it opens, as five cron fields: minute, hour, day of month, month, day of week. "
        "`0 8 * * 1-5` is 8:00 from Monday to Friday.",
        min_length=9,
        max_length=128,
        json_schema_extra=cel(
            (
                "self.matches('^[0-9A-Za-z*,/#-]+( +[0-9A-Za-z*,/#-]+){4}$')",
                "must be five cron fields (minute, hour, day of month, month, day of week), such as `0 8 * * 1-5`",
            )
        ),
    )
    duration_seconds: int = Field(description="How long it stays open.", ge=60, le=604800)
    time_zone: str = Field(
        default="UTC",
        description="The IANA time zone of the schedule, such as `Europe/Berlin`. Summer time is as in cron: what "
        "falls into the hour that is left out opens right after it, what falls into the hour that comes twice opens "
        "once.",
        min_length=1,
        max_length=64,
        json_schema_extra=cel(
            (
                "self.matches('^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$')",
                "must be an IANA time zone, such as `Europe/Berlin`",
            )
        ),
    )
    policy: LendingPolicy | None = Field(default=None, description="Replaces `lending.policy`.")
    floor: int | None = Field(default=None, description="Replaces `lending.floor`.", ge=0, le=10000)
    cap: int | None = Field(default=None, description="Replaces `lending.cap`.", ge=0, le=10000)
    headroom: Headroom | None = Field(default=None, description="Replaces `lending.headroom`, both marks.")
    kubernetes: KubernetesSide | None = Field(
        default=None, description="Replaces `lending.kubernetes`, both `floor` and `cap`."
    )


class OpenWindow(Model):
    """The window whose terms hold."""

    number: int = Field(description="Its place in `lending.windows`; the first one is 0.", ge=0, le=15)
    schedule: str = Field(description="Its schedule.", max_length=128)
    opened: Time = Field(description="When it opened.")
    closes: Time = Field(description="When it closes, unless its schedule opens it again before.")


class Lending(Model):
    """When nodes are lent and when they go home by themselves."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.cap) || self.floor <= self.cap",
                "`floor` must not be above `cap`: raise `cap`, leave it away for no limit, or lower `floor`",
            ),
            (
                "!has(self.kubernetes.cap) || self.headroom.low <= self.kubernetes.cap",
                "`headroom.low` must not be above `kubernetes.cap`: so many free nodes could never be had",
            ),
            (
                "self.windows.all(w, (has(w.floor) ? w.floor : self.floor) "
                "<= (has(w.cap) ? w.cap : has(self.cap) ? self.cap : 10000))",
                "in each window, with what it takes from the pool, `floor` must not be above `cap`",
            ),
            (
                "self.windows.all(w, (has(w.headroom) ? w.headroom.low : self.headroom.low) <= (has(w.kubernetes) "
                "? (has(w.kubernetes.cap) ? w.kubernetes.cap : 10000) "
                ": has(self.kubernetes.cap) ? self.kubernetes.cap : 10000))",
                "in each window, with what it takes from the pool, `headroom.low` must not be above `kubernetes.cap`",
            ),
        )
    )

    policy: LendingPolicy = Field(
        default="DemandDriven",
        description="`DemandDriven` lends as many nodes as pending jobs of the partition could use; "
        "`Eager` lends all idle ones.",
    )
    idle_seconds: int = Field(
        default=600,
        description="A node is idle when no pod had a GPU of it, and no claim the node, for this long.",
        ge=1,
        le=86400,
    )
    idle_return_seconds: int = Field(
        default=300,
        description="With `DemandDriven`, a lent node that ran nothing for this long goes home, "
        "unless a pending job could use it.",
        ge=1,
        le=86400,
    )
    floor: int = Field(default=0, description="This many nodes are lent even without demand.", ge=0, le=10000)
    cap: int | None = Field(
        default=None, description="Never more nodes than this are lent; no limit when absent.", ge=0, le=10000
    )
    headroom: Headroom = Field(
        default=Headroom(),
        description="Free nodes that are kept for Kubernetes. Two marks, because a single one makes nodes flap.",
    )
    max_joining: int = Field(default=10, description="Most nodes that join at the same time.", ge=1, le=1000)
    join_seconds: int = Field(
        default=300,
        description="A node that has not joined Slurm by then (image pull included) goes back.",
        ge=5,
        le=3600,
    )
    preemption: Literal["Never", "LowerPriority"] = Field(
        default="Never",
        description="`LowerPriority`: pending jobs that the SlurmCluster's `priorities` name take nodes from pods of "
        "strictly lower priority, by the Eviction API, where PodDisruptionBudgets and do-not-disrupt annotations "
        "allow it. `Never`: nodes are lent only when no GPU pod is on them.",
    )
    eviction_seconds: int = Field(
        default=300,
        description="With `LowerPriority`, a node whose pods could not be evicted by then goes back. "
        "Pods that may take longer to end are not evicted at all.",
        ge=1,
        le=86400,
    )
    flap_budget: FlapBudget = Field(
        default=FlapBudget(), description="How often one node may change hands; beyond that it is left out for a while."
    )
    kubernetes: KubernetesSide = Field(
        default=KubernetesSide(), description="The fewest nodes that Kubernetes keeps, and the most it takes back."
    )
    windows: tuple[Window, ...] = Field(
        default=(),
        description="Times at which other terms hold, such as more headroom during office hours. "
        "Of several that are open the first one counts.",
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )

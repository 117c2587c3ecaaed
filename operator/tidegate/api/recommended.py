"""What a pool with `mode: Recommend` would have done: the nodes that would be Slurm's now, and totals."""

from __future__ import annotations

from pydantic import Field

from tidegate.api.resource import Model, Time

MOST_RECOMMENDED = 1000
"""Nodes that the status lists at most; beyond that no more are recommended."""


class RecommendedNode(Model):
    """A node that would be Slurm's."""

    name: str = Field(description="The node.", min_length=1, max_length=253)
    since: Time = Field(description="Since when it would be lent.")
    useless_since: Time | None = Field(
        default=None, description="Since when no pending job could use it; absent while one could."
    )


class Recommended(Model):
    """What would be lent now, and what would have been done since the mode was set."""

    since: Time = Field(description="When this began. Everything starts anew when the mode is changed.")
    nodes: tuple[RecommendedNode, ...] = Field(
        default=(),
        description="Nodes that would be Slurm's.",
        max_length=MOST_RECOMMENDED,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    lends: int = Field(default=0, description="How many times a node would have been lent.", ge=0)
    recalls: int = Field(default=0, description="How many times one would have been taken back.", ge=0)
    node_seconds: int = Field(
        default=0, description="For how long Slurm would have had nodes, until `countedUntil`.", ge=0
    )
    counted_until: Time = Field(description="When `nodeSeconds` was last brought up to date.")

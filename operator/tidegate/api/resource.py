"""What every Tidegate resource has: metadata, conditions, and how its models read and write Kubernetes JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel


def rfc3339(moment: datetime) -> str:
    """A moment as RFC 3339 in UTC with microseconds (metav1.MicroTime)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def cel(*rules: tuple[str, str]) -> dict[str, Any]:
    """Schema keys by which the API server refuses what breaks a rule: pairs of CEL and of what to write instead."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules]}


FITS_LABEL = (
    "size(self.metadata.name) <= 63",
    "`metadata.name` must be no longer than 63 characters: it is also the value of a label",
)
"""A rule for resources whose name is written into labels and taints."""

Time = Annotated[datetime, PlainSerializer(rfc3339, return_type=str, when_used="json")]
"""A moment, written by `rfc3339`."""


class Model(BaseModel):
    """Base of all parts: camelCase on the wire, immutable, and unknown fields of a newer release are ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    def but(self, **changes: Any) -> Self:
        """The same with these values; itself where it has them already, which costs next to nothing."""
        same = all(getattr(self, name) == value for name, value in changes.items())
        return self if same else self.model_copy(update=changes)

    def to_json(self) -> dict[str, Any]:
        """The part as Kubernetes JSON: camelCase, without fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Condition(Model):
    """One observation about the object, as metav1.Condition."""

    type: str = Field(description="Name of the condition, such as `Fenced`.", min_length=1, max_length=316)
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(
        description="One CamelCase word for programs.",
        min_length=1,
        max_length=128,
        pattern="^[A-Za-z]([A-Za-z0-9_]*)$",
    )
    message: str = Field(default="", description="One sentence for people.", max_length=1024)
    last_transition_time: Time = Field(description="When `status` last changed.")
    observed_generation: int | None = Field(
        default=None, description="The generation of the object that was looked at.", ge=0
    )


class OwnerReference(Model):
    """The object that this one goes away with."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class Metadata(Model):
    """The part of metav1.ObjectMeta that Tidegate reads or writes."""

    name: str
    namespace: str | None = None
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()


class Status(Model):
    """Base of every status: the conditions, keyed by type."""

    observed_generation: int | None = Field(
        default=None, description="The generation of the spec that this status speaks of.", ge=0
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        description="What was observed, one entry for each type.",
        max_length=24,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )

    def condition(self, type_: str) -> Condition | None:
        """The condition of that type, or None while nothing was said."""
        for condition in self.conditions:
            if condition.type == type_:
                return condition
        return None

    def is_true(self, type_: str) -> bool:
        """Whether the condition of that type says True."""
        condition = self.condition(type_)
        return condition is not None and condition.status == "True"

    def since(self, type_: str) -> datetime | None:
        """When the condition of that type last changed its status, or None while nothing was said."""
        condition = self.condition(type_)
        return condition.last_transition_time if condition else None

    def with_condition(
        self,
        now: datetime,
        type_: str,
        status: bool | None,
        reason: str,
        message: str = "",
        generation: int | None = None,
    ) -> Self:
        """A copy that says so; `last_transition_time` moves only when the status flips. None means Unknown."""
        word: Literal["True", "False", "Unknown"] = "Unknown" if status is None else "True" if status else "False"
        old = self.condition(type_)
        news = (word, reason, message[:1024], generation)
        if old and (old.status, old.reason, old.message, old.observed_generation) == news:
            return self
        moment = old.last_transition_time if old and old.status == word else now
        new = Condition(
            type=type_,
            status=word,
            reason=reason,
            message=message[:1024],
            last_transition_time=moment,
            observed_generation=generation,
        )
        said = tuple(new if condition is old else condition for condition in self.conditions)
        return self.model_copy(update={"conditions": said if old else (*said, new)})

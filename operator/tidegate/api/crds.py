"""Writes the CustomResourceDefinitions from the models.

Kubernetes takes structural schemas, pydantic writes JSON Schema: references are put in place, Optional becomes a field
that may be left away, and what has no structural form is refused here instead of being dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from tidegate.api.batch_pool import BatchPool
from tidegate.api.capacity_claim import CapacityClaim
from tidegate.api.inference_service import InferenceService
from tidegate.api.names import GROUP, VERSION
from tidegate.api.node_loan import NodeLoan
from tidegate.api.resource import Model
from tidegate.api.slurm_cluster import SlurmCluster

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """What `kubectl get` shows of each object; a wide one only with `-o wide`."""

    name: str
    path: str
    type: Literal["string", "integer", "boolean", "date"] = "string"
    wide: bool = False

    def to_json(self) -> Schema:
        """The column as additionalPrinterColumns has it."""
        return {"name": self.name, "type": self.type, "jsonPath": self.path, "priority": int(self.wide)}


@dataclass(frozen=True, slots=True)
class Resource:
    """What a model does not say about its resource."""

    model: type[Model]
    plural: str
    short_name: str
    scope: Literal["Cluster", "Namespaced"]
    columns: tuple[Column, ...]
    scales: bool = False
    """Whether autoscalers may drive it: `spec.replicas`, `status.replicas` and `status.selector` are theirs."""


def _condition(type_: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{type_}")].{field}'


_READY = Column("Ready", _condition("Ready", "status"))
_WHY_NOT_READY = Column("Message", _condition("Ready", "message"), wide=True)
_AGE = Column("Age", ".metadata.creationTimestamp", "date")

RESOURCES = (
    Resource(
        SlurmCluster,
        "slurmclusters",
        "slc",
        "Cluster",
        (
            Column("Endpoint", ".spec.endpoint"),
            Column("Release", ".status.release"),
            _READY,
            _WHY_NOT_READY,
            _AGE,
        ),
    ),
    Resource(
        BatchPool,
        "batchpools",
        "bpool",
        "Cluster",
        (
            Column("Cluster", ".spec.slurmClusterName"),
            Column("Partition", ".spec.partition"),
            Column("Policy", ".spec.lending.policy"),
            Column("Kubernetes", ".status.nodes.kubernetes", "integer"),
            Column("Joining", ".status.nodes.joining", "integer"),
            Column("Lent", ".status.nodes.lent", "integer"),
            Column("Returning", ".status.nodes.returning", "integer"),
            Column("Claimed", ".status.nodes.claimed", "integer"),
            Column("Demand", ".status.demandNodes", "integer"),
            _READY,
            Column("Mode", ".spec.mode", wide=True),
            Column("Stop", ".spec.stopPolicy", wide=True),
            _WHY_NOT_READY,
            _AGE,
        ),
    ),
    Resource(
        NodeLoan,
        "nodeloans",
        "nl",
        "Cluster",
        (
            Column("Node", ".spec.nodeName"),
            Column("Pool", ".spec.poolName"),
            Column("State", ".status.state"),
            Column("Wanted", ".spec.wanted"),
            Column("For", ".spec.back.claim.name"),
            Column("Priority", ".status.priority", "integer"),
            Column("Message", ".status.message", wide=True),
            _AGE,
        ),
    ),
    Resource(
        CapacityClaim,
        "capacityclaims",
        "cclaim",
        "Namespaced",
        (
            Column("Pool", ".spec.poolName"),
            Column("Nodes", ".status.wantedNodes", "integer"),
            Column("Held", ".status.heldNodes", "integer"),
            Column("Priority", ".status.priority", "integer"),
            Column("Satisfied", _condition("Satisfied", "status")),
            Column("Reason", _condition("Satisfied", "reason")),
            Column("GPUs", ".spec.gpus", "integer", wide=True),
            Column("Gang", ".spec.gang", "boolean", wide=True),
            Column("Starts", ".spec.startTime", wide=True),
            Column("Started", ".status.started", "date", wide=True),
            Column("Message", _condition("Satisfied", "message"), wide=True),
            _AGE,
        ),
    ),
    Resource(
        InferenceService,
        "inferenceservices",
        "tisvc",
        "Namespaced",
        (
            Column("Wanted", ".spec.replicas", "integer"),
            Column("Replicas", ".status.replicas", "integer"),
            Column("Ready", ".status.readyReplicas", "integer"),
            Column("Min", ".spec.minReplicas", "integer"),
            Column("Max", ".spec.maxReplicas", "integer"),
            Column("Available", _condition("Available", "status")),
            Column("Progressing", _condition("Progressing", "reason")),
            Column("Message", _condition("Progressing", "message"), wide=True),
            _AGE,
        ),
        scales=True,
    ),
)
"""Short names keep clear of those that Cluster API (cc), KubeBlocks (bp) and KServe (isvc) use."""


class _Plain(yaml.SafeDumper):
    """Writes what comes twice twice: people read it, and not every reader knows YAML's aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write(folder: Path) -> list[Path]:
    """Write one file for each resource, `<plural>.yaml`, and say which."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for resource in RESOURCES:
        path = folder / f"{resource.plural}.yaml"
        text = yaml.dump(definition(resource), Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)
        path.write_text("# Written by `make crds` from the models in operator/tidegate/api; change those.\n" + text)
        paths.append(path)
    return paths


def definition(resource: Resource) -> Schema:
    """The CustomResourceDefinition of a resource."""
    kind = resource.model.__name__
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{resource.plural}.{GROUP}",
            # uninstalling the chart must not delete the loans that say who owns which node
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": GROUP,
            "scope": resource.scope,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": resource.plural,
                "singular": kind.lower(),
                "shortNames": [resource.short_name],
                "categories": ["tidegate"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}, **({"scale": _SCALE} if resource.scales else {})},
                    "additionalPrinterColumns": [column.to_json() for column in resource.columns],
                    "schema": {"openAPIV3Schema": schema_of(resource.model)},
                }
            ],
        },
    }


_SCALE = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}


def schema_of(model: type[Model]) -> Schema:
    """The structural schema of a resource. Its status has no defaults: what is absent was not seen yet."""
    written = model.model_json_schema(by_alias=True)
    pieces = _Pieces(written.pop("$defs"))
    properties: Schema = written.pop("properties")
    spec = pieces.structural(properties["spec"], "spec")
    status = _without_defaults(pieces.structural(properties["status"], "status"))
    root = pieces.structural(written | {"properties": {}}, kind := model.__name__)
    root["required"] = ["spec"]
    root["properties"] = {
        "apiVersion": {"description": f"`{GROUP}/{VERSION}`.", "type": "string"},
        "kind": {"description": f"`{kind}`.", "type": "string"},
        "metadata": {"type": "object"},
        "spec": spec,
        "status": status,
    }
    return root


class SchemaError(ValueError):
    """A model says something that has no structural form."""


_KEPT = (
    "description",
    "type",
    "format",
    "enum",
    "default",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
    "properties",
    "additionalProperties",
    "items",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
)
"""Keys of a structural schema, in the order in which they are written."""


class _Pieces:
    """The named parts that pydantic's references point to."""

    def __init__(self, definitions: dict[str, Schema]) -> None:
        self._definitions = definitions

    def structural(self, given: Schema, path: str, inside: tuple[str, ...] = ()) -> Schema:
        """The schema with nothing but what Kubernetes knows. `inside` names the references that led here."""
        schema = {key: value for key, value in given.items() if key != "title"}
        if reference := schema.pop("$ref", None):
            name = reference.removeprefix("#/$defs/")
            if name in inside:
                raise SchemaError(
                    f"{path}: {name} contains itself, which no structural schema can say; name it instead"
                )
            return self.structural(self._definitions[name] | schema, path, (*inside, name))
        if "anyOf" in schema:
            return self.structural(_without_null(schema, path), path, inside)
        if "const" in schema:
            schema["enum"] = [schema.pop("const")]
        if schema.get("x-kubernetes-preserve-unknown-fields") and schema.get("additionalProperties") is True:
            del schema["additionalProperties"]
        if unknown := sorted(set(schema) - set(_KEPT)):
            raise SchemaError(f"{path}: pydantic wrote {', '.join(unknown)}, which has no structural form")

        if "description" in schema:
            schema["description"] = " ".join(schema["description"].split())
        if "properties" in schema:
            schema["properties"] = {
                name: self.structural(part, f"{path}.{name}", inside) for name, part in schema["properties"].items()
            }
        if "items" in schema:
            schema["items"] = self.structural(schema["items"], f"{path}[]", inside)
        if "additionalProperties" in schema:
            schema["additionalProperties"] = self.structural(schema["additionalProperties"], f"{path}{{}}", inside)
        value = schema.pop("default", None)
        return _default(_ordered(schema), value)


def _without_null(schema: Schema, path: str) -> Schema:
    """An Optional is the thing itself, and may be left away."""
    others: list[Schema] = [choice for choice in schema["anyOf"] if choice != {"type": "null"}]
    if len(others) != 1:
        raise SchemaError(f"{path}: a choice of {len(others)} types has no structural form; use one field for each")
    return others[0] | {key: value for key, value in schema.items() if key != "anyOf"}


def _default(schema: Schema, value: Any) -> Schema:
    """The schema with that default; None is none.

    The default of an object is also the default of its fields: who writes half of the object gets the rest. (The object
    itself could do with `{}`, but the API server checks the rules on the default as it stands.)
    """
    if value is None:
        return schema
    if "properties" not in schema:
        return _ordered(schema | {"default": value})
    value = _without_nones(value)
    properties = {name: _default(part, value.get(name)) for name, part in schema["properties"].items()}
    if lacking := [name for name in schema.get("required", ()) if name not in value]:
        raise SchemaError(f"a default leaves {', '.join(lacking)} away, which is required")
    rest = {key: part for key, part in schema.items() if key != "required"}
    return _ordered(rest | {"default": value, "properties": properties})


def _without_nones(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_nones(part) for key, part in value.items() if part is not None}


def _without_defaults(schema: Schema) -> Schema:
    bare = {key: value for key, value in schema.items() if key != "default"}
    if "properties" in bare:
        bare["properties"] = {name: _without_defaults(part) for name, part in bare["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in bare:
            bare[key] = _without_defaults(bare[key])
    return bare


def _ordered(schema: Schema) -> Schema:
    return {key: schema[key] for key in _KEPT if key in schema}

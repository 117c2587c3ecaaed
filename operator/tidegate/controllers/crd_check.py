"""Refuse to start on CustomResourceDefinitions that are older than this operator: fields would be lost silently."""

from __future__ import annotations

from typing import Any

from tidegate import __version__
from tidegate.api import BatchPool, CapacityClaim, InferenceService, Model, NodeLoan, SlurmCluster
from tidegate.api.names import API_VERSION
from tidegate.cluster.client import KubeClient
from tidegate.cluster.errors import KubeError, NotFound

_KINDS: tuple[type[Model], ...] = (SlurmCluster, BatchPool, NodeLoan, CapacityClaim, InferenceService)


class CrdsOutdatedError(KubeError):
    """The CustomResourceDefinitions in the cluster lack something that this release needs."""


async def check_crds(kube: KubeClient) -> None:
    """Compare the API server's own schema of our group with the models. Raises `CrdsOutdatedError`."""
    try:
        document = await kube.openapi(API_VERSION)
    except NotFound:
        raise CrdsOutdatedError(404, f"The cluster does not know {API_VERSION}: {_remedy()}") from None
    schemas = document.get("components", {}).get("schemas", {})
    for model in _KINDS:
        schema = next((s for name, s in schemas.items() if name.endswith(f".{model.__name__}")), None)
        if schema is None:
            raise CrdsOutdatedError(404, f"The cluster does not know the kind {model.__name__}: {_remedy()}")
        lacking = missing_field(model.model_json_schema(by_alias=True), schema)
        if lacking:
            raise CrdsOutdatedError(
                409, f"The CRD of {model.__name__} in the cluster lacks the field {lacking}: {_remedy()}"
            )


def missing_field(ours: dict[str, Any], theirs: dict[str, Any]) -> str | None:
    """The first field of our schema (spec and status) that theirs lacks, such as `spec.lending.floor`, or None."""
    definitions = ours.get("$defs", {})

    def search(mine: dict[str, Any], other: dict[str, Any], path: str) -> str | None:
        mine = _resolved(mine, definitions)
        if "items" in mine:
            return search(mine["items"], other.get("items", {}), f"{path}[]")
        there = other.get("properties", {})
        for name, part in mine.get("properties", {}).items():
            if name not in there:
                return f"{path}.{name}"
            if found := search(part, there[name], f"{path}.{name}"):
                return found
        return None

    for part in ("spec", "status"):
        if found := search(ours["properties"][part], theirs.get("properties", {}).get(part, {}), part):
            return found
    return None


def _resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    for option in schema.get("anyOf", ()):
        if option.get("type") != "null":
            return _resolved(option, definitions)
    if "$ref" in schema:
        return _resolved(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return schema


def _remedy() -> str:
    return f"apply the CRDs of release {__version__} (`kubectl apply --server-side -f crds/`, or upgrade the chart)"

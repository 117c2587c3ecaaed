"""The operator does not start on CustomResourceDefinitions that would lose its fields."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tidegate import __version__
from tidegate.api import BatchPool, CapacityClaim, InferenceService, Model, NodeLoan, SlurmCluster
from tidegate.cluster.errors import NotFound
from tidegate.controllers.crd_check import CrdsOutdatedError, check_crds, missing_field

CRDS = Path(__file__).resolve().parent.parent.parent / "crds"
FILES: dict[type[Model], str] = {
    SlurmCluster: "slurmclusters",
    BatchPool: "batchpools",
    NodeLoan: "nodeloans",
    InferenceService: "inferenceservices",
    CapacityClaim: "capacityclaims",
}


def schema_of(model: type[Model]) -> dict[str, Any]:
    """The schema that the API server gives out for the CRD as committed."""
    crd = yaml.safe_load((CRDS / f"{FILES[model]}.yaml").read_text())
    schema: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def ours(model: type[Model]) -> dict[str, Any]:
    return model.model_json_schema(by_alias=True)


def without(schema: dict[str, Any], path: str) -> dict[str, Any]:
    """The schema of an older release that had not this field."""
    older = copy.deepcopy(schema)
    *parents, last = path.split(".")
    at = older
    for part in parents:
        at = at["properties"][part.removesuffix("[]")]
        if part.endswith("[]"):
            at = at["items"]
    del at["properties"][last]
    return older


@pytest.mark.parametrize("model", FILES)
def test_the_crds_of_this_release_lack_nothing(model: type[Model]) -> None:
    assert missing_field(ours(model), schema_of(model)) is None


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (BatchPool, "spec.lending"),
        (BatchPool, "spec.lending.floor"),
        (BatchPool, "spec.lending.flapBudget.windowSeconds"),
        (BatchPool, "spec.recall.quick.checkpointSeconds"),
        (BatchPool, "spec.slurmd.template"),
        (BatchPool, "status.nodes.claimed"),
        (NodeLoan, "spec.back"),
        (NodeLoan, "spec.back.claim.uid"),
        (NodeLoan, "status.jobs[].startTime"),
        (NodeLoan, "status.conditions[].observedGeneration"),
        (NodeLoan, "status.ledger.lostGpuSeconds"),
        (CapacityClaim, "spec.holderRef.uid"),
        (CapacityClaim, "status.heldNodes"),
        (SlurmCluster, "spec.pollSeconds"),
    ],
)
def test_a_field_that_an_older_crd_lacks_is_named(model: type[Model], path: str) -> None:
    assert missing_field(ours(model), without(schema_of(model), path)) == path


def test_fields_of_a_newer_crd_are_no_harm() -> None:
    newer = schema_of(NodeLoan)
    newer["properties"]["spec"]["properties"]["tide"] = {"type": "string"}
    assert missing_field(ours(NodeLoan), newer) is None


def test_a_crd_without_a_schema_lacks_the_first_field() -> None:
    found = missing_field(ours(SlurmCluster), {})
    assert found is not None
    assert found.startswith("spec.")


class Server:
    """An API server that gives out this schema document."""

    def __init__(self, schemas: dict[str, Any] | None) -> None:
        self._schemas = schemas

    async def openapi(self, api_version: str) -> dict[str, Any]:
        assert api_version == "tidegate.dev/v1alpha1"
        if self._schemas is None:
            raise NotFound(404, "no such group")
        return {"components": {"schemas": self._schemas}}


def published(**changes: dict[str, Any] | None) -> dict[str, Any]:
    schemas = {model.__name__: schema_of(model) for model in FILES} | changes
    return {f"dev.tidegate.v1alpha1.{name}": schema for name, schema in schemas.items() if schema is not None}


async def refusal(schemas: dict[str, Any] | None) -> str:
    with pytest.raises(CrdsOutdatedError) as caught:
        await check_crds(Server(schemas))  # type: ignore[arg-type]
    words = str(caught.value)
    assert __version__ in words
    assert "kubectl apply --server-side -f crds/" in words
    return words


async def test_the_operator_starts_on_its_own_crds() -> None:
    await check_crds(Server(published()))  # type: ignore[arg-type]


async def test_without_crds_the_way_out_is_said() -> None:
    assert "does not know tidegate.dev/v1alpha1" in await refusal(None)
    assert "does not know the kind NodeLoan" in await refusal(published(NodeLoan=None))


async def test_an_older_crd_is_refused_with_the_field_it_lacks() -> None:
    older = without(schema_of(BatchPool), "spec.stopPolicy")
    assert "The CRD of BatchPool in the cluster lacks the field spec.stopPolicy" in await refusal(
        published(BatchPool=older)
    )

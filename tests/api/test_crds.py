"""The generated CustomResourceDefinitions: in step with the models, and of good form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import Field

from tests.conftest import REPOSITORY
from tidegate.api import BatchPoolSpec, Ladder, crds
from tidegate.api.batch_pool import Recall
from tidegate.api.resource import Model

SCHEMAS = {r.model.__name__: crds.schema_of(r.model) for r in crds.RESOURCES}

BOOLEANS = {"NodeLoan.status.jobs[].requeueable", "CapacityClaim.spec.gang"}
"""Slurm's own flag of a job, and whether half of a claim is of use: neither has a third value."""

UNBOUNDED = {
    "BatchPool.spec.slurmd.template",
    "InferenceService.spec.template",
    "InferenceService.spec.model.volume",
    "InferenceService.spec.server.env[]",
    "InferenceService.spec.preset.env[]",
}
"""Pod templates and parts of them: bounded by what Kubernetes takes, not by us."""


def fields(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field below the schema with its path; items and values count as fields."""
    for name, part in schema.get("properties", {}).items():
        yield f"{path}.{name}", part
        yield from fields(part, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield path + mark, schema[key]
            yield from fields(schema[key], path + mark)


FIELDS = {path: part for kind, schema in SCHEMAS.items() for path, part in fields(schema, kind)}
OURS = {path: part for path, part in FIELDS.items() if path.split(".")[1] in ("spec", "status")}


@pytest.mark.parametrize("folder", ["crds", "helm/tidegate/files/crds"])
def test_committed_files_are_what_the_models_say(folder: str, tmp_path: Path) -> None:
    crds.write(tmp_path)
    fresh = {p.name: p.read_text() for p in tmp_path.iterdir()}
    committed = {p.name: p.read_text() for p in (REPOSITORY / folder).iterdir()}
    assert committed == fresh, "run `make crds` and commit what it wrote"


def test_there_are_fields_to_look_at() -> None:
    assert len(OURS) > 80
    assert "NodeLoan.status.conditions[].type" in OURS


@pytest.mark.parametrize("kind", SCHEMAS)
def test_each_field_is_described(kind: str) -> None:
    named = {p: f for p, f in FIELDS.items() if p.startswith(f"{kind}.") and not p.endswith(("]", "}", ".metadata"))}
    assert {path for path, part in named.items() if not part.get("description", "").endswith(".")} == set()
    assert SCHEMAS[kind]["description"].endswith(".")


@pytest.mark.parametrize(
    ("type_", "bound"), [("string", "maxLength"), ("array", "maxItems"), ("object", "maxProperties")]
)
def test_each_list_string_and_map_is_bounded(type_: str, bound: str) -> None:
    unbounded = {
        path
        for path, part in OURS.items()
        if part["type"] == type_
        and not {bound, "enum", "properties"} & part.keys()
        and part.get("format") != "date-time"
    }
    assert unbounded - UNBOUNDED == set()


def test_numbers_of_specs_have_both_bounds() -> None:
    numbers = {path: part for path, part in OURS.items() if ".spec" in path and part["type"] == "integer"}
    assert {path for path, part in numbers.items() if not {"minimum", "maximum"} <= part.keys()} == set()


def test_durations_are_named_and_integers() -> None:
    assert {path for path, part in OURS.items() if path.endswith("Seconds") and part["type"] != "integer"} == set()


def test_no_floats_and_no_booleans_but_the_reasoned_ones() -> None:
    assert {path for path, part in OURS.items() if part["type"] == "number"} == set()
    assert {path for path, part in OURS.items() if part["type"] == "boolean"} == BOOLEANS


def test_nothing_is_called_phase() -> None:
    assert {path for path in FIELDS if path.lower().endswith("phase")} == set()


def test_each_list_says_how_it_is_merged() -> None:
    lists = {path: part for path, part in OURS.items() if part["type"] == "array"}
    assert {path for path, part in lists.items() if "x-kubernetes-list-type" not in part} == set()


@pytest.mark.parametrize("kind", SCHEMAS)
def test_conditions_are_those_of_kubernetes(kind: str) -> None:
    conditions = SCHEMAS[kind]["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert set(conditions["items"]["properties"]) == {
        "type",
        "status",
        "observedGeneration",
        "lastTransitionTime",
        "reason",
        "message",
    }


def test_a_status_has_no_defaults() -> None:
    assert {path for path, part in OURS.items() if ".status" in path and "default" in part} == set()


def test_rules_are_sentences_that_say_the_way_out() -> None:
    rules = [r for part in (*SCHEMAS.values(), *FIELDS.values()) for r in part.get("x-kubernetes-validations", ())]
    assert len(rules) >= 15
    for rule in rules:
        assert "`" in rule["message"] or ";" in rule["message"], rule
        assert not rule["message"].endswith("."), "the API server puts it into a sentence of its own"


def test_names_of_resources_are_unique() -> None:
    names = [n for r in crds.RESOURCES for n in (r.plural, r.short_name, r.model.__name__.lower())]
    assert len(names) == len(set(names))


def test_files_are_yaml_that_says_the_same() -> None:
    for resource in crds.RESOURCES:
        text = (REPOSITORY / "crds" / f"{resource.plural}.yaml").read_text()
        assert yaml.safe_load(text) == crds.definition(resource)


def test_half_an_object_gets_the_rest_from_model_and_server_alike() -> None:
    recall = Recall.model_validate({"graceful": {"drainSeconds": 7}})
    assert recall.graceful == Ladder(drain_seconds=7, checkpoint_seconds=120, requeue_seconds=30)
    schema = SCHEMAS["BatchPool"]["properties"]["spec"]["properties"]["recall"]["properties"]["graceful"]
    defaults = {name: part["default"] for name, part in schema["properties"].items() if "default" in part}
    assert defaults == Recall().graceful.to_json()
    assert "required" not in schema


def test_defaults_of_the_server_are_those_of_the_model() -> None:
    given = {"nodeSelector": {"a": "b"}, "slurmClusterName": "c", "partition": "p", "slurmd": {"image": "i"}}
    spec = SCHEMAS["BatchPool"]["properties"]["spec"]
    filled = given | {name: part["default"] for name, part in spec["properties"].items() if "default" in part}
    assert BatchPoolSpec.model_validate(filled) == BatchPoolSpec.model_validate(given)


class _Twig(Model):
    """A part that contains itself."""

    twigs: tuple[_Twig, ...] = ()


class _Tree(Model):
    """Something without end."""

    spec: _Twig
    status: _Twig


class _Number(Model):
    """A part with a bound that structural schemas lack."""

    size: int = Field(gt=0)


class _Odd(Model):
    """Something with that part."""

    spec: _Number
    status: _Number


class _Either(Model):
    """A part that is of one type or another."""

    size: Annotated[int, Field(ge=0)] | str = 0


class _Choice(Model):
    """Something with that part."""

    spec: _Either
    status: _Either


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (_Tree, r"spec\.twigs\[\]: _Twig contains itself"),
        (_Odd, r"spec\.size: pydantic wrote exclusiveMinimum, which has no structural form"),
        (_Choice, r"spec\.size: a choice of 2 types has no structural form"),
    ],
)
def test_what_has_no_structural_form_is_refused(model: type[Model], sentence: str) -> None:
    with pytest.raises(crds.SchemaError, match=sentence):
        crds.schema_of(model)

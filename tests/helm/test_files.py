"""The chart's files, as far as they can be judged without helm."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from tests.conftest import REPOSITORY
from tidegate import __version__
from tidegate.api.crds import RESOURCES

CHART = REPOSITORY / "helm" / "tidegate"
Manifest = dict[str, Any]
RBAC: dict[str, list[Manifest]] = yaml.safe_load((CHART / "files" / "rbac.yaml").read_text())


def rules(given: Iterable[Manifest]) -> Iterator[tuple[str, str, str]]:
    """Each right by itself: API group, resource, verb."""
    for rule in given:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    yield group, resource, verb


def test_one_version_everywhere() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__


def test_the_chart_lists_the_resources_that_it_brings() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    listed = yaml.safe_load(chart["annotations"]["artifacthub.io/crds"])
    assert {(c["kind"], c["name"]) for c in listed} == {
        (r.model.__name__, f"{r.plural}.tidegate.dev") for r in RESOURCES
    }


def test_each_right_has_a_reason_and_is_granted_once() -> None:
    for part in RBAC.values():
        assert all(len(rule["why"]) > 10 for rule in part)
        granted = list(rules(part))
        assert len(granted) == len(set(granted))


def test_no_right_is_a_wildcard_or_more_than_the_operator_is_for() -> None:
    granted = {right for part in RBAC.values() for right in rules(part)}
    assert not [right for right in granted if "*" in right]
    everywhere = set(rules(RBAC["cluster"]))
    assert not [right for right in everywhere if right[1] == "secrets"]
    assert ("", "pods", "delete") not in everywhere, "pods of others are not ours to delete"
    assert ("", "secrets", "list") not in set(rules(RBAC["namespace"]))


def test_every_default_is_in_the_schema_and_every_key_of_the_schema_has_a_default() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(given: Manifest, known: Manifest, path: str) -> None:
        assert known.get("additionalProperties") is False, f"{path} takes anything"
        assert set(given) == set(known["properties"]) - {"global"}, path
        for key, value in given.items():
            part = known["properties"][key]
            if isinstance(value, dict) and "properties" in part and value:
                compare(value, part, f"{path}.{key}")

    compare(values, schema, "values")

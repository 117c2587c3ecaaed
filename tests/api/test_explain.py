"""What people see of the resources: `kubectl explain` and `kubectl get` on a real API server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Kubectl
from tidegate.api import crds

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("crds")]


@pytest.fixture(scope="module")
def published(kubectl: Kubectl) -> dict[str, Any]:
    """The schemas that kubectl explain reads, by kind."""
    document = json.loads(kubectl.must("get", "--raw", "/openapi/v3/apis/tidegate.dev/v1alpha1"))
    return {
        group["kind"]: schema
        for schema in document["components"]["schemas"].values()
        for group in schema.get("x-kubernetes-group-version-kind", ())
        if group["group"] == "tidegate.dev"
    }


def undescribed(schema: dict[str, Any], path: str) -> list[str]:
    found = [] if schema.get("description") else [path]
    for name, part in schema.get("properties", {}).items():
        found += undescribed(part, f"{path}.{name}")
    for name, part in schema.get("items", {}).get("properties", {}).items():
        found += undescribed(part, f"{path}.{name}")
    return found


@pytest.mark.parametrize("kind", [r.model.__name__ for r in crds.RESOURCES])
def test_explain_describes_every_field(published: dict[str, Any], kind: str) -> None:
    assert len(published[kind]["properties"]["spec"]["properties"]) >= 5
    assert undescribed(published[kind], kind) == []


@pytest.mark.parametrize(
    ("resource", "headers"),
    [
        ("slurmclusters", "NAME ENDPOINT RELEASE READY AGE"),
        (
            "batchpools",
            "NAME CLUSTER PARTITION POLICY KUBERNETES JOINING LENT RETURNING CLAIMED DEMAND READY AGE",
        ),
        ("nodeloans", "NAME NODE POOL STATE WANTED FOR PRIORITY AGE"),
        ("capacityclaims", "NAME POOL NODES HELD PRIORITY SATISFIED REASON AGE"),
    ],
)
def test_get_shows_what_people_ask_first(kubectl: Kubectl, resource: str, headers: str) -> None:
    table = json.loads(
        kubectl.must("get", "--raw", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{resource}.tidegate.dev")
    )
    columns = table["spec"]["versions"][0]["additionalPrinterColumns"]
    shown = [c["name"].upper() for c in columns if not c.get("priority")]
    assert " ".join(["NAME", *shown]) == headers


@pytest.mark.parametrize("short", [r.short_name for r in crds.RESOURCES])
def test_short_names_and_the_category_work(kubectl: Kubectl, short: str) -> None:
    kubectl.must("get", short)
    kubectl.must("get", "tidegate")

"""What the operator asked of the API server, from the lab's audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from e2e.lab import Lab
from e2e.operator import NAMESPACE

ACCOUNT = f"system:serviceaccount:{NAMESPACE}:tidegate"

Right = tuple[str, str, str, str]
"""Scope (`cluster` or `namespace`), API group, resource with subresource, verb."""


def asked(lab: Lab, since: datetime) -> list[tuple[dict[str, Any], Right]]:
    """The operator's requests for objects since a moment, each with the right that it needs at least."""
    found = []
    for event in lab.audit_log():
        ref = event.get("objectRef") or {}
        if event["user"]["username"] != ACCOUNT or not ref.get("resource"):
            continue
        if received(event) < since:
            continue
        resource = "/".join(filter(None, (ref["resource"], ref.get("subresource"))))
        scope = "namespace" if ref.get("namespace") == NAMESPACE else "cluster"
        verbs = [event["verb"]]
        # Server-side apply is a patch that needs the right to create, too, where it makes the object.
        if event["verb"] == "patch" and event.get("responseStatus", {}).get("code") == 201:
            verbs.append("create")
        found += [(event, (scope, ref.get("apiGroup", ""), resource, verb)) for verb in verbs]
    return found


def received(event: dict[str, Any]) -> datetime:
    """When a request reached the API server."""
    return datetime.fromisoformat(event["requestReceivedTimestamp"])

"""Label and field selectors, as the API server reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from tidegate.cluster import errors
from tidegate.cluster.client import Json
from tidegate.cluster.kinds import NODES, PODS, Kind

_FIELDS = {
    NODES: ("metadata.name",),
    PODS: ("metadata.name", "metadata.namespace", "spec.nodeName", "status.phase"),
}


def label_tests(selector: str) -> list[Callable[[Mapping[str, str]], bool]]:
    return [_label_test(part.strip()) for part in re.split(r",(?![^()]*\))", selector) if part.strip()]


def _label_test(part: str) -> Callable[[Mapping[str, str]], bool]:
    if found := re.fullmatch(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)", part):
        key, word, values = found[1], found[2], [value.strip() for value in found[3].split(",")]
        return lambda labels: (labels.get(key) in values) == (word == "in")
    if found := re.fullmatch(r"([^!=\s]+)\s*(!?=)=?\s*(\S*)", part):
        key, word, value = found[1], found[2], found[3]
        return lambda labels: (labels.get(key) == value) == (word == "=")
    if part.startswith("!"):
        return lambda labels: part[1:] not in labels
    return lambda labels: part in labels


def field_tests(kind: Kind, selector: str) -> list[Callable[[Json], bool]]:
    tests: list[Callable[[Json], bool]] = []
    for part in filter(None, selector.split(",")):
        found = re.fullmatch(r"([^!=]+)(!?=)=?(.*)", part)
        if not found or found[1] not in _FIELDS.get(kind, ("metadata.name", "metadata.namespace")):
            raise errors.refused(400, "BadRequest", f"field label not supported: {part}", "list", kind)
        head, tail = found[1].split(".")
        tests.append(lambda o, h=head, t=tail, w=found[2], v=found[3]: ((o.get(h) or {}).get(t, "") == v) == (w == "="))  # type: ignore[misc]
    return tests


def label_selector_matches(selector: Json | None, labels: Mapping[str, str]) -> bool:
    """A metav1.LabelSelector: an empty one matches everything, none at all matches nothing."""
    if selector is None:
        return False
    equal = all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())
    return equal and all(_expression(one, labels) for one in selector.get("matchExpressions") or ())


def _expression(requirement: Json, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(requirement["key"]), requirement.get("values") or []
    return {
        "In": value in values,
        "NotIn": value not in values,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }[requirement["operator"]]

"""The chart grants what the operator uses: nothing is missing, nothing is there for no use. Runs last."""

from __future__ import annotations

from datetime import datetime

import pytest

from e2e.audit import Right, asked
from e2e.kube import Kube
from e2e.lab import Lab
from e2e.operator import NAMESPACE
from e2e.suite import SUITE_BEGAN

WHOLE_SUITE = 30
"""With fewer tests than this the suite does not come to every verb."""


def granted(lab: Lab) -> set[Right]:
    """What the chart's roles give, as the cluster has them."""
    kube = Kube(lab.kubeconfig)
    rights: set[Right] = set()
    roles = (("cluster", "clusterroles", ""), ("namespace", "roles", NAMESPACE))
    for scope, plural, namespace in roles:
        role = kube.get(plural, "tidegate", namespace)
        assert role is not None, f"the chart's {plural} are not installed"
        for rule in role["rules"]:
            rights |= {
                (scope, group, resource, verb)
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            }
    kube.close()
    return rights


@pytest.fixture(scope="module")
def began(request: pytest.FixtureRequest) -> datetime:
    """When the suite began; a part of it does not come to every verb."""
    scenarios = [item for item in request.session.items if "scenarios" in item.path.parts]
    if len(scenarios) < WHOLE_SUITE:
        pytest.skip(f"needs the whole suite: {len(scenarios)} scenarios were asked for")
    return request.config.stash[SUITE_BEGAN]


def test_no_right_is_missing(lab: Lab, began: datetime) -> None:
    refused = {right for event, right in asked(lab, began) if event.get("responseStatus", {}).get("code") == 403}
    rights = granted(lab)
    rights |= {("namespace", *right[1:]) for right in rights if right[0] == "cluster"}
    # An API server that has just started refuses everything until it has read the roles.
    missing = refused - rights
    assert not missing, f"the operator was refused {sorted(missing)}"


def test_no_right_is_unused(lab: Lab, began: datetime) -> None:
    used = {right for _, right in asked(lab, began)}
    # What is granted for all namespaces covers the operator's own, too.
    used |= {("cluster", *right[1:]) for right in used}
    unused = granted(lab) - used
    assert not unused, f"nothing used {sorted(unused)}"


def test_the_operator_was_seen_at_all(lab: Lab, began: datetime) -> None:
    assert len(asked(lab, began)) > 100

"""Which pods may be asked to go, and what budgets allow together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.sharing.build import budget, pod
from tidegate.sharing.evictions import Allowance, why_it_stays
from tidegate.sharing.snapshot import Pod


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"priority": 4999}, ""),
        ({"priority": -5}, ""),
        ({"priority": 5000}, "pod team/web-1 has priority 5000, which is not below 5000"),
        ({"priority": 5001}, "pod team/web-1 has priority 5001, which is not below 5000"),
        ({"priority": 2_000_000_000}, "pod team/web-1 is a system pod"),
        ({"priority_class_name": "system-cluster-critical"}, "pod team/web-1 is a system pod"),
        ({"owner": "dcgm", "owner_kind": "DaemonSet"}, "pod team/web-1 is of a DaemonSet"),
        ({"owner": "gpu-1", "owner_kind": "Node"}, "pod team/web-1 is of a Node"),
        ({"owner": "web", "owner_kind": "StatefulSet"}, ""),
        (
            {"annotations": {"karpenter.sh/do-not-disrupt": "true"}},
            "pod team/web-1 carries the annotation karpenter.sh/do-not-disrupt",
        ),
        ({"annotations": {"karpenter.sh/do-not-disrupt": "false"}}, ""),
        (
            {"annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}},
            "pod team/web-1 carries the annotation cluster-autoscaler.kubernetes.io/safe-to-evict=false",
        ),
        ({"annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}}, ""),
    ],
)
def test_only_less_important_pods_that_nothing_protects_go(given: dict[str, Any], why: str) -> None:
    assert why_it_stays(pod(on="gpu-1", **given), 5000) == why


def web(number: int, **more: Any) -> Pod:
    return pod(f"web-{number}", on=f"gpu-{number}", labels={"app": "web"}, **more)


@pytest.mark.parametrize(
    ("budgets", "pods", "why"),
    [
        ([], [web(1), web(2)], ""),
        ([budget(allowed=2, app="web")], [web(1), web(2)], ""),
        ([budget(allowed=0, app="web")], [web(1)], "PodDisruptionBudget team/web does not allow the eviction of pod"),
        ([budget(allowed=1, app="web")], [web(1)], ""),
        ([budget(allowed=1, app="web")], [web(1), web(2)], "does not allow the eviction of pod team/web-2 now"),
        ([budget(allowed=0, app="api")], [web(1)], ""),
        ([budget(allowed=0)], [web(1)], "PodDisruptionBudget team/web does not allow"),
        ([budget(allowed=0, namespace="other")], [web(1)], ""),
        ([replace(budget(), selector=None)], [web(1)], ""),
        (
            [budget("a", allowed=5), budget("b", allowed=5)],
            [web(1)],
            "pod team/web-1 has the PodDisruptionBudgets a and b; Kubernetes evicts no pod that has two",
        ),
        ([replace(budget(), selector=(("app", "NotIn", ("api",)),))], [web(1)], "does not allow"),
        ([replace(budget(), selector=(("app", "Exists", ()),))], [web(1)], "does not allow"),
        ([replace(budget(), selector=(("app", "DoesNotExist", ()),))], [web(1)], ""),
    ],
)
def test_a_set_of_evictions_fits_the_budgets_together(budgets: list[Any], pods: list[Pod], why: str) -> None:
    said = Allowance(budgets).take(pods)
    assert why in said
    assert bool(why) == bool(said)


def test_what_does_not_fit_is_not_counted() -> None:
    allowance = Allowance([budget(allowed=1, app="web")])
    assert allowance.take([web(1), web(2)])
    assert not allowance.copy().take([web(1)])
    assert not allowance.take([web(1)])
    assert allowance.take([web(2)])

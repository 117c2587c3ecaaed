"""`tidegate node release`: quarantined nodes may be lent again, and nothing else changes."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from tests.cli.commands import Commands
from tests.sharing.build import NOW, RETURNED, ago, loan
from tests.sharing.test_explain import working
from tidegate.cluster.errors import refused
from tidegate.cluster.kinds import NODES


@pytest.fixture
def site() -> Commands:
    """`gpu-1` was lent six times within the hour, `gpu-2` once."""
    site = Commands()
    site.put(working())
    for name in ("gpu-1", "gpu-2"):
        site.node(name)
    for number in range(6):
        site.put(loan(name=f"gpu-1-{number + 1}", done=RETURNED, created=ago(900 - number)))
    site.put(loan("gpu-2", done=RETURNED, created=ago(900)))
    return site


def released(site: Commands, name: str) -> str | None:
    found = asyncio.run(site.kube.get(NODES, name))
    annotation: str | None = found["metadata"].get("annotations", {}).get("tidegate.dev/released")
    return annotation


def test_a_quarantined_node_is_released_and_explained_so(site: Commands) -> None:
    assert "quarantined until 2026-11-21T12:45:00Z" in " ".join(site("explain", "node", "gpu-1").stdout.split())
    result = site("node", "release", "gpu-1")
    assert (result.exit_code, result.stdout) == (
        0,
        "node gpu-1: released, it was quarantined until 2026-11-21T12:45:00Z\n",
    )
    assert released(site, "gpu-1") == "2026-11-21T12:00:00.000000Z"
    assert "quarantined" not in site("explain", "node", "gpu-1").stdout


def test_one_that_is_not_quarantined_stays_as_it_is_and_says_so(site: Commands) -> None:
    result = site("node", "release", "gpu-2", "gpu-1", "gpu-2")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "node gpu-2: it is not quarantined, 1 loans within 3600 s, flapBudget of pool batch allows 6",
        "node gpu-1: released, it was quarantined until 2026-11-21T12:45:00Z",
    ]
    assert released(site, "gpu-2") is None


def test_a_node_of_no_pool_is_not_lent_anyway(site: Commands) -> None:
    asyncio.run(site.kube.add_node("plain"))
    result = site("node", "release", "plain")
    assert (result.exit_code, result.stdout) == (
        0,
        "node plain: no pool selects it, so that it is not lent anyway\n",
    )


def test_with_an_unknown_name_nothing_is_written(site: Commands) -> None:
    result = site("node", "release", "gpu-1", "gpu-3")
    assert (result.exit_code, result.stderr) == (1, "There is no node gpu-3; those there are: gpu-1, gpu-2.\n")
    assert released(site, "gpu-1") is None


def test_a_clock_that_is_slow_here_does_not_leave_the_newest_loan_out(site: Commands) -> None:
    newest = NOW + timedelta(seconds=40)
    site.put(loan(name="gpu-1-7", done=RETURNED, created=newest))
    site("node", "release", "gpu-1")
    annotation = released(site, "gpu-1")
    assert annotation
    assert datetime.fromisoformat(annotation) == newest


def test_a_missing_right_ends_it_in_one_sentence(site: Commands) -> None:
    site.kube.fail_next("patch", NODES, refused(403, "Forbidden", "may not", "patch", NODES, "gpu-1"))
    result = site("node", "release", "gpu-1")
    assert result.exit_code == 1
    assert "the verb `patch` on `nodes`" in result.stderr


def test_without_a_name_it_says_how_to_use_it(site: Commands) -> None:
    assert site("node", "release").exit_code == 2

"""A plain Deployment of slurmd pods loops under preemption; Tidegate recalls each claimed node once."""

from __future__ import annotations

import os

import pytest
from rich.console import Console

from e2e.lab import Lab
from e2e.operator import REPOSITORY
from e2e.scenarios.preemption_loop import report
from e2e.scenarios.preemption_loop.columns import play_both
from e2e.stage import Stage

SECONDS = float(os.environ.get("TIDEGATE_LOOP_SECONDS", "300"))
SEED = 1


@pytest.mark.scenarios
@pytest.mark.usefixtures("operator")
def test_a_plain_deployment_loops_and_tidegate_recalls_each_claimed_node_once(lab: Lab) -> None:
    stage, console = Stage(lab), Console()
    plain, tidegate, verdict = play_both(stage, SECONDS, SEED, lambda words: console.print(words, highlight=False))
    stage.kube.close()
    report.write((plain, tidegate), REPOSITORY / "out", console)

    assert len(plain.evictions) > len(plain.notebooks)
    assert plain.double_bindings
    assert plain.refusals.keys() == {"OutOfnvidia.com/gpu"}

    assert verdict.ok, str(verdict)
    assert not tidegate.never_ran
    assert set(tidegate.recalls) == {1}
    assert tidegate.evictions == tidegate.double_bindings == ()
    assert tidegate.refusals == {}
    assert tidegate.seconds_lost < plain.seconds_lost

"""A burst of requests to a real model server, and to a plain Deployment under the same autoscaler."""

from __future__ import annotations

import pytest
from rich.console import Console

from e2e.operator import REPOSITORY
from e2e.scenarios.burst.report import picture
from e2e.scenarios.burst.scaler import Scaler
from e2e.scenarios.burst.story import LENDING, RECALL, play
from e2e.stage import Stage
from e2e.witness import Witness

pytestmark = pytest.mark.scenarios


def test_no_request_fails_while_nodes_come_from_slurm_and_go_back(bare_stage: Stage, witness: Witness) -> None:
    stage, console = bare_stage, Console()
    stage.lab.load_operator()
    stage.set_up(lending=LENDING, recall=RECALL)
    played = play(stage, lambda words: console.print(words, highlight=False), stage.lab.load_model_server())
    nodes = {node: spans for node, spans in witness.timeline.nodes.items() if node in stage.lab.workers}
    path = REPOSITORY / "out" / "burst.svg"
    path.parent.mkdir(exist_ok=True)
    path.write_text(picture(nodes, [], played))
    given = {node for node, spans in nodes.items() if {"Slurm", "Kubernetes"} <= {span.owner for span in spans}}
    assert len(given) == 2


def test_a_plain_deployment_under_an_autoscaler_gets_lent_nodes_by_automatic_claims(stage: Stage) -> None:
    stage.deployment("web", 1)
    stage.wait_running("web", 1, seconds=60)
    for _ in range(2):
        stage.sleep_job(3600)
    stage.wait_lent(2)
    load = [1.0]
    with Scaler(lambda: load[0], lambda count: stage.scale("web", count), target=4, least=1, most=3):
        load[0] = 11
        stage.wait_running("web", 3, seconds=90)
        holders = {claim["spec"]["holderRef"]["kind"] for claim in stage.claims()}
        load[0] = 1
        stage.wait_running("web", 1, seconds=60)
    stage.wait_lent(2, seconds=60)
    assert holders == {"Deployment"}

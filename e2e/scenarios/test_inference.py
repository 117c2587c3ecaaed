"""An InferenceService grows onto a lent node and shrinks again, and no request notices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.clients import Clients, way_in
from e2e.operator import wait_for
from e2e.stage import WORK, Stage

TOKENS = 60
"""A request takes 1.2 s, so that there is always one in flight when a replica is told to end."""


@pytest.fixture
def served(stage: Stage) -> Iterator[Stage]:
    """The stage, with the gate of this checkout on the workers."""
    stage.lab.load_operator()
    yield stage
    stage.kube.delete("services", "chat-from-outside", WORK)


@pytest.mark.scenarios
def test_a_service_grows_onto_a_lent_node_and_shrinks_without_a_failed_request(served: Stage) -> None:
    stage = served
    stage.service("chat", maxReplicas=2)
    stage.wait_condition("inferenceservices", "chat", "True", "Serving", "Available", seconds=40)
    for _ in range(2):
        stage.sleep_job(3600)
    stage.wait_lent(2)
    url = way_in(stage.kube, "chat", {"tidegate.dev/inference-service": "chat"}, 8080) + "/v1/completions"
    with Clients(url, {"prompt": "1", "max_tokens": TOKENS}, rate=8) as clients:
        stage.scale_service("chat", 2)
        wait_for("a claim", lambda: [c for c in stage.claims() if c["spec"]["holderRef"]["name"] == "chat"], 20)
        stage.wait_condition("inferenceservices", "chat", "False", "AsWanted", "Progressing", seconds=60)
        wait_for("answers of both replicas", lambda: len({o.text for o in clients.outcomes[-40:]}) == 2, 20)
        stage.scale_service("chat", 1)
        stage.wait_condition("inferenceservices", "chat", "True", "Draining", "Progressing", seconds=20)
        stage.wait_condition("inferenceservices", "chat", "False", "AsWanted", "Progressing", seconds=40)
    assert clients.failed == []
    assert len(clients.outcomes) > 80
    stage.wait_lent(2)

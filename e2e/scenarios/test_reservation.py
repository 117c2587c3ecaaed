"""A claim that starts later: its nodes work until they are needed, are there at the start, and go back at the end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from e2e.kube import Json
from e2e.operator import wait_for
from e2e.stage import WORK, Stage

RECALL = {"fast": {"drainSeconds": 0, "checkpointSeconds": 0, "requeueSeconds": 2}, "automaticClass": "fast"}
START_SECONDS = 10
DURATION_SECONDS = 4


def test_reserved_nodes_work_until_they_are_needed_and_go_back_at_the_end(bare_stage: Stage) -> None:
    stage = bare_stage
    stage.set_up(recall=RECALL)
    jobs = [stage.sleep_job(3600) for _ in range(3)]
    first = stage.wait_lent(3)[0]["metadata"]["name"]
    # How early nodes have to be recalled is measured: here on this one.
    stage.kube.patch("nodeloans", first, {"spec": {"wanted": "Returned"}})
    wait_for("the end of one loan", lambda: first not in {one["metadata"]["name"] for one in stage.loans()}, 20)
    start = datetime.now(UTC) + timedelta(seconds=START_SECONDS)
    stage.claim("workshop", 2, recallClass="fast", startTime=start.isoformat(), durationSeconds=DURATION_SECONDS)
    stage.wait_condition("capacityclaims", "workshop", "False", "Reserved", "Satisfied", seconds=5)
    message = stage.wait_condition("capacityclaims", "workshop", "False", "NotSupported", "SlurmTold", seconds=5)
    assert "takes no reservation by REST" in message
    assert sum("RUNNING" in stage.state(job) for job in jobs) >= 2
    stage.wait_condition("capacityclaims", "workshop", "True", "Held", "Satisfied", seconds=START_SECONDS + 10)
    wait_for("the start", lambda: _status(stage).get("started"), START_SECONDS + 5)
    status = _status(stage)
    assert datetime.fromisoformat(status["promisedStart"]) == start
    late = datetime.fromisoformat(status["started"]) - start
    assert timedelta() <= late < timedelta(seconds=2), f"the nodes were {late} late"
    assert status["heldNodes"] == 2, status
    stage.wait_condition("capacityclaims", "workshop", "True", "Ended", "Expired", seconds=DURATION_SECONDS + 5)
    stage.wait_lent(3)
    for job in jobs:
        stage.wait_job(job, "RUNNING")


def _status(stage: Stage) -> Json:
    found = stage.kube.get("capacityclaims", "workshop", WORK)
    assert found is not None
    status: Json = found["status"]
    return status

"""slurmrestd's records as decisions see them, from recordings of both ends of the supported range."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from tests.contract.shapes import SHAPES, Shape, difference
from tests.slurm.recordings import RELEASES, recording
from tidegate.slurm.job_book import statuses
from tidegate.slurm.records import (
    JobRecord,
    Jobs,
    JobStateRecord,
    JobStates,
    NodeRecord,
    Nodes,
    count_gpus,
    has_ended,
    parse_job,
    parse_node,
)


class Named(JobRecord):
    """A job record with the name that the recording gave it."""

    name: str = ""


class NamedJobs(Jobs):
    """A list of them."""

    jobs: list[Named] | None = None  # type: ignore[assignment]


def _jobs(release: str, name: str) -> list[Named]:
    return [
        job for job in msgspec.json.decode(recording(release, "jobs"), type=NamedJobs).jobs or () if job.name == name
    ]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_each_way_to_ask_for_nodes_is_understood(release: str, shape: Shape) -> None:
    seen = statuses(msgspec.json.decode(recording(release, "states"), type=JobStates).jobs or ())
    (record,) = _jobs(release, shape.name)
    assert difference(shape, parse_job(record, seen[record.job_id].pending_tasks)) == {}


@pytest.mark.parametrize("release", RELEASES)
def test_a_running_job_has_its_nodes_and_gpus(release: str) -> None:
    (record,) = _jobs(release, "running-on-two-nodes")
    job = parse_job(record)
    assert job.states == {"RUNNING"}
    assert (job.nodes, job.gpus, job.node_count, job.user) == (("node0", "node1"), 2, 2, "alice")
    assert job.holds_nodes
    assert not job.is_pending
    assert job.start_time is not None
    assert job.end_time is not None
    assert (job.end_time - job.start_time).total_seconds() == 60 * 60
    assert (job.time_limit_seconds, job.qos, job.restarts) == (60 * 60, "normal", 0)
    assert job.eligible_time is not None
    assert job.eligible_time <= job.start_time


@pytest.mark.parametrize("release", RELEASES)
def test_running_tasks_of_an_array_are_jobs_of_their_own(release: str) -> None:
    seen = statuses(msgspec.json.decode(recording(release, "states"), type=JobStates).jobs or ())
    jobs = [parse_job(record, max(seen[record.job_id].pending_tasks, 1)) for record in _jobs(release, "running-array")]
    running = [job for job in jobs if job.holds_nodes]
    (waiting,) = [job for job in jobs if job.is_pending]
    assert len(running) == 2
    assert all(job.gpus == 1 and job.array_tasks == 1 and job.end_time is None for job in running)
    assert all(job.time_limit_seconds is None for job in running)
    assert waiting.array_tasks == 2


@pytest.mark.parametrize("release", RELEASES)
def test_a_node(release: str) -> None:
    nodes = msgspec.json.decode(recording(release, "nodes"), type=Nodes).nodes or []
    (node,) = [parse_node(record) for record in nodes if record.name == "node0"]
    assert node.states >= {"DRAIN"}
    assert node.is_busy
    assert (node.reason, node.features, set(node.partitions)) == ("recording", ("lent",), {"lent", "urgent"})
    assert (node.gpus, node.gpus_used, node.cpus, node.cpus_used, node.memory_mib) == (2, 2, 2, 2, 1000)
    assert node.last_busy is not None


@pytest.mark.parametrize("release", RELEASES)
def test_the_recording_tells_its_release(release: str) -> None:
    assert msgspec.json.decode(recording(release, "nodes"), type=Nodes).release.startswith(release)


@pytest.mark.parametrize(
    ("gres", "count"),
    [
        ("", 0),
        (None, 0),
        ("gpu:2", 2),
        ("gpu", 1),
        ("gpu:a100:4", 4),
        ("gpu:a100:4(S:0-1)", 4),
        ("gpu:a100:2(S:0),gpu:v100:1(S:1)", 3),
        ("gpu:(null):1(IDX:0)", 1),
        ("gpu:2(IDX:0-1,3)", 2),
        ("gpu:0", 0),
        ("gres/gpu:2", 2),
        ("gres/gpu:a100:2", 2),
        ("gres/gpu=1", 1),
        ("cpu=2,gres/gpu=1", 1),
        ("gres/gpu:a100=3", 3),
        ("shard:8", 0),
        ("nic:2,gpu:1", 1),
        ("mps:100,gpu:2", 2),
    ],
)
def test_counts_gpus_in_all_of_slurms_forms(gres: str | None, count: int) -> None:
    assert count_gpus(gres) == count


@pytest.mark.parametrize(
    ("states", "ended"),
    [
        (["PENDING"], False),
        (["RUNNING"], False),
        (["RUNNING", "COMPLETING"], False),
        (["COMPLETED", "COMPLETING"], False),
        (["CANCELLED", "STAGE_OUT"], False),
        (["COMPLETED"], True),
        (["NODE_FAIL"], True),
        (["PREEMPTED"], True),
        (["SOMETHING_NEW"], False),
    ],
)
def test_knows_when_a_job_holds_nothing_any_more(states: list[str], ended: bool) -> None:
    assert has_ended(states) is ended


def _record(**fields: Any) -> JobRecord:
    return msgspec.convert({"job_id": 1, "job_state": ["PENDING"], **fields}, JobRecord)


def _number(value: int) -> dict[str, Any]:
    return {"set": True, "infinite": False, "number": value}


def test_gpus_per_socket() -> None:
    fields = {"tres_per_socket": "gres/gpu:1", "sockets_per_node": _number(2), "node_count": _number(3)}
    assert parse_job(_record(**fields)).gpus == 6


def test_gpus_that_a_job_has_count_more_than_those_it_asked_for() -> None:
    details = ["gpu:a100:2(IDX:0-1)", "gpu:a100:1(IDX:3)"]
    assert parse_job(_record(tres_per_node="gres/gpu:9", gres_detail=details)).gpus == 3


def test_the_parts_of_a_heterogeneous_job_are_counted_by_themselves() -> None:
    seen = statuses(JobStateRecord(f"{22 + part}+{part}", ["PENDING"]) for part in (0, 1))
    assert set(seen) == {22, 23}


def test_unlimited_and_unset_numbers_are_none() -> None:
    job = parse_job(
        _record(
            job_state=["RUNNING"],
            time_limit={"set": True, "infinite": True, "number": 0},
            start_time=_number(1767225600),
            end_time=_number(1798761600),
            priority={"set": False, "infinite": False, "number": 0},
        )
    )
    assert (job.start_time, job.end_time, job.priority) == (datetime(2026, 1, 1, tzinfo=UTC), None, 0)


def test_an_interactive_job_cannot_be_requeued() -> None:
    assert not parse_job(_record(batch_flag=False, requeue=True)).requeueable
    assert parse_job(_record(batch_flag=True, requeue=True)).requeueable


def test_nulls_are_as_good_as_nothing() -> None:
    nulls = dict.fromkeys(("user_name", "partition", "nodes", "comment", "tres_per_job", "gres_detail", "shared"))
    assert parse_job(_record(**nulls)).nodes == ()
    node = msgspec.convert(
        {"name": "n", "state": ["idle"], "reason": None, "gres": None, "partitions": None}, NodeRecord
    )
    assert parse_node(node).states == {"IDLE"}


@pytest.mark.parametrize(
    ("fields", "may_spread"),
    [
        ({"tres_per_job": "gres/gpu:4", "node_count": _number(1)}, True),
        ({"tres_per_task": "gres/gpu:1", "node_count": _number(1)}, True),
        ({"tres_per_job": "gres/gpu:4", "node_count": _number(1), "max_nodes": _number(1)}, False),
        ({"tres_per_job": "gres/gpu:4", "node_count": _number(1), "max_nodes": _number(2)}, True),
        ({"tres_per_node": "gres/gpu:2", "node_count": _number(1)}, False),
        ({}, False),
    ],
)
def test_slurm_may_spread_what_was_asked_for_the_whole_job(fields: dict[str, Any], may_spread: bool) -> None:
    assert parse_job(_record(**fields)).may_spread is may_spread

"""How the client observes and acts: which requests it makes, and what it concludes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.slurm.restd import Clock, Restd, body, client, failure, restd
from tidegate.sharing.snapshot import SlurmReservation
from tidegate.slurm.errors import Busy, PermissionRefused, Rejected, SlurmError

NEW: dict[str, Any] = {"versions": ("v0.0.42", "v0.0.43", "v0.0.44", "v0.0.45"), "release": "26.05.5"}


def _job(job_id: int, *states: str, nodes: str = "") -> dict[str, Any]:
    return {"job_id": job_id, "job_state": list(states), "nodes": nodes, "batch_flag": True, "requeue": True}


def _light(*jobs: dict[str, Any]) -> dict[str, Any]:
    return body(jobs=[{"job_id": str(job["job_id"]), "state": job["job_state"]} for job in jobs])


def _node(name: str, *states: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "state": list(states), **fields}


async def _first(server: Restd, slurm: Any, jobs: list[dict[str, Any]], nodes: list[dict[str, Any]]) -> None:
    """A first observation of these jobs and nodes."""
    server.on("/jobs/state/", _light(*jobs))
    server.on("/jobs/", body(jobs=jobs))
    server.on("/nodes/", body(nodes=nodes))
    await slurm.observe()
    server.asked.clear()


async def test_the_moment_of_an_observation_is_before_its_first_request() -> None:
    clock = Clock()

    async with restd() as server, client(server.url, clock) as slurm:
        start = clock.now

        async def slow(request: Any) -> Any:
            from aiohttp import web

            clock.go_on(3)
            return web.json_response(body(jobs=[]))

        server.on("/jobs/state/", slow)
        assert (await slurm.observe()).observed == start


async def test_the_nodes_are_read_after_the_jobs() -> None:
    async with restd() as server, client(server.url) as slurm:
        await slurm.observe()
        asked = [path.removeprefix("GET /slurm/v0.0.42/") for path in server.asked if "/ping/" not in path]
        assert asked == ["jobs/state/", "jobs/", "partitions/", "nodes/"]


async def test_a_quiet_cluster_is_seen_without_the_full_list() -> None:
    async with restd() as server, client(server.url) as slurm:
        jobs = [_job(1, "RUNNING", nodes="a"), _job(2, "PENDING")]
        await _first(server, slurm, jobs, [_node("a", "MIXED", alloc_cpus=1)])
        state = await slurm.observe()
        assert set(state.jobs) == {1, 2}
        assert state.jobs[1].nodes == ("a",)
        assert (server.count("/jobs/"), server.count("/jobs/state/"), len(server.asked)) == (0, 1, 3)


async def test_a_job_that_starts_is_read_by_itself() -> None:
    async with restd() as server, client(server.url) as slurm:
        await _first(server, slurm, [_job(1, "PENDING"), _job(2, "PENDING")], [_node("a", "IDLE")])
        started = _job(1, "RUNNING", nodes="a")
        server.on("/jobs/state/", _light(started, _job(2, "PENDING")))
        server.on("/job/1", body(jobs=[started]))
        server.on("/nodes/", body(nodes=[_node("a", "MIXED", alloc_cpus=1)]))
        state = await slurm.observe()
        assert state.jobs[1].nodes == ("a",)
        assert server.count("/job/1") == 1
        assert server.count("/job/2") == server.count("/jobs/") == 0


async def test_a_job_that_moved_between_two_observations_is_found_on_its_new_node() -> None:
    async with restd() as server, client(server.url) as slurm:
        await _first(
            server, slurm, [_job(1, "RUNNING", nodes="a")], [_node("a", "MIXED", alloc_cpus=1), _node("b", "IDLE")]
        )
        server.on("/job/1", body(jobs=[_job(1, "RUNNING", nodes="b")]))
        server.on("/nodes/", body(nodes=[_node("a", "IDLE"), _node("b", "MIXED", alloc_cpus=1)]))
        state = await slurm.observe()
        assert {job.job_id: job.nodes for job in state.jobs.values()} == {1: ("b",)}


async def test_a_job_that_vanishes_while_it_is_read_is_gone() -> None:
    async with restd() as server, client(server.url) as slurm:
        await _first(server, slurm, [_job(1, "PENDING")], [])
        server.on("/jobs/state/", _light(_job(1, "RUNNING")))
        server.on("/job/1", (404, failure(2017, "Invalid job id specified")))
        assert (await slurm.observe()).jobs == {}


async def test_reasons_of_waiting_grow_old_for_seconds_only() -> None:
    clock = Clock()
    async with restd() as server, client(server.url, clock) as slurm:
        await _first(server, slurm, [_job(1, "PENDING") | {"state_reason": "BeginTime"}], [])
        server.on("/jobs/", body(jobs=[_job(1, "PENDING") | {"state_reason": "Resources"}]))
        assert (await slurm.observe()).jobs[1].reason == "BeginTime"
        clock.go_on(5)
        assert (await slurm.observe()).jobs[1].reason == "Resources"


@pytest.mark.parametrize("path", ["/jobs/state/", "/jobs/", "/partitions/", "/nodes/"])
async def test_an_observation_is_complete_or_an_error(path: str) -> None:
    async with restd() as server, client(server.url) as slurm:
        server.on(path, failure(9000, "Something"))
        with pytest.raises(SlurmError):
            await slurm.observe()


async def test_an_answer_that_makes_no_sense_is_an_error() -> None:
    async with restd() as server, client(server.url) as slurm:
        job = _job(1, "RUNNING", nodes="a[1-")
        server.on("/jobs/state/", _light(job))
        server.on("/jobs/", body(jobs=[job]))
        with pytest.raises(Rejected, match="brackets do not match"):
            await slurm.observe()


# -- one node -----------------------------------------------------------------------------------------------------


async def test_no_such_node_is_concluded_from_the_whole_list_only() -> None:
    async with restd() as server, client(server.url) as slurm:
        server.on("/node/n1", failure(0, "No error", "Failure to query node n1"))
        assert await slurm.node("n1") is None
        server.on("/nodes/", body(nodes=[_node("n1", "IDLE")]))
        assert await slurm.node("n1") is not None
        server.on("/nodes/", failure(9000, "Something"))
        with pytest.raises(Rejected):
            await slurm.node("n1")


async def test_down_drains_first_and_in_a_request_of_its_own() -> None:
    async with restd() as server, client(server.url) as slurm:
        server.on("/node/n1", body(nodes=[_node("n1", "IDLE")]))
        await slurm.down("n1", "tidegate: test")
        posted = [sent for asked, sent in zip(server.asked, server.bodies, strict=True) if asked.startswith("POST")]
        assert posted == [
            {"state": ["DRAIN"], "reason": "tidegate: test"},
            {"state": ["DOWN"], "reason": "tidegate: test"},
        ]


async def test_a_drain_of_others_is_not_touched() -> None:
    async with restd() as server, client(server.url) as slurm:
        server.on("/node/n1", body(nodes=[_node("n1", "IDLE", "DRAIN", reason="admin: fan")]))
        await slurm.drain("n1", "tidegate: test")
        await slurm.down("n1", "tidegate: test")
        posted = [sent for asked, sent in zip(server.asked, server.bodies, strict=True) if asked.startswith("POST")]
        assert posted == [{"state": ["DOWN"]}]


@pytest.mark.parametrize("status", [422, 500])
async def test_a_busy_node_is_told_from_other_refusals(status: int) -> None:
    async with restd() as server, client(server.url) as slurm:
        server.on("/node/n1", (status, failure(2016, "Requested nodes are busy", "Failure to delete node n1")))
        with pytest.raises(Busy, match="Requested nodes are busy"):
            await slurm.delete_node("n1")
        server.on("/node/n1", (status, failure(2100, "Not this time", "Failure to delete node n1")))
        with pytest.raises(Rejected, match="Not this time"):
            await slurm.delete_node("n1")


# -- jobs ---------------------------------------------------------------------------------------------------------


async def test_without_rights_no_job_is_touched() -> None:
    """One such request makes a slurmctld hang for good."""
    async with restd() as server, client(server.url) as slurm:
        server.on("/node/tidegate-no-such-node", (500, failure(2010, "Invalid user id")))
        for call in (slurm.signal_job(7, "USR1"), slurm.cancel_job(7)):
            with pytest.raises(PermissionRefused):
                await call
        assert server.count("/job/7") == 0


async def test_rights_are_proven_once() -> None:
    async with restd() as server, client(server.url) as slurm:
        server.on("/job/7", body(status=[]))
        await slurm.signal_job(7, "USR1")
        await slurm.cancel_job(7)
        assert (server.count("/node/tidegate-no-such-node"), server.count("/job/7")) == (1, 2)


async def test_a_signal_goes_to_the_whole_job() -> None:
    async with restd() as server, client(server.url) as slurm:
        server.on("/job/7", body(status=[]))
        await slurm.signal_job(7, "USR1")
        assert server.asked[-1] == "DELETE /slurm/v0.0.42/job/7"
        assert server.queries[-1] == {"signal": "USR1", "flags": "FULL_JOB"}


async def test_a_signal_that_slurm_does_not_know_is_never_sent() -> None:
    """slurmrestd would answer that it is unknown, and kill the job."""
    async with restd() as server, client(server.url) as slurm:
        for signal in ("NONSENSE", "KILL", "9", "", "usr1"):
            with pytest.raises(Rejected, match="no signal that can be sent to job 7"):
                await slurm.signal_job(7, signal)
        assert server.asked == []


@pytest.mark.parametrize("code", [2017, 2020, 2021])
async def test_a_signal_for_a_job_that_does_not_run_is_fine(code: int) -> None:
    async with restd() as server, client(server.url) as slurm:
        server.on("/job/7", body(status=[{"error": {"code": code, "string": "Some words"}}]))
        await slurm.signal_job(7, "USR1")


async def test_an_error_that_hides_in_the_status_is_one() -> None:
    async with restd() as server, client(server.url) as slurm:
        server.on("/job/7", body(status=[{"error": {"code": 2099, "string": "Some words"}}]))
        with pytest.raises(Rejected, match="job 7: Some words"):
            await slurm.cancel_job(7)


async def test_a_requeue_spares_finished_jobs() -> None:
    async with restd(**NEW) as server, client(server.url) as slurm:
        server.on("/requeue", body("26.05.5"))
        await slurm.requeue_job(7)
        assert server.asked[-1] == "GET /slurm/v0.0.45/job/7/requeue"
        assert server.queries[-1] == {"Incomplete": "true"}


@pytest.mark.parametrize(("status", "number"), [(404, 2017), (422, 2024), (422, 2021)])
async def test_a_requeue_of_a_job_that_does_not_run_is_fine(status: int, number: int) -> None:
    async with restd(**NEW) as server, client(server.url) as slurm:
        server.on("/requeue", (status, failure(number, "Some words")))
        await slurm.requeue_job(7)


async def test_a_job_that_may_not_be_requeued_says_so() -> None:
    async with restd(**NEW) as server, client(server.url) as slurm:
        server.on("/requeue", (422, failure(2037, "Requested operation is presently disabled")))
        with pytest.raises(Rejected, match="presently disabled"):
            await slurm.requeue_job(7)


async def test_a_release_without_requeue_is_not_asked_for_it() -> None:
    async with restd() as server, client(server.url) as slurm:
        with pytest.raises(Rejected, match=r"release 24.11.5 cannot requeue job 7"):
            await slurm.requeue_job(7)
        assert server.count("/requeue") == 0


# -- reservations -------------------------------------------------------------------------------------------------

RESERVATION = SlurmReservation(
    "tidegate-1", ("n1", "n2"), datetime(2026, 1, 1, 8, tzinfo=UTC), datetime(2026, 1, 1, 9, tzinfo=UTC)
)


def _reservation(name: str, nodes: str) -> dict[str, Any]:
    times = {
        field: {"set": True, "infinite": False, "number": int(moment.timestamp())}
        for field, moment in (("start_time", RESERVATION.start), ("end_time", RESERVATION.end))
    }
    return {"name": name, "node_list": nodes, **times}


async def test_only_our_own_reservations_are_seen() -> None:
    async with restd(**NEW) as server, client(server.url) as slurm:
        records = [_reservation("maintenance", "a"), _reservation("tidegate-1", "n[1-2]")]
        server.on("/reservations/", body("26.05.5", reservations=records))
        assert (await slurm.observe()).reservations == {"tidegate-1": RESERVATION}


async def test_a_reservation_spares_what_runs_and_is_for_our_own_user() -> None:
    async with restd(**NEW) as server, client(server.url) as slurm:
        server.on("/reservation", body("26.05.5"))
        await slurm.reserve(RESERVATION)
        sent = server.bodies[-1]
        assert (sent["name"], sent["node_list"], sent["users"]) == ("tidegate-1", ["n1", "n2"], ["slurm"])
        assert sent["start_time"]["number"] == int(RESERVATION.start.timestamp())
        assert sent["end_time"]["number"] == int(RESERVATION.end.timestamp())
        assert "IGNORE_JOBS" in sent["flags"]


async def test_the_beginning_of_a_reservation_that_has_begun_is_left_as_it_is() -> None:
    async with restd(**NEW) as server, client(server.url) as slurm:
        server.on("/reservation", (422, failure(2104, "Reservation already started")), body("26.05.5"))
        await slurm.reserve(RESERVATION)
        assert "start_time" in server.bodies[-2]
        assert "start_time" not in server.bodies[-1]
        server.on("/reservation", (422, failure(2016, "Requested nodes are busy")))
        with pytest.raises(Rejected, match="Requested nodes are busy"):
            await slurm.reserve(RESERVATION)


async def test_a_reservation_that_is_gone_need_not_be_withdrawn() -> None:
    async with restd(**NEW) as server, client(server.url) as slurm:
        server.on("/reservation/tidegate-1", (422, failure(2053, "Requested reservation is invalid")))
        await slurm.withdraw("tidegate-1")
        server.on("/reservation/tidegate-1", (422, failure(2099, "Not this time")))
        with pytest.raises(Rejected, match="Not this time"):
            await slurm.withdraw("tidegate-1")


async def test_a_release_without_reservations_is_not_asked_for_them() -> None:
    async with restd() as server, client(server.url) as slurm:
        await slurm.observe()
        with pytest.raises(Rejected, match=r"release 24.11.5 takes no reservation by REST"):
            await slurm.reserve(RESERVATION)
        assert server.count("/reservation") == server.count("/reservations/") == 0

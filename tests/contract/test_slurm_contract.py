"""What SlurmApi promises, held against the fake and against real Slurm of both ends of the supported range."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import jwt
import pytest

from tests.contract.shapes import SHAPES, difference
from tests.contract.slurm_sites import NODES, FakeSite, RealSite, Site, make_client
from tidegate.api.names import JOINING_REASON
from tidegate.sharing.snapshot import SlurmReservation, SlurmState
from tidegate.slurm.api import REQUEUE, RESERVATION
from tidegate.slurm.errors import Busy, PermissionRefused, Rejected, TokenRefused

if TYPE_CHECKING:
    from e2e.lab import SlurmSite


OURS = "tidegate: test"
REAL = [pytest.param(release, marks=pytest.mark.lab, id=f"real {release}") for release in ("24.11", "26.05")]
FAKE = [pytest.param(f"fake {release}", id=f"fake {release}") for release in ("24.11", "26.05")]


@pytest.fixture(scope="module")
def labs() -> Iterator[dict[str, SlurmSite]]:
    """Sites that were brought up; they go at the end."""
    sites: dict[str, SlurmSite] = {}
    yield sites
    for site in sites.values():
        site.down()


def _lab(labs: dict[str, SlurmSite], release: str) -> SlurmSite:
    from e2e.lab import SlurmSite

    if release not in labs:
        labs[release] = SlurmSite.up(name=f"contract-{release.replace('.', '')}", slurm=release, workers=2)
    return labs[release]


@pytest.fixture(params=[*FAKE, *REAL])
async def site(request: pytest.FixtureRequest, labs: dict[str, SlurmSite]) -> AsyncIterator[Site]:
    if request.param.startswith("fake"):
        yield FakeSite(request.param.removeprefix("fake "))
        return
    real = RealSite(_lab(labs, request.param))
    try:
        await real.clean()
        yield real
    finally:
        await real.close()


@pytest.fixture(params=REAL)
async def real(request: pytest.FixtureRequest, labs: dict[str, SlurmSite]) -> AsyncIterator[RealSite]:
    made = RealSite(_lab(labs, request.param))
    try:
        await made.clean()
        yield made
    finally:
        await made.close()


def _runs(state: SlurmState, job_id: int) -> bool:
    return job_id in state.jobs and "RUNNING" in state.jobs[job_id].states


def _waits(state: SlurmState, job_id: int) -> bool:
    return job_id in state.jobs and state.jobs[job_id].is_pending and not state.jobs[job_id].nodes


# -- observe ------------------------------------------------------------------------------------------------------


async def test_observes_nodes_partitions_and_what_this_slurm_can_do(site: Site) -> None:
    state = await site.api.observe()
    node = state.nodes["node0"]
    assert (node.gpus, node.cpus, node.memory_mib, node.gpus_used) == (2, 2, 1000, 0)
    assert "IDLE" in node.states
    assert not node.is_busy
    assert not node.states & {"DRAIN", "DOWN"}
    assert node.features == ("lent",)
    assert set(node.partitions) == {"lent", "urgent"}
    assert state.partitions >= {"lent", "urgent"}
    assert "missing" not in state.partitions
    assert state.node_sets["urgent"] == state.node_sets["lent"] == {"lent"}
    assert (REQUEUE in state.capabilities) == (not state.release.startswith("24."))
    assert state.observed is not None
    assert not state.error


async def test_a_running_job_is_on_its_nodes_and_they_are_busy(site: Site) -> None:
    job = site.submit(nodes=2, gpus_per_node=2, comment="tidegate:signal=USR1")
    state = await site.until("the job runs", lambda seen: _runs(seen, job))
    record = state.jobs[job]
    assert set(record.nodes) == {"node0", "node1"}
    assert (record.gpus, record.node_count, record.user) == (4, 2, state.jobs[job].user)
    assert record.comment == "tidegate:signal=USR1"
    assert record.requeueable
    assert (record.qos, record.restarts, record.time_limit_seconds) == ("normal", 0, None)
    assert record.start_time is not None
    assert all(state.nodes[name].is_busy and state.nodes[name].gpus_used == 2 for name in record.nodes)


async def test_the_tasks_of_a_waiting_array_are_counted(site: Site) -> None:
    job = site.submit(gpus_per_node=2, array_tasks=7)
    state = await site.until("two tasks run", lambda seen: sum(_runs(seen, i) for i in seen.jobs) == 2)
    assert state.jobs[job].array_tasks == 5
    assert state.jobs[job].is_pending
    running = [record for i, record in state.jobs.items() if i != job]
    assert all(record.array_tasks == 1 and record.gpus == 2 for record in running)
    assert {name for record in running for name in record.nodes} == {"node0", "node1"}


async def test_the_end_of_a_job_is_seen(site: Site) -> None:
    job = site.submit(seconds=1)
    await site.until("the job runs", lambda seen: _runs(seen, job))
    await site.until("the job is gone", lambda seen: job not in seen.jobs)
    assert site.end_state(job) == "COMPLETED"
    await site.until("its node is idle", lambda seen: not any(node.is_busy for node in seen.nodes.values()))


async def test_an_unknown_node_is_none(site: Site) -> None:
    assert await site.api.node("missing") is None


async def test_a_node_is_seen_live_with_its_extra(site: Site) -> None:
    site.add_node("extra-seen", "tidegate=loan-1")
    record = await site.api.node("extra-seen")
    assert record is not None
    assert (record.extra, record.gpus) == ("tidegate=loan-1", 2)


# -- drain and down -----------------------------------------------------------------------------------------------


async def test_drain_keeps_the_reason_and_lets_jobs_run(site: Site) -> None:
    job = site.submit(nodes=2, gpus_per_node=1)
    await site.until("the job runs", lambda seen: _runs(seen, job))
    await site.api.drain("node0", OURS)
    await site.api.drain("node0", OURS)
    node = await site.api.node("node0")
    assert node is not None
    assert "DRAIN" in node.states
    assert node.is_busy
    assert node.reason == OURS
    other = site.submit(nodes=2, gpus_per_node=1)
    site.passes(2)
    state = await site.api.observe()
    assert _runs(state, job)
    assert state.jobs[other].is_pending


async def test_a_drain_of_others_keeps_their_reason(site: Site) -> None:
    site.admin_drains("node0", "admin: bad fan")
    await site.api.drain("node0", OURS)
    node = await site.api.node("node0")
    assert node is not None
    assert (node.reason, "DRAIN" in node.states) == ("admin: bad fan", True)
    await site.api.down("node0", OURS)
    state = await site.until("slurmd takes DOWN back", lambda seen: "DRAIN" in seen.nodes["node0"].states)
    assert state.nodes["node0"].reason == "admin: bad fan"


async def test_drain_of_an_unknown_node_is_rejected_in_slurms_words(site: Site) -> None:
    with pytest.raises(Rejected, match="Invalid node name"):
        await site.api.drain("missing", OURS)


async def test_down_requeues_what_may_be_requeued_and_keeps_the_drain(site: Site) -> None:
    polite = site.submit(gpus_per_node=1)
    stubborn = site.submit(gpus_per_node=1, requeueable=False)
    await site.until("both run", lambda seen: _runs(seen, polite) and _runs(seen, stubborn))
    for name in ("node0", "node1"):
        await site.api.drain(name, OURS)
        await site.api.down(name, OURS)
    state = await site.until("both are off", lambda seen: _waits(seen, polite) and stubborn not in seen.jobs)
    assert site.end_state(stubborn) == "NODE_FAIL"
    assert state.jobs[polite].restarts == 1
    assert all("DRAIN" in state.nodes[name].states for name in ("node0", "node1"))
    assert all(state.nodes[name].reason == OURS for name in ("node0", "node1"))


async def test_down_without_an_earlier_drain_drains(site: Site) -> None:
    await site.api.down("node0", OURS)
    node = await site.api.node("node0")
    assert node is not None
    assert node.states & {"DRAIN"}
    assert node.reason == OURS


# -- delete -------------------------------------------------------------------------------------------------------


async def test_a_busy_node_is_not_deleted(site: Site) -> None:
    job = site.submit(nodes=2)
    await site.until("the job runs", lambda seen: _runs(seen, job))
    await site.api.drain("node0", OURS)
    with pytest.raises(Busy, match="node0"):
        await site.api.delete_node("node0")
    assert await site.api.node("node0") is not None


async def test_an_idle_node_is_deleted_and_again_is_fine(site: Site) -> None:
    site.add_node("extra-gone", "tidegate=loan-2")
    await site.api.drain("extra-gone", OURS)
    await site.api.delete_node("extra-gone")
    assert await site.api.node("extra-gone") is None
    assert "extra-gone" not in (await site.api.observe()).nodes
    await site.api.delete_node("extra-gone")


# -- jobs ---------------------------------------------------------------------------------------------------------


async def test_a_signal_reaches_the_batch_shell_and_the_job_may_go_on(site: Site) -> None:
    job = site.submit(on_signal="checkpoints")
    await site.until("the job runs", lambda seen: _runs(seen, job))
    await _until_trap_is_set(site)
    await site.api.signal_job(job, "USR1")
    state = await site.until("the signal is noticed", lambda seen: site.got_signal(job))
    assert _runs(state, job)


async def test_a_signal_can_end_a_job_well(site: Site) -> None:
    job = site.submit(on_signal="exits")
    await site.until("the job runs", lambda seen: _runs(seen, job))
    await _until_trap_is_set(site)
    await site.api.signal_job(job, "USR1")
    await site.until("the job is gone", lambda seen: job not in seen.jobs)
    assert site.end_state(job) == "COMPLETED"


async def test_an_unknown_signal_is_not_sent_and_harms_no_job(site: Site) -> None:
    job = site.submit()
    await site.until("the job runs", lambda seen: _runs(seen, job))
    for signal in ("NONSENSE", "KILL", "9", ""):
        with pytest.raises(Rejected, match="no signal that can be sent"):
            await site.api.signal_job(job, signal)
    assert _runs(await site.api.observe(), job)


async def test_a_requeued_job_waits_again(site: Site) -> None:
    if REQUEUE not in (await site.api.observe()).capabilities:
        with pytest.raises(Rejected, match="cannot requeue job 7"):
            await site.api.requeue_job(7)
        return
    job = site.submit(nodes=2)
    await site.until("the job runs", lambda seen: _runs(seen, job))
    for name in ("node0", "node1"):
        await site.api.drain(name, OURS)
    await site.api.requeue_job(job)
    state = await site.until("the job waits", lambda seen: _waits(seen, job))
    assert state.jobs[job].requeueable
    assert state.jobs[job].restarts == 1
    await site.api.requeue_job(job)
    state = await site.until("the nodes are empty", lambda seen: not any(n.is_busy for n in seen.nodes.values()))
    assert _waits(state, job)


async def test_a_job_that_may_not_be_requeued_runs_on(site: Site) -> None:
    if REQUEUE not in (await site.api.observe()).capabilities:
        return
    job = site.submit(requeueable=False)
    await site.until("the job runs", lambda seen: _runs(seen, job))
    with pytest.raises(Rejected, match="disabled"):
        await site.api.requeue_job(job)
    assert _runs(await site.api.observe(), job)


async def test_a_finished_job_is_never_started_again(site: Site) -> None:
    job = site.submit(seconds=1)
    await site.until("the job runs", lambda seen: _runs(seen, job))
    await site.until("the job is gone", lambda seen: job not in seen.jobs)
    await site.api.signal_job(job, "USR1")
    await site.api.cancel_job(job)
    if REQUEUE in (await site.api.observe()).capabilities:
        await site.api.requeue_job(job)
    assert job not in (await site.api.observe()).jobs
    assert site.end_state(job) == "COMPLETED"


async def test_a_running_and_a_waiting_job_are_cancelled(site: Site) -> None:
    running = site.submit(nodes=2, gpus_per_node=2)
    await site.until("the job runs", lambda seen: _runs(seen, running))
    waiting = site.submit()
    await site.until("the next job waits", lambda seen: _waits(seen, waiting))
    await site.api.cancel_job(waiting)
    await site.api.cancel_job(running)
    await site.until("both are gone", lambda seen: not {running, waiting} & set(seen.jobs))
    assert (site.end_state(running), site.end_state(waiting)) == ("CANCELLED", "CANCELLED")


async def test_a_signal_for_a_waiting_job_changes_nothing(site: Site) -> None:
    for name in ("node0", "node1"):
        await site.api.drain(name, OURS)
    job = site.submit()
    await site.until("the job waits", lambda seen: _waits(seen, job))
    await site.api.signal_job(job, "USR1")
    assert _waits(await site.api.observe(), job)


async def test_acts_on_an_unknown_job_are_fine(site: Site) -> None:
    await site.api.signal_job(987654, "USR1")
    await site.api.cancel_job(987654)
    if REQUEUE in (await site.api.observe()).capabilities:
        await site.api.requeue_job(987654)


# -- reservations -------------------------------------------------------------------------------------------------


def _reservation(state: SlurmState, start: float, *nodes: str) -> SlurmReservation:
    """Over these nodes, from so many seconds after the observation on, for half an hour."""
    assert state.observed
    begin = (state.observed + timedelta(seconds=start)).replace(microsecond=0)
    return SlurmReservation("tidegate-test", nodes, begin, begin + timedelta(minutes=30))


async def _can_reserve(site: Site) -> bool:
    """Whether this Slurm takes reservations; one that does not says so."""
    state = await site.api.observe()
    if RESERVATION in state.capabilities:
        return True
    assert state.release.startswith("24.")
    with pytest.raises(Rejected, match="takes no reservation by REST"):
        await site.api.reserve(_reservation(state, 60, *NODES))
    return False


async def test_a_job_that_would_run_into_a_reservation_waits_and_a_shorter_one_starts(site: Site) -> None:
    if not await _can_reserve(site):
        return
    running = site.submit()
    state = await site.until("a job without limit runs", lambda seen: _runs(seen, running))
    reservation = _reservation(state, 120, *NODES)
    await site.api.reserve(reservation)
    without, too_long = site.submit(), site.submit(limit_minutes=60)
    shorter = site.submit(limit_minutes=1)
    state = await site.until("the shorter job runs", lambda seen: _runs(seen, shorter))
    assert state.reservations == {reservation.name: reservation}
    assert _waits(state, too_long)
    assert _waits(state, without)
    assert _runs(state, running), "what ran stays"
    await site.api.withdraw(reservation.name)
    await site.api.withdraw(reservation.name)
    state = await site.until("all run", lambda seen: _runs(seen, too_long) and _runs(seen, without))
    assert not state.reservations


async def test_nodes_and_times_of_a_reservation_can_be_changed(site: Site) -> None:
    if not await _can_reserve(site):
        return
    state = await site.api.observe()
    await site.api.reserve(_reservation(state, 60, "node0"))
    changed = _reservation(state, 300, "node0", "node1")
    await site.api.reserve(changed)
    assert (await site.api.observe()).reservations == {changed.name: changed}
    await site.api.reserve(_reservation(state, 300, "node1"))
    job = site.submit(gpus_per_node=2)
    state = await site.until("it runs on the node that was left out", lambda seen: _runs(seen, job))
    assert state.jobs[job].nodes == ("node0",)
    await site.api.withdraw(changed.name)


async def test_a_node_cannot_be_deleted_while_a_reservation_of_it_has_begun(site: Site) -> None:
    if not await _can_reserve(site):
        return
    site.add_node("extra-0", "")
    state = await site.until("it registers", lambda seen: "extra-0" in seen.nodes)
    await site.api.reserve(_reservation(state, -5, "extra-0", "node0"))
    state = await site.until("it has begun", lambda seen: "RESERVED" in seen.nodes["extra-0"].states)
    begun = state.reservations["tidegate-test"]
    await site.api.drain("extra-0", OURS)
    with pytest.raises(Busy):
        await site.api.delete_node("extra-0")
    await site.api.reserve(_reservation(state, 5, "node0"))
    after = (await site.api.observe()).reservations["tidegate-test"]
    assert (after.nodes, after.start) == (("node0",), begun.start), "the beginning of what has begun stays"
    await site.api.delete_node("extra-0")
    await site.api.withdraw("tidegate-test")


async def test_a_node_that_registers_drained_takes_jobs_once_it_is_resumed(site: Site) -> None:
    for name in NODES:
        await site.api.drain(name, OURS)
    site.add_node("extra-0", "tidegate=extra-0-1", drained=JOINING_REASON)
    job = site.submit()
    state = await site.until("it registers", lambda seen: "extra-0" in seen.nodes and job in seen.jobs)
    assert (state.nodes["extra-0"].is_drained, state.nodes["extra-0"].reason) == (True, JOINING_REASON)
    site.passes(2)
    assert _waits(await site.api.observe(), job)
    await site.api.resume("extra-0")
    await site.api.resume("extra-0")
    state = await site.until("the job runs", lambda seen: _runs(seen, job))
    assert not state.nodes["extra-0"].is_drained
    assert not state.nodes["extra-0"].reason


# -- only real ones -----------------------------------------------------------------------------------------------


async def test_each_way_to_ask_for_nodes_is_understood(real: RealSite) -> None:
    for name in ("node0", "node1"):
        await real.api.drain(name, OURS)
    ids = {real.sbatch(f"--job-name={shape.name}", *shape.sbatch): shape for shape in SHAPES}
    state = await real.until("all wait", lambda seen: set(ids) <= set(seen.jobs))
    wrong = {shape.name: difference(shape, state.jobs[job_id]) for job_id, shape in ids.items()}
    assert {name: fields for name, fields in wrong.items() if fields} == {}


async def test_a_signal_reaches_steps_too(real: RealSite) -> None:
    step = "trap 'touch /shared/signalled-step-$SLURM_JOB_ID' USR1; while :; do sleep 0.2; done"
    job = real.sbatch("--gres=gpu:1", script=f'#!/bin/bash\ntrap : USR1\nsrun bash -c "{step}" &\nwait; wait; wait\n')
    await real.until("the job runs", lambda seen: _runs(seen, job))
    await real.until("the step runs", lambda _: f"{job}.0" in real.lab.slurm("squeue", "--steps", "--noheader"))
    await _until_trap_is_set(real)
    await real.api.signal_job(job, "USR1")
    noticed = real.lab.shared_dir / f"signalled-step-{job}"
    await real.until("the step notices", lambda _: noticed.exists())


async def test_an_expired_and_a_foreign_token_are_told_apart(real: RealSite) -> None:
    past = {"sun": "slurm", "exp": int((datetime.now(UTC) - timedelta(minutes=1)).timestamp())}
    future = {"sun": "slurm", "exp": int((datetime.now(UTC) + timedelta(minutes=1)).timestamp())}
    secrets = {
        "TokenExpired": {"token": jwt.encode(past, real.lab.jwt_key, algorithm="HS256").encode()},
        "TokenRefused": {"token": jwt.encode(future, b"x" * 32, algorithm="HS256").encode()},
        "KeyRefused": {"jwt_hs256.key": b"x" * 32},
    }
    for reason, secret in secrets.items():
        client = make_client(real.lab, secret)
        try:
            with pytest.raises(TokenRefused) as error:
                await client.observe()
            assert error.value.reason == reason
            with pytest.raises(TokenRefused):
                await client.node("node0")
        finally:
            await client.close()


async def test_a_user_without_rights_is_told_from_one_without_a_token(real: RealSite) -> None:
    job = int(real.lab.slurm("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 600", user="root"))
    client = make_client(real.lab, user="alice")
    try:
        assert "node0" in (await client.observe()).nodes
        for call in (client.drain("node0", OURS), client.signal_job(job, "USR1"), client.cancel_job(job)):
            with pytest.raises(PermissionRefused, match="Administrator"):
                await call
    finally:
        await client.close()
    assert job in (await real.api.observe()).jobs
    await real.api.cancel_job(job)


async def _until_trap_is_set(site: Site) -> None:
    """A batch shell that has just been started has not yet read the line with its trap."""
    started = datetime.now(UTC)
    if isinstance(site, RealSite):
        await site.until("the shell is up", lambda _: datetime.now(UTC) - started > timedelta(seconds=1))

"""What only the fake can do: fail on purpose, and keep books. The rest is in the contract that real Slurm keeps too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes.slurm import FakeSlurm
from tests.slurm.restd import START, Clock
from tidegate.slurm.errors import Rejected, Unreachable

OURS = "tidegate: test"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slurm(clock: Clock) -> FakeSlurm:
    made = FakeSlurm(clock, completing_seconds=2.0, requeue_delay_seconds=5.0)
    made.register("a", gpus=2, cpus=4, memory_mib=1000)
    return made


def _pass(slurm: FakeSlurm, clock: Clock, seconds: float) -> None:
    clock.go_on(seconds)
    slurm.tick()


@pytest.mark.parametrize(
    ("fail", "error"),
    [
        (lambda slurm: setattr(slurm, "unreachable", True), Unreachable),
        (lambda slurm: setattr(slurm, "errors", "Zero bytes were transmitted"), Rejected),
    ],
    ids=["unreachable", "errors in 200"],
)
async def test_a_failing_slurm_tells_nothing_and_does_nothing(
    slurm: FakeSlurm, fail: Callable[[FakeSlurm], Any], error: type[Exception]
) -> None:
    fail(slurm)
    for call in (
        slurm.observe(),
        slurm.node("a"),
        slurm.node("missing"),
        slurm.drain("a", OURS),
        slurm.delete_node("a"),
    ):
        with pytest.raises(error):
            await call
    assert not slurm.nodes["a"].drained


async def test_a_lost_answer_hides_an_act_that_was_done(slurm: FakeSlurm) -> None:
    slurm.loses_answers = True
    with pytest.raises(Unreachable):
        await slurm.drain("a", OURS)
    assert slurm.nodes["a"].drained
    with pytest.raises(Unreachable):
        await slurm.delete_node("a")
    assert "a" not in slurm.nodes


async def test_completing_holds_the_node_and_then_lets_it_go(slurm: FakeSlurm, clock: Clock) -> None:
    job = slurm.submit(duration_seconds=10)
    slurm.tick()
    _pass(slurm, clock, 10)
    state = await slurm.observe()
    assert state.jobs[job].states == {"COMPLETED", "COMPLETING"}
    assert "COMPLETING" in state.nodes["a"].states
    assert state.nodes["a"].is_busy
    _pass(slurm, clock, 2)
    state = await slurm.observe()
    assert job not in state.jobs
    assert not state.nodes["a"].is_busy


async def test_the_books_tell_what_became_of_each_run(slurm: FakeSlurm, clock: Clock) -> None:
    saving = slurm.submit(duration_seconds=100, on_signal="checkpoints")
    slurm.tick()
    _pass(slurm, clock, 30)
    await slurm.signal_job(saving, "USR1")
    _pass(slurm, clock, 10)
    await slurm.requeue_job(saving)
    (run,) = slurm.history[saving]
    assert (run.end_state, run.nodes, run.start, run.lost_seconds) == ("REQUEUED", ("a",), START, 10)
    _pass(slurm, clock, 5)
    _pass(slurm, clock, 69)
    assert slurm.jobs[saving].state == "RUNNING"
    _pass(slurm, clock, 1)
    assert [entry.end_state for entry in slurm.history[saving]] == ["REQUEUED", "COMPLETED"]


async def test_a_requeued_job_waits_for_a_while_and_says_so(slurm: FakeSlurm, clock: Clock) -> None:
    job = slurm.submit()
    slurm.tick()
    await slurm.requeue_job(job)
    _pass(slurm, clock, 2)
    state = await slurm.observe()
    assert (state.jobs[job].reason, state.jobs[job].nodes) == ("BeginTime", ())
    _pass(slurm, clock, 3)
    assert slurm.jobs[job].state == "RUNNING"


async def test_a_time_limit_ends_a_job(slurm: FakeSlurm, clock: Clock) -> None:
    job = slurm.submit(duration_seconds=100, time_limit_seconds=60)
    slurm.tick()
    assert (await slurm.observe()).jobs[job].end_time == START.replace(minute=1)
    _pass(slurm, clock, 60)
    assert slurm.history[job][0].end_state == "TIMEOUT"


async def test_a_dead_slurmd_takes_its_jobs_with_it_and_leaves_its_record(slurm: FakeSlurm) -> None:
    polite, stubborn = slurm.submit(), slurm.submit(requeueable=False)
    slurm.tick()
    slurm.admin_drains("a", "admin: fan")
    slurm.slurmd_dies("a")
    assert slurm.alive() == set()
    assert (slurm.jobs[polite].state, slurm.jobs[stubborn].state) == ("PENDING", "NODE_FAIL")
    node = await slurm.node("a")
    assert node is not None
    assert node.states >= {"DOWN", "DRAIN", "NOT_RESPONDING"}
    slurm.register("a")
    node = await slurm.node("a")
    assert node is not None
    assert (node.states >= {"IDLE", "DRAIN"}, node.reason) == (True, "admin: fan")


async def test_the_scheduler_respects_rooms_priorities_and_whole_nodes(slurm: FakeSlurm, clock: Clock) -> None:
    first = slurm.submit(gpus_per_node=1, priority=1)
    whole = slurm.submit(gpus_per_node=0, exclusive=True, priority=5)
    too_big = slurm.submit(gpus_per_node=3)
    elsewhere = slurm.submit(constraints=("a100",))
    slurm.tick()
    assert {i for i, job in slurm.jobs.items() if job.state == "RUNNING"} == {whole}
    _pass(slurm, clock, 60)
    _pass(slurm, clock, 2)
    assert {i for i, job in slurm.jobs.items() if job.state == "RUNNING"} == {first}
    assert {too_big, elsewhere} == {i for i, job in slurm.jobs.items() if job.state == "PENDING"}

"""How jobs leave a recalled node."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.sharing.build import ago, job
from tidegate.api import Ladder, TouchedJob
from tidegate.api.batch_pool import Recall
from tidegate.sharing.ladder import Rungs, climb, declared_signal
from tidegate.sharing.snapshot import SlurmJob

START = ago(0)
LADDER = Ladder(drain_seconds=100, checkpoint_seconds=60, requeue_seconds=30)
SAVES = "tidegate:signal=USR1"


def after(
    seconds: float,
    *jobs: SlurmJob,
    touched: Sequence[TouchedJob] = (),
    can_requeue: bool = True,
    ladder: Ladder = LADDER,
    **terms: Any,
) -> Rungs:
    now = START + timedelta(seconds=seconds)
    return climb(jobs, tuple(touched), START, now, ladder, Recall.model_validate(terms), can_requeue)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def there(job_id: int = 1, **more: Any) -> SlurmJob:
    return job(job_id, on="gpu-1", **more)


def touched(job_id: int = 1, action: str = "Waited", seconds: float = 0, requeueable: bool = True) -> TouchedJob:
    return TouchedJob.model_validate(
        {"job_id": job_id, "action": action, "time": at(seconds), "requeueable": requeueable}
    )


def actions(rungs: Rungs) -> dict[int, str]:
    return {one.job_id: one.action for one in rungs.touched}


@pytest.mark.parametrize(
    ("comment", "signal"),
    [
        ("tidegate:signal=USR1", "USR1"),
        ("tidegate:signal=SIGUSR1", "USR1"),
        ("exp 7, tidegate:signal=TERM please", "TERM"),
        ("tidegate:signal=usr1", None),
        ("tidegate:signal=", None),
        ("tidegate:signal=NOSUCH", None),
        ("tidegate:signal=KILL", None),
        ("signal=USR1", None),
        ("", None),
    ],
)
def test_a_signal_is_what_the_job_declared_in_its_comment(comment: str, signal: str | None) -> None:
    assert declared_signal(comment) == signal


def test_jobs_may_end_by_themselves_first() -> None:
    rungs = after(99, there(comment=SAVES), there(2, requeueable=False))
    assert (rungs.signal, rungs.requeue, rungs.cancel, rungs.down) == ((), (), (), False)
    assert rungs.deadline is not None
    assert rungs.deadline >= at(100)
    assert actions(rungs) == {1: "Waited", 2: "Waited"}
    assert after(99, there()).deadline == at(100)


def test_then_those_that_declared_a_signal_get_it_once() -> None:
    rungs = after(100, there(comment=SAVES))
    assert rungs.signal == ((1, "USR1"),)
    assert (rungs.requeue, rungs.down, rungs.deadline) == ((), False, at(160))
    again = after(159, there(comment=SAVES), touched=rungs.touched)
    assert (again.signal, again.requeue, again.down) == ((), (), False)
    assert again.touched == rungs.touched


def test_a_job_without_a_signal_is_requeued_at_once() -> None:
    rungs = after(100, there())
    assert (rungs.requeue, rungs.signal, rungs.cancel, rungs.down) == ((1,), (), (), False)
    assert rungs.deadline == at(130)
    assert actions(rungs) == {1: "Requeued"}


def test_a_job_that_had_its_signal_is_requeued_when_its_time_is_over() -> None:
    rungs = after(160, there(comment=SAVES), touched=[touched(action="Signalled", seconds=100)])
    assert rungs.requeue == (1,)
    assert rungs.deadline == at(190)


def test_requeueing_is_repeated_until_the_job_is_gone_and_keeps_its_deadline() -> None:
    rungs = after(115, there(), touched=[touched(action="Requeued", seconds=100)])
    assert (rungs.requeue, rungs.down, rungs.deadline) == ((1,), False, at(130))


def test_down_is_the_last_rung() -> None:
    rungs = after(130, there(), touched=[touched(action="Requeued", seconds=100)])
    assert rungs.down
    assert rungs.requeue == ()
    assert actions(rungs) == {1: "EndedByDown"}
    assert rungs.touched[0].time == at(130)


def test_down_stays_wanted_until_it_is_done() -> None:
    rungs = after(131, there(), touched=[touched(action="EndedByDown", seconds=130)])
    assert rungs.down
    assert rungs.touched == (touched(action="EndedByDown", seconds=130),)


def test_a_late_operator_still_requeues_before_down() -> None:
    rungs = after(100_000, there())
    assert rungs.requeue == (1,)
    assert not rungs.down


@pytest.mark.parametrize("policy", ["Protect", "Cancel"])
def test_a_requeueable_job_is_never_cancelled(policy: str) -> None:
    for seconds in (0, 100, 160, 190, 10**6):
        assert after(seconds, there(), nonRequeueableJobs=policy).cancel == ()


def test_wait_lets_a_job_that_may_not_be_requeued_end_within_its_time() -> None:
    last = there(requeueable=False)
    rungs = after(999, last, nonRequeueableSeconds=1000)
    assert (rungs.requeue, rungs.cancel, rungs.down, rungs.deadline) == ((), (), False, at(1000))
    assert actions(rungs) == {1: "Waited"}
    rungs = after(1000, last, touched=rungs.touched, nonRequeueableSeconds=1000)
    assert (rungs.cancel, rungs.down, rungs.deadline) == ((1,), False, at(1030))
    rungs = after(1030, last, touched=rungs.touched, nonRequeueableSeconds=1000)
    assert (rungs.cancel, rungs.down) == ((), True)
    assert actions(rungs) == {1: "EndedByDown"}


def test_cancel_ends_a_job_that_may_not_be_requeued_after_its_checkpoint_time() -> None:
    last = there(requeueable=False, comment=SAVES)
    rungs = after(100, last, nonRequeueableJobs="Cancel")
    assert (rungs.signal, rungs.cancel) == (((1, "USR1"),), ())
    rungs = after(160, last, touched=rungs.touched, nonRequeueableJobs="Cancel")
    assert (rungs.cancel, rungs.requeue, rungs.down) == ((1,), (), False)
    assert actions(rungs) == {1: "Cancelled"}


def test_down_waits_for_the_promised_time_of_other_jobs() -> None:
    stuck, spared = there(1), there(2, requeueable=False)
    before = [touched(1, "Requeued", 100), touched(2, requeueable=False)]
    rungs = after(500, stuck, spared, touched=before, nonRequeueableSeconds=1000)
    assert not rungs.down
    assert rungs.requeue == (1,)
    assert rungs.deadline == at(1000)


def test_without_a_requeue_call_jobs_wait_for_down_and_down_for_promises() -> None:
    plain, saving = there(1), there(2, comment=SAVES)
    rungs = after(100, plain, saving, can_requeue=False)
    assert (rungs.requeue, rungs.down) == ((), False)
    assert rungs.signal == ((2, "USR1"),)
    assert actions(rungs) == {1: "Waited", 2: "Signalled"}, "nothing was ended yet, so nothing may say so"
    rungs = after(159, plain, saving, can_requeue=False, touched=rungs.touched)
    assert not rungs.down
    rungs = after(160, plain, saving, can_requeue=False, touched=rungs.touched)
    assert rungs.down
    assert actions(rungs) == {1: "EndedByDown", 2: "EndedByDown"}


def test_without_a_requeue_call_down_spares_those_that_may_not_be_requeued() -> None:
    rungs = after(500, there(1), there(2, requeueable=False), can_requeue=False, nonRequeueableSeconds=1000)
    assert not rungs.down
    assert rungs.deadline == at(1000)


def test_what_ends_by_itself_is_neither_requeued_nor_lost() -> None:
    ending = there(states=["COMPLETED", "COMPLETING"], requeueable=False)
    rungs = after(170, ending, nonRequeueableJobs="Cancel")
    assert (rungs.requeue, rungs.cancel, rungs.down) == ((), (), False)
    assert actions(rungs) == {1: "Waited"}
    assert "cleaned up" in rungs.message


def test_a_job_that_was_requeued_and_is_stuck_completing_is_ended_by_down() -> None:
    stuck = there(states=["COMPLETING"])
    before = [touched(action="Requeued", seconds=100)]
    assert after(129, stuck, touched=before).requeue == (), "it is on its way already"
    rungs = after(130, stuck, touched=before)
    assert rungs.down
    assert actions(rungs) == {1: "Requeued"}


@pytest.mark.parametrize("requeueable", [True, False])
def test_stuck_cleaning_up_is_bounded_whatever_the_policy(requeueable: bool) -> None:
    stuck = there(states=["COMPLETED", "COMPLETING"], requeueable=requeueable)
    assert not after(189, stuck).down
    assert after(190, stuck).down
    assert actions(after(190, stuck)) == {1: "Waited"}, "the job was over: DOWN ended nothing"


def test_a_job_that_ended_late_has_the_patience_for_cleaning_up_from_then_on() -> None:
    ending = there(states=["COMPLETED", "COMPLETING"], requeueable=False, end_time=at(5000))
    assert not after(5001, ending).down
    assert after(5030, ending).down


def test_a_time_limit_in_the_future_does_not_prolong_the_cleaning_up() -> None:
    assert after(190, there(states=["COMPLETING"], end_time=at(90_000))).down


def test_a_node_that_is_busy_without_jobs_is_being_cleaned_up() -> None:
    rungs = after(189)
    assert (rungs.down, rungs.deadline) == (False, at(190))
    assert after(190).down
    assert "cleaning up" in rungs.message


def test_a_ladder_without_waiting_takes_the_next_rung_at_once() -> None:
    fast = Ladder(drain_seconds=0, checkpoint_seconds=0, requeue_seconds=15)
    rungs = after(0, there(comment=SAVES), ladder=fast)
    assert (rungs.signal, rungs.requeue) == ((), (1,))


def test_what_was_touched_is_remembered_with_what_it_cost() -> None:
    (record,) = after(100, there(gpus=16, started=ago(500))).touched
    assert (record.gpus, record.start_time, record.time, record.requeueable) == (16, ago(500), at(100), True)


def test_jobs_that_are_gone_stay_in_the_record() -> None:
    rungs = after(120, there(2), touched=[touched(1, "Requeued", 100)])
    assert actions(rungs) == {1: "Requeued", 2: "Requeued"}


def test_the_message_names_the_jobs() -> None:
    rungs = after(100, there(1, comment=SAVES), there(2), there(3, requeueable=False))
    assert rungs.message == ("job 1 was signalled and saves its work; job 2 is being requeued; job 3 may end by itself")


@pytest.mark.parametrize("can_requeue", [True, False])
@pytest.mark.parametrize("requeueable", [True, False])
def test_a_job_gets_its_time_to_save_once_even_after_the_operator_was_away(
    requeueable: bool, can_requeue: bool
) -> None:
    saving = there(comment=SAVES, requeueable=requeueable)
    known: tuple[TouchedJob, ...] = ()
    signals = []
    for second in range(600, 700):
        rungs = after(second, saving, touched=known, can_requeue=can_requeue, non_requeueable_seconds=3600)
        known = rungs.touched
        signals += [second for _ in rungs.signal]
        if second < 600 + LADDER.checkpoint_seconds:
            assert (rungs.requeue, rungs.cancel, rungs.down) == ((), (), False)
    assert signals == [600]

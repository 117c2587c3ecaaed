"""The trip of one node: each step, what makes it wait, its deadline, and what happens then."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.sharing.build import (
    CLEAN,
    DRAINED,
    FENCED,
    GPU,
    LEFT,
    LENT,
    NOW,
    RECALLED,
    RETURNED,
    VACATED,
    ago,
    back_for,
    claim,
    claimed_node,
    index,
    job,
    lent_node,
    loan,
    names,
    node,
    one,
    pod,
    pool,
    slurm,
    slurm_node,
    slurmd,
)
from tidegate.api import NodeLoan, NodeLoanStatus, TouchedJob
from tidegate.api.names import JOINING_REASON
from tidegate.sharing.commands import (
    Command,
    ConfirmVacated,
    CreateSlurmdPod,
    DeleteSlurmdPod,
    DownSlurmNode,
    DrainSlurmNode,
    RecallLoan,
    ReleaseNode,
    ResumeSlurmNode,
    SignalJob,
    WriteLoanStatus,
)
from tidegate.sharing.loans import advance, finish
from tidegate.sharing.snapshot import SlurmReservation, SlurmState, Taint

HOME = slurm()
JOINED = slurm(slurm_node())


def step(mine: NodeLoan, *things: Any, now: datetime = NOW) -> list[Command]:
    return advance(mine, index(mine, *things, now=now))


def status(mine: NodeLoan, *things: Any, now: datetime = NOW) -> NodeLoanStatus:
    """The loan's status after the step."""
    written = [c for c in step(mine, *things, now=now) if isinstance(c, WriteLoanStatus)]
    return written[0].status if written else mine.status


def recalled(mine: NodeLoan, *things: Any, now: datetime = NOW) -> str:
    """The reason for which the step turns the loan around, and nothing else that it does."""
    commands = step(mine, *things, now=now)
    assert names(c for c in commands if not isinstance(c, WriteLoanStatus)) == ["RecallLoan"]
    back = one(commands, RecallLoan).back
    assert back.message
    return back.reason


def said(what: NodeLoanStatus, type_: str) -> tuple[str, str]:
    condition = what.condition(type_)
    assert condition is not None, f"nothing was said about {type_}"
    return condition.status, condition.reason


def due(what: NodeLoanStatus) -> float:
    """Seconds from now to the deadline."""
    assert what.deadline is not None
    return (what.deadline - NOW).total_seconds()


# --- Fenced

NEW = loan(done=(), created=ago(10))


def test_a_new_loan_puts_its_fence_on_the_node() -> None:
    assert names(step(NEW, node())) == ["WriteLoanStatus", "FenceNode"]
    after = status(NEW, node())
    assert (due(after), after.message) == (20, "putting the fence on node gpu-1")


def test_fenced_is_said_when_the_node_shows_taint_and_label() -> None:
    assert names(step(NEW, lent_node())) == ["WriteLoanStatus"]
    assert said(status(NEW, lent_node()), "Fenced") == ("True", "FenceInPlace")
    assert "FenceNode" in names(step(NEW, node(fence="gpu-1-1")))
    assert "FenceNode" in names(step(NEW, node(label="gpu-1-1")))


def test_a_fence_that_does_not_come_in_time_ends_the_loan() -> None:
    assert recalled(loan(done=(), created=ago(30)), node()) == "FenceOverdue"
    assert "RecallLoan" not in names(step(loan(done=(), created=ago(29)), node()))


@pytest.mark.parametrize("done", [(), FENCED, VACATED, LENT])
def test_a_node_that_somebody_else_holds_is_not_ours(done: tuple[str, ...]) -> None:
    assert recalled(loan(done=done, created=ago(5)), claimed_node(), JOINED) == "NodeTaken"
    assert recalled(loan(done=done, created=ago(5)), node(fence="gpu-1-9"), JOINED) == "NodeTaken"


def test_a_fence_that_somebody_took_off_is_put_back_with_a_new_deadline() -> None:
    mine = loan(since=ago(5000))
    commands = step(mine, node(), slurmd(), JOINED)
    assert names(commands) == ["WriteLoanStatus", "FenceNode"]
    after = status(mine, node(), slurmd(), JOINED)
    assert said(after, "Fenced") == ("False", "FenceLost")
    assert due(after) == 30
    assert after.condition("Overdue") is None


@pytest.mark.parametrize("done", [(), FENCED, VACATED, LENT])
@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ([], "NodeLost"),
        ([lent_node(unschedulable=True)], "Cordoned"),
        ([lent_node(ready=False)], "NotReady"),
        ([lent_node(deleting=True)], "NodeDeleting"),
        ([lent_node(taints=[Taint("site/bad", "", "NoExecute")])], "Tainted"),
        ([lent_node(labels={"tidegate.dev/lendable": "no"})], "NotSelected"),
        ([lent_node(), pool(stopPolicy="HoldAndDrain")], "PoolStopped"),
        ([lent_node(), pool(deleted=NOW)], "PoolDeleted"),
        ([lent_node(), pool("other")], "PoolDeleted"),
    ],
)
def test_at_each_step_what_others_do_ends_the_loan(done: tuple[str, ...], target: list[Any], reason: str) -> None:
    assert recalled(loan(done=done, created=ago(5)), slurmd(), JOINED, *target) == reason


def test_a_pool_on_hold_keeps_its_loans() -> None:
    assert step(loan(), lent_node(), slurmd(), JOINED, pool(stopPolicy="Hold")) == []


# --- Vacated


def test_behind_the_fence_the_api_server_itself_is_asked_for_gpu_pods() -> None:
    mine = loan(done=FENCED)
    commands = step(mine, lent_node())
    assert names(commands) == ["WriteLoanStatus", "ConfirmVacated"]
    assert one(commands, ConfirmVacated).loan == mine
    assert due(status(mine, lent_node())) == 20


def test_a_gpu_pod_that_came_before_the_fence_ends_the_loan() -> None:
    assert recalled(loan(done=FENCED), lent_node(), pod(on="gpu-1")) == "NotVacant"
    assert "ConfirmVacated" in names(step(loan(done=FENCED), lent_node(), pod(on="gpu-1", gpus=0)))


def test_a_node_that_cannot_be_shown_empty_in_time_goes_back() -> None:
    assert recalled(loan(done=FENCED, since=ago(30)), lent_node()) == "VacateOverdue"


# --- Joined and Lent


def test_then_slurmd_is_started_with_what_the_node_has_left() -> None:
    daemon = pod("log", on="gpu-1", gpus=0, cpus=1.5, memory_mib=2000)
    command = one(step(loan(done=VACATED), lent_node(), daemon, HOME), CreateSlurmdPod)
    assert (command.cpus, command.memory_mib) == (62, 510_000)
    assert command.cluster.metadata.name == "slurm"
    assert due(status(loan(done=VACATED), lent_node(), HOME)) == 290


def test_a_node_without_a_whole_cpu_left_goes_back() -> None:
    daemon = pod("log", on="gpu-1", gpus=0, cpus=63.5)
    assert recalled(loan(done=VACATED), lent_node(), daemon, HOME) == "NoRoom"


@pytest.mark.parametrize(
    "silent", [slurm(observed=None), slurm(observed=ago(26)), slurm(slurm_node(), error="down"), slurm(error="down")]
)
def test_while_slurm_is_silent_nothing_is_started_or_concluded(silent: SlurmState) -> None:
    assert names(step(loan(done=VACATED), lent_node(), silent)) == ["WriteLoanStatus"]
    assert names(step(loan(done=VACATED), lent_node(), slurmd(), silent)) == ["WriteLoanStatus"]
    assert not status(loan(done=VACATED), lent_node(), slurmd(), silent).is_true("Joined")
    assert recalled(loan(done=VACATED, since=ago(300)), lent_node(), silent) == "JoinOverdue"


def test_the_record_of_an_ended_loan_is_deleted_first() -> None:
    commands = step(loan(name="gpu-1-2", done=VACATED), lent_node(loan="gpu-1-2"), slurm(slurm_node(loan="gpu-1-1")))
    assert names(commands) == ["WriteLoanStatus", "DeleteSlurmNode"]


def test_the_record_of_a_live_loan_is_not_deleted() -> None:
    twin = loan("gpu-1.b", name="twin")
    nodes = [lent_node("gpu-1.a", loan="mine"), lent_node("gpu-1.b", loan="twin")]
    mine = loan("gpu-1.a", name="mine", done=VACATED)
    assert recalled(mine, *nodes, twin, slurm(slurm_node(loan="twin"))) == "SlurmNameTaken"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (slurm_node(extra="theirs"), "SlurmNameTaken"),
        (slurm_node(extra=""), "SlurmNameTaken"),
        (slurm_node("gpu-1", "IDLE", "DRAIN", loan="gpu-1-0", reason="bad fan"), "DrainedByOthers"),
    ],
)
def test_a_record_of_somebody_else_ends_the_loan(record: Any, reason: str) -> None:
    assert recalled(loan(done=VACATED), lent_node(), slurm(record)) == reason


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (slurmd(on="", scheduler_message="0/5 nodes"), "is not bound: 0/5 nodes"),
        (slurmd(on=""), "is not bound: waiting for kube-scheduler"),
        (slurmd(phase="Pending", waiting_reason="ErrImagePull"), "does not start: ErrImagePull"),
        (slurmd(), "is Running, waiting for it to register"),
    ],
)
def test_while_slurmd_joins_its_story_is_told(mine: Any, words: str) -> None:
    after = status(loan(done=VACATED), lent_node(), mine, HOME)
    assert after.message == f"slurmd pod tidegate/slurmd-gpu-1-1 {words}"
    assert names(step(loan(done=VACATED), lent_node(), mine, HOME)) == ["WriteLoanStatus"]
    late = one(step(loan(done=VACATED, since=ago(300)), lent_node(), mine, HOME), RecallLoan)
    assert late.back.reason == "JoinOverdue"
    assert late.back.message.endswith(words)


def test_a_slurmd_pod_that_the_kubelet_refused_ends_the_loan() -> None:
    assert recalled(loan(done=VACATED), lent_node(), slurmd(phase="Failed"), HOME) == "PodRefused"


def test_a_gpu_pod_that_a_stale_scheduler_bound_ends_the_loan() -> None:
    assert recalled(loan(done=VACATED), lent_node(), slurmd(), pod(on="gpu-1"), HOME) == "NotVacant"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (slurm_node("gpu-1", "IDLE", "INVALID_REG"), "SlurmNodeInvalid"),
        (slurm_node("gpu-1", "DOWN"), "SlurmNodeInvalid"),
        (slurm_node(gpus=7), "GpuCountDiffers"),
        (slurm_node(gpus=0), "GpuCountDiffers"),
    ],
)
def test_a_node_that_registers_otherwise_than_lent_goes_back(record: Any, reason: str) -> None:
    assert recalled(loan(done=VACATED), lent_node(), slurmd(), slurm(record)) == reason


LATER = claim(start_time=NOW + timedelta(hours=1), duration_seconds=60)
RESERVED = SlurmReservation("tidegate-uid-c1", ("gpu-1",), NOW + timedelta(seconds=3479), NOW + timedelta(seconds=3660))


def told(*parts: Any, **more: Any) -> SlurmState:
    """A Slurm that takes reservations."""
    return slurm(*parts, capabilities=("requeue", "reservation"), **more)


def test_slurmd_registers_drained_where_slurm_has_to_be_told_of_a_reservation_first() -> None:
    def drained(*things: Any) -> bool:
        return one(step(loan(done=VACATED), lent_node(), *things), CreateSlurmdPod).drained

    assert drained(told(), LATER)
    assert not drained(told())
    assert not drained(slurm(), LATER)


def test_a_node_that_registered_drained_takes_jobs_as_soon_as_slurm_knows() -> None:
    joining = slurm_node("gpu-1", "IDLE", "DRAIN", reason=JOINING_REASON)
    mine, here = loan(done=VACATED), [lent_node(), slurmd()]
    before = step(mine, *here, told(joining), LATER)
    assert names(before) == ["WriteLoanStatus"]
    assert one(before, WriteLoanStatus).status.message == "telling Slurm of reservations first"
    assert one(step(mine, *here, told(joining, RESERVED), LATER), ResumeSlurmNode).cluster_name == "slurm"
    assert one(step(mine, *here, told(joining)), ResumeSlurmNode), "the reservation is over"


def test_a_node_that_is_recalled_while_it_joins_is_drained_for_that() -> None:
    """So that nobody takes its drain for one that may be lifted."""
    joining = slurm_node("gpu-1", "IDLE", "DRAIN", reason=JOINING_REASON)
    back = loan(done=(*VACATED, "Recalled"), back=back_for("c1"))
    assert (
        one(step(back, lent_node(), slurmd(), told(joining)), DrainSlurmNode).reason == "tidegate: Claimed for team/c1"
    )


def test_a_node_that_is_drained_while_it_joins_waits_until_its_deadline() -> None:
    drained = slurm(slurm_node("gpu-1", "IDLE", "DRAIN", reason="maintenance"))
    after = status(loan(done=VACATED), lent_node(), slurmd(), drained)
    assert not after.is_true("Joined")
    assert after.message == "Slurm node gpu-1 is drained: maintenance"
    assert recalled(loan(done=VACATED, since=ago(300)), lent_node(), slurmd(), drained) == "JoinOverdue"


def test_a_node_that_takes_jobs_has_joined_and_is_lent() -> None:
    after = status(loan(done=VACATED), lent_node(), slurmd(), JOINED)
    assert said(after, "Joined") == ("True", "Registered")
    assert said(after, "Lent") == ("True", "SlurmOwns")
    assert (after.state, after.deadline) == ("Lent", None)
    assert names(step(loan(done=VACATED), lent_node(), slurmd(), JOINED)) == ["WriteLoanStatus"]


# --- while it is lent


def test_a_lent_node_is_left_alone() -> None:
    assert step(loan(), lent_node(), slurmd(), JOINED) == []
    busy = slurm(slurm_node("gpu-1", "ALLOCATED"), job(on="gpu-1"))
    assert step(loan(), lent_node(), slurmd(), busy) == []


@pytest.mark.parametrize("pods", [[], [slurmd(deleting=True)], [slurmd(phase="Failed")]])
def test_a_lent_node_without_slurmd_comes_back(pods: list[Any]) -> None:
    assert recalled(loan(), lent_node(), *pods, JOINED) == "SlurmdLost"


def test_a_lent_node_that_slurm_does_not_know_comes_back() -> None:
    assert recalled(loan(), lent_node(), slurmd(), HOME) == "SlurmNodeLost"
    assert recalled(loan(), lent_node(), slurmd(), slurm(slurm_node(loan="gpu-1-7"))) == "SlurmNodeLost"


def test_a_lent_node_that_is_down_and_empty_comes_back() -> None:
    assert recalled(loan(), lent_node(), slurmd(), slurm(slurm_node("gpu-1", "DOWN"))) == "SlurmNodeUnhealthy"
    busy = slurm(slurm_node("gpu-1", "DOWN", "COMPLETING"))
    assert step(loan(), lent_node(), slurmd(), busy) == []
    assert step(loan(), lent_node(), slurmd(), slurm(slurm_node("gpu-1", "DOWN"), job(on="gpu-1"))) == []


def test_a_silent_slurm_changes_nothing_but_the_message() -> None:
    for silent in (slurm(error="down"), slurm(observed=ago(60))):
        assert names(step(loan(), lent_node(), slurmd(), silent)) == ["WriteLoanStatus"]
        assert status(loan(), lent_node(), slurmd(), silent).message == "Slurm slurm does not answer"


def test_a_drain_of_somebody_else_is_told_and_kept() -> None:
    drained = slurm(slurm_node("gpu-1", "IDLE", "DRAIN", reason="bad fan"))
    assert names(step(loan(), lent_node(), slurmd(), drained)) == ["WriteLoanStatus"]
    assert "bad fan" in status(loan(), lent_node(), slurmd(), drained).message


# --- Recalled, Drained

BACK = loan(done=LENT, wanted="Returned", back=back_for("c1"), since=ago(100))


def test_a_recall_is_said_with_its_reason_and_on_time() -> None:
    after = status(BACK, lent_node(), slurmd(), JOINED)
    assert said(after, "Recalled") == ("True", "Claimed")
    assert due(after) == 60, "counted from the recall and not from the loan's beginning"
    assert after.condition("Overdue") is None


@pytest.mark.parametrize(
    "mine", [loan(deleted=NOW), loan(wanted="Returned").model_copy(update={"spec": loan(wanted="Lent").spec})]
)
def test_a_deleted_loan_comes_back(mine: NodeLoan) -> None:
    mine = mine.model_copy(update={"metadata": mine.metadata.model_copy(update={"deletion_timestamp": NOW})})
    assert said(status(mine, lent_node(), slurmd(), JOINED), "Recalled") == ("True", "WantedBack")


def test_first_slurm_starts_nothing_new_there() -> None:
    command = one(
        step(BACK, lent_node(), slurmd(), slurm(slurm_node("gpu-1", "ALLOCATED"), job(on="gpu-1"))), DrainSlurmNode
    )
    assert command.reason == "tidegate: Claimed for team/c1"
    nobody = loan(done=RECALLED, back=back_for(reason="IdleInSlurm"))
    assert one(step(nobody, lent_node(), slurmd(), JOINED), DrainSlurmNode).reason == "tidegate: IdleInSlurm"


OURS = "tidegate: Claimed for team/c1"


def draining(*states: str, jobs: Any = (), reason: str = OURS, **more: Any) -> SlurmState:
    return slurm(slurm_node("gpu-1", *(states or ("IDLE",)), "DRAIN", reason=reason), *jobs, **more)


RETURNING = loan(done=RECALLED, back=back_for("c1"), since=ago(10))


def test_a_drained_node_without_jobs_is_empty_and_slurmd_ends() -> None:
    commands = step(RETURNING, lent_node(), slurmd(), draining())
    assert names(commands) == ["WriteLoanStatus", "UnlabelNode", "DeleteSlurmdPod"]
    after = status(RETURNING, lent_node(), slurmd(), draining())
    assert said(after, "Drained") == ("True", "Empty")
    assert due(after) == 60, "the deadline of the next step counts from this one"


@pytest.mark.parametrize(
    ("states", "jobs"),
    [
        (["MIXED"], [job(on="gpu-1")]),
        (["IDLE"], [job(on="gpu-1", states=["COMPLETING"])]),
        (["IDLE", "COMPLETING"], []),
        (["ALLOCATED"], []),
        (["IDLE"], [job(on=("gpu-0", "gpu-1"), states=["SUSPENDED"])]),
        (["IDLE"], [job(on="gpu-1", states=["CONFIGURING"])]),
    ],
)
def test_nothing_is_declared_empty_while_anything_is_there(states: list[str], jobs: list[Any]) -> None:
    after = status(RETURNING, lent_node(), slurmd(), draining(*states, jobs=jobs))
    assert not after.is_true("Drained")
    assert "DeleteSlurmdPod" not in names(step(RETURNING, lent_node(), slurmd(), draining(*states, jobs=jobs)))


@pytest.mark.parametrize("silent", [slurm(observed=None), draining(observed=ago(26)), draining(error="down")])
def test_a_silent_slurm_proves_nothing(silent: SlurmState) -> None:
    commands = step(RETURNING, lent_node(), slurmd(), silent)
    assert names(commands) == ["WriteLoanStatus"]
    after = status(RETURNING, lent_node(), slurmd(), silent)
    assert said(after, "Drained") == ("False", "SlurmSilent")
    assert due(after) == 50
    late = loan(done=RECALLED, back=back_for("c1"), since=ago(60))
    assert said(status(late, lent_node(), slurmd(), silent), "Overdue") == ("True", "DeadlinePassed")


def test_silence_is_explained() -> None:
    def words(*things: Any) -> str:
        return status(RETURNING, lent_node(), slurmd(), *things).message

    assert words(slurm(error="no route to host")) == "no route to host"
    assert words(slurm(observed=None)) == "Slurm slurm has not answered lately"
    gone = "SlurmCluster nosuch does not exist; create it again so that the node can be drained"
    assert words(pool(slurmClusterName="nosuch")) == gone
    assert "pool batch is gone" in words(pool("other"))


def test_jobs_climb_the_ladder_with_signals_before_the_record_and_the_rest_after() -> None:
    saving = job(1, on="gpu-1", comment="tidegate:signal=USR1")
    plain = job(2, on="gpu-1")
    commands = step(RETURNING, lent_node(), slurmd(), draining("MIXED", jobs=[saving, plain]))
    assert names(commands) == ["SignalJob", "WriteLoanStatus", "RequeueJob"]
    assert one(commands, SignalJob).signal == "USR1"
    assert [
        t.action for t in status(RETURNING, lent_node(), slurmd(), draining("MIXED", jobs=[saving, plain])).jobs
    ] == [
        "Signalled",
        "Requeued",
    ]


def test_the_ladder_is_the_one_of_the_claims_class() -> None:
    busy = draining("MIXED", jobs=[job(on="gpu-1")])
    graceful = loan(done=RECALLED, back=back_for("c1", recall_class="graceful"), since=ago(10))
    assert due(status(graceful, lent_node(), slurmd(), busy)) == 590
    assert "RequeueJob" not in names(step(graceful, lent_node(), slurmd(), busy))


def touched(action: str, seconds: float, job_id: int = 1, **more: Any) -> TouchedJob:
    return TouchedJob.model_validate(
        {"job_id": job_id, "action": action, "time": ago(seconds), "requeueable": True, "gpus": 8, **more}
    )


def test_down_comes_last_and_is_repeated_until_slurm_shows_it() -> None:
    mine = loan(done=RECALLED, back=back_for("c1"), since=ago(100), jobs=(touched("Requeued", 30),))
    busy = draining("MIXED", jobs=[job(on="gpu-1")])
    assert one(step(mine, lent_node(), slurmd(), busy), DownSlurmNode).reason == OURS
    told = loan(done=RECALLED, back=back_for("c1"), since=ago(100), jobs=(touched("EndedByDown", 5),))
    assert "DownSlurmNode" in names(step(told, lent_node(), slurmd(), busy)), "the first one may have failed"
    down = draining("DOWN", "COMPLETING", jobs=[job(on="gpu-1", states=["COMPLETING"])])
    assert "DownSlurmNode" not in names(step(told, lent_node(), slurmd(), down))


def test_a_drain_of_somebody_else_keeps_its_reason() -> None:
    fan = draining("MIXED", jobs=[job(on="gpu-1")], reason="bad fan")
    assert "DrainSlurmNode" not in names(step(RETURNING, lent_node(), slurmd(), fan))
    mine = loan(done=RECALLED, back=back_for("c1"), since=ago(100), jobs=(touched("Requeued", 30),))
    assert one(step(mine, lent_node(), slurmd(), fan), DownSlurmNode).reason == "bad fan"


def test_the_ledger_says_what_the_loan_gave_and_cost() -> None:
    jobs = (
        touched("Requeued", 20, 1, start_time=ago(120)),
        touched("EndedByDown", 10, 2, start_time=ago(60), gpus=4),
        touched("Cancelled", 10, 3, requeueable=False, start_time=ago(30), gpus=0),
        touched("Waited", 10, 4, start_time=ago(9000)),
        touched("Signalled", 10, 5, start_time=ago(9000)),
    )
    mine = loan(done=RECALLED, back=back_for("c1"), since=ago(500), jobs=jobs)
    for world in (draining(), HOME):
        ledger = status(mine, lent_node(), slurmd(), world).ledger
        assert ledger.lent_seconds == 500
        assert (ledger.requeued_jobs, ledger.cancelled_jobs) == (2, 1)
        assert ledger.lost_gpu_seconds == 100 * 8 + 50 * 4 + 20


def test_a_record_that_vanished_after_joining_is_as_good_as_drained() -> None:
    after = status(RETURNING, lent_node(), slurmd(), HOME)
    assert said(after, "Drained") == ("True", "NotInSlurm")


def test_a_slurmd_that_never_registered_is_ended_before_anything_is_said() -> None:
    mine = loan(done=(*VACATED, "Recalled"), back=back_for("c1"))
    commands = step(mine, lent_node(), slurmd(), HOME)
    assert names(commands) == ["WriteLoanStatus", "DeleteSlurmdPod"]
    assert not status(mine, lent_node(), slurmd(), HOME).is_true("Drained")
    gone = status(mine, lent_node(), HOME)
    assert said(gone, "Drained") == ("True", "NotInSlurm")
    assert said(status(mine, node(fence="gpu-1-1"), HOME), "Left") == ("True", "Gone")


@pytest.mark.parametrize("done", [(), FENCED])
def test_a_loan_that_never_started_slurmd_goes_straight_back(done: tuple[str, ...]) -> None:
    mine = loan(done=done, wanted="Returned", back=back_for(), created=ago(5))
    after = status(mine, lent_node(), slurm(observed=None))
    for name in ("Drained", "Left"):
        assert said(after, name) == ("True", "NeverJoined")
    assert said(after, "Clean") == ("True", "Healthy")
    assert "ReleaseNode" in names(step(mine, lent_node(), slurm(observed=None)))
    assert after.ledger.lent_seconds == 0


def test_a_loan_that_never_got_its_fence_is_over_at_once() -> None:
    mine = loan(done=(), wanted="Returned", back=back_for(), created=ago(5))
    assert said(status(mine, node()), "Returned") == ("True", "Released")
    assert names(step(mine, node())) == ["WriteLoanStatus"]


# --- Left

EMPTY = loan(done=DRAINED, back=back_for("c1"), since=ago(10))


def test_the_label_goes_with_the_pod_and_nothing_else_happens_while_it_is_there() -> None:
    assert names(step(EMPTY, lent_node(), slurmd(), draining())) == [
        "WriteLoanStatus",
        "UnlabelNode",
        "DeleteSlurmdPod",
    ]
    assert names(step(EMPTY, node(fence="gpu-1-1"), slurmd(deleting=True), draining())) == ["WriteLoanStatus"]
    assert due(status(EMPTY, lent_node(), slurmd(deleting=True), draining())) == 50


def test_then_the_record_is_deleted() -> None:
    unlabelled = node(fence="gpu-1-1")
    assert names(step(EMPTY, unlabelled, draining())) == ["WriteLoanStatus", "DeleteSlurmNode"]
    assert not status(EMPTY, unlabelled, draining()).is_true("Left")
    resumed = slurm(slurm_node("gpu-1", "IDLE"))
    assert names(step(EMPTY, unlabelled, resumed)) == ["WriteLoanStatus", "DrainSlurmNode"]


def test_left_is_said_when_pod_record_and_label_are_gone() -> None:
    assert not status(EMPTY, lent_node(), HOME).is_true("Left")
    assert names(step(EMPTY, lent_node(), HOME)) == ["WriteLoanStatus", "UnlabelNode"]
    assert due(status(EMPTY, lent_node(), HOME)) == 50
    assert said(status(EMPTY, node(fence="gpu-1-1"), HOME), "Left") == ("True", "Gone")
    foreign = slurm(slurm_node(loan="gpu-1-7"))
    assert said(status(EMPTY, node(fence="gpu-1-1"), foreign), "Left") == ("True", "Gone")


def test_a_record_that_somebody_else_drained_stays() -> None:
    world = draining(reason="bad fan")
    commands = step(EMPTY, node(fence="gpu-1-1"), world)
    assert "DeleteSlurmNode" not in names(commands)
    after = status(EMPTY, node(fence="gpu-1-1"), world)
    assert said(after, "Left") == ("True", "RecordKept")


@pytest.mark.parametrize("silent", [slurm(observed=None), slurm(observed=ago(60)), slurm(error="down")])
def test_nothing_is_gone_from_a_slurm_that_cannot_be_seen(silent: SlurmState) -> None:
    after = status(EMPTY, node(fence="gpu-1-1"), silent)
    assert said(after, "Left") == ("False", "SlurmSilent")
    assert due(after) == 50
    assert names(step(EMPTY, node(fence="gpu-1-1"), silent)) == ["WriteLoanStatus"]


def test_a_slurmd_pod_that_does_not_end_is_overdue() -> None:
    late = loan(done=DRAINED, back=back_for("c1"), since=ago(61))
    assert said(status(late, node(fence="gpu-1-1"), slurmd(deleting=True), draining()), "Overdue")[0] == "True"


# --- Clean

GONE = loan(done=LEFT, back=back_for("c1"), since=ago(10))
BARE = node(fence="gpu-1-1")


def test_a_node_as_healthy_as_before_is_clean() -> None:
    assert said(status(GONE, BARE, HOME), "Clean") == ("True", "Healthy")


@pytest.mark.parametrize(
    "sick", [node(fence="gpu-1-1", ready=False), node(fence="gpu-1-1", gpus=7), node(fence="gpu-1-1", gpus=0)]
)
def test_a_node_that_is_not_healthy_waits_and_then_goes_back_as_it_is(sick: Any) -> None:
    after = status(GONE, sick, HOME)
    assert said(after, "Clean") == ("False", "Unhealthy")
    assert due(after) == 110
    assert names(step(GONE, sick, HOME)) == ["WriteLoanStatus"]
    late = loan(done=LEFT, back=back_for("c1"), since=ago(120))
    after = status(late, sick, HOME)
    assert said(after, "Clean") == ("False", "ReturnedUnhealthy")
    assert "ReleaseNode" in names(step(late, sick, HOME))


def test_a_node_that_is_gone_needs_no_cleaning() -> None:
    assert said(status(GONE, HOME), "Clean") == ("True", "NodeGone")
    assert said(status(GONE, HOME), "Returned")[0] == "True"


# --- Returned

WIPED = loan(done=CLEAN, back=back_for("c1"), since=ago(10))


def test_the_fence_is_handed_to_the_claim_if_that_lives() -> None:
    assert one(step(WIPED, BARE, HOME, claim()), ReleaseNode).claim_uid == "uid-c1"
    assert one(step(WIPED, BARE, HOME), ReleaseNode).claim_uid is None
    assert one(step(WIPED, BARE, HOME, claim(deleted=NOW)), ReleaseNode).claim_uid is None
    assert one(step(WIPED, BARE, HOME, claim(ttl_seconds=5)), ReleaseNode).claim_uid is None
    assert due(status(WIPED, BARE, HOME)) == 20


def test_a_node_that_took_long_to_be_clean_is_not_late_for_the_fence() -> None:
    mine = loan(done=LEFT, back=back_for("c1"), since=ago(100))
    after = status(mine, BARE, HOME)
    assert due(after) == 30
    assert after.condition("Overdue") is None


def test_returned_is_said_when_the_fence_is_off_or_the_claims() -> None:
    assert said(status(WIPED, node(), HOME), "Returned") == ("True", "Released")
    assert said(status(WIPED, claimed_node(), HOME, claim()), "Returned") == ("True", "HandedOver")
    after = status(WIPED, node(), HOME)
    assert (after.message, after.deadline, after.state) == ("", None, "Returned")
    assert names(step(WIPED, node(), HOME)) == ["WriteLoanStatus"]


def test_a_release_that_does_not_succeed_is_overdue() -> None:
    late = loan(done=CLEAN, back=back_for("c1"), since=ago(30))
    assert said(status(late, BARE, HOME), "Overdue") == ("True", "DeadlinePassed")


def test_overdue_ends_when_the_next_step_is_on_time() -> None:
    late = loan(done=CLEAN, back=back_for("c1"), since=ago(30))
    overdue = late.model_copy(update={"status": status(late, BARE, HOME)})
    assert said(status(overdue, node(), HOME), "Overdue") == ("False", "OnTime")


# --- a node that is lost on the way


@pytest.mark.parametrize("done", [(), FENCED, VACATED, LENT])
def test_a_lost_node_ends_its_loan_at_any_step_once_slurm_has_nothing_of_it(done: tuple[str, ...]) -> None:
    mine = loan(done=done, wanted="Returned", back=back_for(reason="NodeLost"))
    after = status(mine, HOME)
    assert said(after, "Returned")[0] == "True"


def test_a_lost_node_is_drained_and_deleted_in_slurm_first() -> None:
    mine = loan(done=RECALLED, back=back_for(reason="NodeLost"))
    assert "DrainSlurmNode" in names(step(mine, slurm(slurm_node("gpu-1", "DOWN"))))
    assert names(step(mine, draining("DOWN"))) == ["WriteLoanStatus", "DeleteSlurmNode"]
    assert not status(mine, draining("DOWN")).is_true("Returned")


# --- after the end

ENDED = loan(done=RETURNED, back=back_for("c1"))


def after_the_end(*things: Any, mine: NodeLoan = ENDED) -> list[Command]:
    return finish(mine, index(mine, *things))


def test_an_ended_loan_drops_its_finalizer() -> None:
    assert names(after_the_end(node())) == ["EndLoan"]
    assert after_the_end(node(), mine=loan(done=RETURNED, finalizers=())) == []


def test_a_fence_and_pods_that_came_late_go_first() -> None:
    assert names(after_the_end(node(fence="gpu-1-1"))) == ["ReleaseNode"]
    assert names(after_the_end(node(), slurmd())) == ["DeleteSlurmdPod"]
    assert one(after_the_end(node(), slurmd()), DeleteSlurmdPod).pod.name == "slurmd-gpu-1-1"
    assert names(after_the_end(node(fence="gpu-1-2", label="gpu-1-2"))) == ["EndLoan"]


def test_the_deadline_moves_with_the_step_and_not_with_the_clock() -> None:
    later = NOW + timedelta(seconds=7)
    steps: list[tuple[NodeLoan, list[Any]]] = [
        (NEW, [node()]),
        (loan(done=FENCED), [lent_node()]),
        (loan(done=VACATED), [lent_node(), slurmd(), HOME]),
        (RETURNING, [lent_node(), slurmd(), draining("MIXED", jobs=[job(on="gpu-1")])]),
        (EMPTY, [lent_node(), slurmd(), draining()]),
        (GONE, [node(fence="gpu-1-1", ready=False), HOME]),
        (WIPED, [BARE, HOME]),
    ]
    for mine, things in steps:
        first = mine.model_copy(update={"status": status(mine, *things)})
        assert status(first, *things, now=later).deadline == first.status.deadline


def test_the_gpus_that_count_are_those_of_the_lent_resource() -> None:
    assert GONE.spec.gpu_resource_name == GPU
    assert said(status(GONE, node(fence="gpu-1-1", resource="amd.com/gpu"), HOME), "Clean")[0] == "False"

"""The witness catches each kind of break in made-up sequences, and keeps quiet where nothing is wrong."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from e2e.witness import Judge, KubeSight, Moment, SlurmSight, Timeline
from e2e.witness.sights import FENCE, Claim, KubeNode, KubePod, Loan, SlurmJob, SlurmNode, Taint

START = datetime(2026, 1, 1, tzinfo=UTC)
OPEN = KubeNode("n1", "1")
LENT = KubeNode("n1", "2", taints=(Taint(FENCE, "n1-1", "NoSchedule"),))
HELD = KubeNode("n1", "3", taints=(Taint(FENCE, "claim_c1", "NoSchedule"),))
GPU_POD = KubePod("ml/web", "p1", "n1", "Running", gpus=2)
LOAN = Loan("n1-1", "n1", "n1")
RECALLED = replace(LOAN, wanted_back=True)
CLAIM = Claim("c1", "ml/web-1")
IDLE = SlurmNode("n1", frozenset({"IDLE", "DYNAMIC_NORM"}), extra="tidegate=n1-1")
BUSY = replace(IDLE, states=frozenset({"ALLOCATED", "DYNAMIC_NORM"}))
DRAINING = replace(BUSY, states=frozenset({"ALLOCATED", "DRAIN"}), reason="tidegate: Claimed")
RUNNING = SlurmJob(7, frozenset({"RUNNING"}), frozenset({"n1"}))


def kube(
    node: KubeNode = OPEN, *pods: KubePod, loans: tuple[Loan, ...] = (), claims: tuple[Claim, ...] = ()
) -> KubeSight:
    return KubeSight({node.name: node}, pods, {one.name: one for one in loans}, {one.uid: one for one in claims})


def slurm(*things: SlurmNode | SlurmJob) -> SlurmSight:
    return SlurmSight(
        {one.name: one for one in things if isinstance(one, SlurmNode)},
        {one.job_id: one for one in things if isinstance(one, SlurmJob)},
    )


def judged(
    *moments: tuple[KubeSight, SlurmSight] | tuple[KubeSight, SlurmSight, KubeSight], judge: Judge | None = None
) -> Judge:
    """A judge that looked at the moments, a fifth of a second apart."""
    judge = judge or Judge()
    for number, (before, there, *rest) in enumerate(moments):
        judge.look(Moment(START + number * timedelta(seconds=0.2), before, there, rest[0] if rest else before))
    return judge


def promises(judge: Judge) -> list[int]:
    return [found.promise for found in judge.verdict(0).breaks]


def test_a_whole_trip_breaks_nothing() -> None:
    requeued = SlurmJob(7, frozenset({"PENDING"}), reason="BeginTime", restarts=1)
    judge = judged(
        (kube(), slurm()),
        (kube(LENT, loans=(LOAN,)), slurm(IDLE)),
        (kube(LENT, loans=(LOAN,)), slurm(BUSY, RUNNING)),
        (kube(LENT, loans=(RECALLED,), claims=(CLAIM,)), slurm(DRAINING, RUNNING)),
        (kube(LENT, loans=(RECALLED,), claims=(CLAIM,)), slurm(requeued)),
        (kube(HELD, loans=(RECALLED,), claims=(CLAIM,)), slurm(requeued)),
        (kube(HELD, replace(GPU_POD, tolerated=frozenset({"claim_c1"})), claims=(CLAIM,)), slurm(requeued)),
        (kube(OPEN, GPU_POD, claims=(replace(CLAIM, over=True),)), slurm(requeued)),
    )
    verdict = judge.verdict(0)
    assert verdict.ok, verdict
    assert (verdict.samples, verdict.jobs) == (8, 1)


def test_a_witness_that_saw_nothing_does_not_say_that_all_is_well() -> None:
    assert not Judge().verdict(gaps=30).ok


# --- promise 1 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("states", [{"IDLE"}, {"MIXED"}, {"ALLOCATED"}, {"IDLE", "PLANNED"}])
def test_a_node_open_to_both_is_a_break(states: set[str]) -> None:
    assert promises(judged((kube(), slurm(replace(IDLE, states=frozenset(states)))))) == [1]


@pytest.mark.parametrize("word", ["DRAIN", "DOWN", "INVALID_REG", "NOT_RESPONDING"])
def test_a_node_that_slurm_has_shut_is_not_open(word: str) -> None:
    assert promises(judged((kube(), slurm(replace(IDLE, states=frozenset({"IDLE", word})))))) == []


def test_a_fence_in_either_read_or_a_change_in_between_is_no_break() -> None:
    assert promises(judged((kube(LENT), slurm(IDLE), kube(OPEN)))) == []
    assert promises(judged((kube(OPEN), slurm(IDLE), kube(LENT)))) == []
    assert promises(judged((kube(OPEN), slurm(IDLE), kube(replace(OPEN, resource_version="9"))))) == []


def test_a_cordoned_node_is_not_open() -> None:
    assert promises(judged((kube(replace(OPEN, cordoned=True)), slurm(IDLE)))) == []


def test_jobs_on_a_drained_node_that_is_open_to_kubernetes_are_a_break() -> None:
    assert promises(judged((kube(OPEN), slurm(DRAINING, RUNNING)))) == [1]
    completing = replace(RUNNING, states=frozenset({"COMPLETING"}))
    assert promises(judged((kube(OPEN), slurm(DRAINING, completing)))) == [1]


def test_a_gpu_pod_beside_a_job_is_a_break_even_behind_the_fence() -> None:
    assert promises(judged((kube(LENT, GPU_POD), slurm(BUSY, RUNNING)))) == [1]
    assert promises(judged((kube(LENT, replace(GPU_POD, loan="n1-1")), slurm(BUSY, RUNNING)))) == []
    assert promises(judged((kube(LENT, replace(GPU_POD, gpus=0)), slurm(BUSY, RUNNING)))) == []


def test_the_name_in_slurm_is_the_one_of_the_loan() -> None:
    loan = replace(LOAN, slurm_node="other")
    record = replace(IDLE, name="other")
    assert promises(judged((kube(OPEN, loans=(loan,)), slurm(record)))) == [1]
    assert promises(judged((kube(OPEN), slurm(record)))) == []


def test_a_node_of_the_same_name_in_slurm_may_be_declared_as_somebody_elses() -> None:
    judge = Judge()
    judge.expect("slurm-node", "n1")
    assert promises(judged((kube(OPEN), slurm(IDLE)), judge=judge)) == []


# --- promise 2 --------------------------------------------------------------------------------------------------------


def test_lending_a_node_that_was_freed_for_a_waiting_claim_is_a_break() -> None:
    judge = judged((kube(HELD, claims=(CLAIM,)), slurm()), (kube(LENT, claims=(CLAIM,)), slurm()))
    assert promises(judge) == [2]
    assert "lent to n1-1" in str(judge.verdict(0))


def test_letting_such_a_node_go_or_giving_it_to_another_claim_is_a_break() -> None:
    other = replace(HELD, taints=(Taint(FENCE, "claim_c2", "NoSchedule"),))
    assert promises(judged((kube(HELD, claims=(CLAIM,)), slurm()), (kube(OPEN, claims=(CLAIM,)), slurm()))) == [2]
    assert promises(judged((kube(HELD, claims=(CLAIM,)), slurm(), kube(other, claims=(CLAIM,))))) == [2]


@pytest.mark.parametrize(
    ("claim", "broken"),
    [
        (replace(CLAIM, nodes=1), []),
        (replace(CLAIM, nodes=2), [2]),
        (replace(CLAIM, gpus=8), []),
        (replace(CLAIM, gpus=9), [2]),
    ],
)
def test_a_claim_whose_amount_was_lowered_may_let_go_of_the_rest(claim: Claim, broken: list[int]) -> None:
    kept, held, opened = replace(HELD, name="n2", gpus=8), replace(HELD, gpus=8), replace(OPEN, gpus=8)
    before, after = kube(held, claims=(claim,)), kube(opened, claims=(claim,))
    before, after = (replace(one, nodes={**one.nodes, "n2": kept}) for one in (before, after))
    assert promises(judged((before, slurm()), (after, slurm()))) == broken


@pytest.mark.parametrize("claims", [(), (replace(CLAIM, over=True),)])
def test_a_claim_that_is_over_or_gone_holds_nothing(claims: tuple[Claim, ...]) -> None:
    assert promises(judged((kube(HELD, claims=(CLAIM,)), slurm()), (kube(LENT, claims=claims), slurm()))) == []


def test_a_stranger_behind_a_claims_fence_is_a_break() -> None:
    held = kube(HELD, claims=(CLAIM,))
    assert promises(judged((held, slurm()), (kube(HELD, GPU_POD, claims=(CLAIM,)), slurm()))) == [2]
    welcome = replace(GPU_POD, tolerated=frozenset({"claim_c1"}))
    assert promises(judged((held, slurm()), (kube(HELD, welcome, claims=(CLAIM,)), slurm()))) == []
    elsewhere = replace(GPU_POD, tolerated=frozenset({"claim_c2"}))
    assert promises(judged((held, slurm()), (kube(HELD, elsewhere, claims=(CLAIM,)), slurm()))) == [2]


def test_a_pod_that_was_there_before_the_fence_is_no_stranger() -> None:
    assert promises(judged((kube(OPEN, GPU_POD), slurm()), (kube(HELD, GPU_POD, claims=(CLAIM,)), slurm()))) == []


# --- promise 4 --------------------------------------------------------------------------------------------------------


def recalled_then(end: SlurmJob | None, reported: dict[int, str] | None = None, judge: Judge | None = None) -> Judge:
    """Job 7 runs on a node that is recalled, and is `end` afterwards."""
    running = replace(end, states=frozenset({"RUNNING"}), nodes=frozenset({"n1"})) if end else RUNNING
    loan = replace(RECALLED, jobs=reported or {})
    return judged(
        (kube(LENT, loans=(RECALLED,)), slurm(DRAINING, running)),
        (kube(LENT, loans=(loan,)), slurm(*([end] if end else []))),
        judge=judge,
    )


def ended(state: str, **more: object) -> SlurmJob:
    return replace(SlurmJob(7, frozenset({state})), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "end",
    [
        ended("COMPLETED"),
        ended("TIMEOUT"),
        ended("FAILED"),
        ended("PENDING", reason="BeginTime"),
        ended("RUNNING", nodes=frozenset({"n2"})),
    ],
)
def test_a_job_that_ended_by_itself_or_was_requeued_is_accounted_for(end: SlurmJob) -> None:
    verdict = recalled_then(end).verdict(0)
    assert verdict.ok, verdict
    assert verdict.jobs == 1


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (None, "does not know"),
        (ended("NODE_FAIL"), "NODE_FAIL"),
        (ended("CANCELLED"), "although it may be requeued"),
        (ended("CANCELLED", requeueable=False), "no NodeLoan reports it"),
        (ended("FAILED", signal=10), "signal 10"),
        (ended("PENDING", reason="JobHeldAdmin"), "held"),
        (ended("PREEMPTED"), "PREEMPTED"),
    ],
)
def test_a_job_that_a_recall_lost_is_a_break(end: SlurmJob | None, words: str) -> None:
    judge = recalled_then(end)
    assert promises(judge) == [4]
    assert words in str(judge.verdict(0))


def test_a_job_that_may_not_be_requeued_may_be_cancelled_when_the_loan_says_so() -> None:
    assert promises(recalled_then(ended("CANCELLED", requeueable=False), reported={7: "Cancelled"})) == []
    assert promises(recalled_then(ended("CANCELLED", requeueable=False), reported={7: "Waited"})) == [4]
    assert promises(recalled_then(ended("CANCELLED"), reported={7: "Cancelled"})) == [4]


def test_a_job_that_the_test_cancels_is_its_own_business() -> None:
    judge = Judge()
    judge.expect("job", "7")
    assert promises(recalled_then(ended("CANCELLED"), judge=judge)) == []


def test_a_job_that_no_recall_touched_may_end_as_it_likes() -> None:
    judge = judged((kube(LENT, loans=(LOAN,)), slurm(BUSY, RUNNING)), (kube(LENT, loans=(LOAN,)), slurm(BUSY)))
    assert judge.verdict(0).ok


# --- promise 6 --------------------------------------------------------------------------------------------------------

FOREIGN = replace(IDLE, states=frozenset({"IDLE", "DRAIN"}), reason="bad fan", comment="ask bob")
MARKED = replace(
    OPEN,
    cordoned=True,
    taints=(Taint("site/repair", "yes", "NoSchedule"),),
    labels={"rack": "r1"},
    annotations={"site/note": "hot"},
)


@pytest.mark.parametrize(
    ("what", "after"),
    [
        ("cordon", replace(MARKED, cordoned=False)),
        ("taint", replace(MARKED, taints=())),
        ("taint", replace(MARKED, taints=(Taint("site/repair", "no", "NoSchedule"),))),
        ("label", replace(MARKED, labels={})),
        ("label", replace(MARKED, labels={"rack": "r2"})),
        ("annotation", replace(MARKED, annotations={})),
    ],
)
def test_marks_of_others_on_nodes_stay(what: str, after: KubeNode) -> None:
    assert promises(judged((kube(MARKED), slurm()), (kube(after), slurm()))) == [6]
    judge = Judge()
    judge.expect(what, "n1")
    assert promises(judged((kube(MARKED), slurm()), (kube(after), slurm()), judge=judge)) == []


@pytest.mark.parametrize(
    ("what", "after"),
    [
        ("drain", None),
        ("drain", replace(FOREIGN, states=frozenset({"IDLE"}), reason="")),
        ("drain", replace(FOREIGN, reason="tidegate: Claimed")),
        ("comment", replace(FOREIGN, comment="")),
    ],
)
def test_marks_of_others_in_slurm_stay(what: str, after: SlurmNode | None) -> None:
    there = slurm(*([after] if after else []))
    assert promises(judged((kube(LENT), slurm(FOREIGN)), (kube(LENT), there))) == [6]
    judge = Judge()
    judge.expect(what, "n1")
    assert promises(judged((kube(LENT), slurm(FOREIGN)), (kube(LENT), there), judge=judge)) == []


def test_our_own_marks_and_those_of_kubernetes_itself_may_change() -> None:
    ours = replace(
        LENT,
        taints=(*LENT.taints, Taint("node.kubernetes.io/not-ready", "", "NoSchedule")),
        labels={"tidegate.dev/loan": "n1-1", "kubernetes.io/hostname": "n1"},
    )
    drained = replace(IDLE, states=frozenset({"IDLE", "DRAIN"}), reason="tidegate: IdleInSlurm")
    assert promises(judged((kube(ours), slurm(drained)), (kube(replace(LENT, taints=())), slurm()))) == []


# --- the time line ----------------------------------------------------------------------------------------------------


def test_the_time_line_has_one_owner_at_a_time() -> None:
    timeline = Timeline()
    sequence = [
        (OPEN, slurm()),
        (OPEN, slurm()),
        (LENT, slurm()),
        (LENT, slurm(IDLE)),
        (LENT, slurm(DRAINING, RUNNING)),
    ]
    sequence += [(LENT, slurm()), (HELD, slurm()), (OPEN, slurm())]
    for number, (node, there) in enumerate(sequence):
        timeline.look(Moment(START + timedelta(seconds=number), kube(node), there, kube(node)))
    spans = timeline.nodes["n1"]
    assert [(span.owner, span.seconds) for span in spans] == [
        ("Kubernetes", 2),
        ("none", 1),
        ("Slurm", 2),
        ("none", 1),
        ("claim", 1),
        ("Kubernetes", 0),
    ]
    assert all(one.end == two.start for one, two in itertools.pairwise(spans))
    assert "n1  00:00:00 Kubernetes 2.0 s" in str(timeline)

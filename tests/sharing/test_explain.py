"""Who owns what, why, what is next and what blocks it, seen as the command line sees it: without Slurm."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sharing.build import (
    CLEAN,
    DRAINED,
    FENCED,
    LEFT,
    LENT,
    NOW,
    RECALLED,
    RETURNED,
    SELECTOR,
    VACATED,
    ago,
    back_for,
    claim,
    claimed_node,
    index,
    lent_node,
    loan,
    node,
    pod,
    pool,
    slurm,
    slurmd,
    snapshot,
)
from tidegate.api import (
    BatchPool,
    BatchPoolStatus,
    CapacityClaim,
    CapacityClaimStatus,
    Condition,
    ConsideredNode,
    NodeLoan,
    TouchedJob,
)
from tidegate.api.names import FENCE_TAINT
from tidegate.sharing.explain import explain
from tidegate.sharing.explain_nodes import explain_nodes
from tidegate.sharing.explanation import Explanation, UnknownObjectError, age, moment
from tidegate.sharing.index import Index
from tidegate.sharing.snapshot import Taint

PROTECTED = {"karpenter.sh/do-not-disrupt": "true"}


def working(terms: BatchPool | None = None, demand: int = 2, ready: str = "True", reason: str = "Working") -> BatchPool:
    """A pool of which the operator has said this."""
    said = Condition.model_validate(
        {"type": "Ready", "status": ready, "reason": reason, "message": "words", "last_transition_time": ago(500)}
    )
    status = BatchPoolStatus(observed_generation=1, conditions=(said,), demand_nodes=demand, startable_nodes=demand)
    return (terms or pool()).model_copy(update={"status": status})


def seen(*things: Any, now: datetime = NOW, **more: Any) -> Index:
    """What the API server alone shows; a working pool unless another is named."""
    pools = [] if any(isinstance(thing, BatchPool) for thing in things) else [working()]
    return Index(replace(snapshot(*things, *pools, **more), slurm={}, idle_since={}), now)


def about(name: str, *things: Any, **more: Any) -> Explanation:
    return explain_nodes([name], seen(*things, **more))[0]


def waiting(
    name: str = "c1", reason: str = "Recalling", message: str = "waiting for gpu-1", **more: Any
) -> CapacityClaim:
    """A claim of which the operator has said this."""
    status = CapacityClaimStatus().with_condition(ago(20), "Satisfied", False, reason, message)
    return claim(name, status=status, **more)


def with_condition(one: NodeLoan, type_: str, holds: bool, reason: str, message: str = "") -> NodeLoan:
    status = one.status.with_condition(ago(5), type_, holds, reason, message)
    return one.model_copy(update={"status": status})


@pytest.mark.parametrize(
    ("things", "blocked_by", "next_step"),
    [
        ([node(unschedulable=True)], "Cordoned: node gpu-1 is cordoned", "when that is over"),
        ([node(deleting=True)], "NodeDeleting: ", "leaves the cluster"),
        ([node(ready=False)], "NotReady: ", "when its kubelet says Ready"),
        (
            [node(taints=[Taint("site/bad", "", "NoSchedule")])],
            "Tainted: node gpu-1 has the taint site/bad",
            "tolerate it",
        ),
        ([node(annotations=PROTECTED)], "DoNotDisrupt: ", "annotation is taken off"),
        ([node(), pod(on="gpu-1")], "InUse: pod team/web-1", "60 s after its last GPU pod has ended"),
        ([node(), pod()], "PendingPod: pending pod team/web-1", "kube-scheduler binds the pod"),
        (
            [node(), *(loan(name=f"gpu-1-{n}", done=RETURNED, created=ago(900)) for n in range(6))],
            "FlapBudget: node gpu-1 was lent 6 times within 3600 s, the pool's flapBudget allows 6; "
            "it is quarantined until 2026-11-21T12:45:00Z",
            "`tidegate node release gpu-1` lets it be lent before that",
        ),
        (
            [node(), working(pool(stop_policy="Hold"))],
            "PoolStopped: pool batch has stopPolicy Hold",
            "when that is over",
        ),
        ([node(), working(pool(deleted=ago(1)))], "PoolDeleted: ", "when that is over"),
        ([node(), pool()], "NotSeen: pool batch: the operator has said nothing", "when that is over"),
        ([node(), working(ready="False", reason="SlurmNotReady")], "SlurmNotReady: words", "when that is over"),
        ([node(), working(demand=0)], "NoDemand: no pending job of partition lent", "a pending job of partition lent"),
        (
            [node(), working(pool(lending={"headroom": {"high": 1}}))],
            "Headroom: pool batch has 1 free",
            "when that is over",
        ),
        (
            [node(), working(pool(lending={"cap": 0}))],
            "CapReached: pool batch has 0 nodes on loan",
            "when that is over",
        ),
        (
            [node(), lent_node("gpu-2"), loan("gpu-2", done=FENCED), working(pool(lending={"maxJoining": 1}))],
            "MaxJoining: 1 nodes of pool batch are joining",
            "when that is over",
        ),
        (
            [node(), with_condition(loan(done=RETURNED), "Left", True, "RecordKept", "drained: bad fan")],
            "DrainedByOthers: loan gpu-1-1 ended with: drained: bad fan",
            "`scontrol delete nodename=gpu-1`",
        ),
        (
            [node(), with_condition(loan(done=RETURNED), "Recalled", True, "SlurmNameTaken", "not ours")],
            "SlurmNameTaken: loan gpu-1-1 ended with: not ours",
            "when that is over",
        ),
        ([node()], "", "when no GPU pod was on it for 60 s"),
        ([node(), working(pool(lending={"policy": "Eager"}), demand=0)], "", "when no GPU pod was on it for 60 s"),
    ],
)
def test_a_node_at_home_says_why_it_is_not_lent(things: list[Any], blocked_by: str, next_step: str) -> None:
    found = about("gpu-1", *things)
    assert found.owner == "Kubernetes"
    assert found.blocked_by.startswith(blocked_by)
    assert bool(found.blocked_by) == bool(blocked_by)
    assert next_step in found.next_step


def test_who_sees_slurm_and_idle_times_is_told_of_them() -> None:
    (found,) = explain_nodes(["gpu-1"], index(node(), working(), slurm(), idle_since={"gpu-1": ago(5)}))
    assert found.blocked_by.startswith("RecentlyUsed: ")
    assert found.because == "no GPU pod is on it since 2026-11-21T11:59:55Z, and it is not lent"


def test_a_node_in_no_pool_says_which_labels_it_lacks() -> None:
    bare = replace(node(), labels={"zone": "b"})
    other = working(pool("other", nodeSelector={**SELECTOR, "zone": "a"}))
    found = about("gpu-1", bare, working(), other)
    assert found.because == "no pool selects it"
    assert found.blocked_by == (
        "for pool batch it lacks tidegate.dev/lendable=true (absent); "
        "for pool other it lacks tidegate.dev/lendable=true (absent), zone=a (it has b)"
    )
    assert (
        "`kubectl label --overwrite node gpu-1 tidegate.dev/lendable=true` puts it into pool batch" in found.next_step
    )


def test_a_selected_node_without_gpus_says_so() -> None:
    found = about("gpu-1", node(gpus=0))
    assert found.because == "pool batch selects it, but only nodes with GPUs are lent"
    assert found.blocked_by == "it has none of nvidia.com/gpu"


def test_without_pools_the_way_out_is_to_make_one() -> None:
    none = Index(replace(seen(node()).snapshot, pools=()), NOW)
    assert explain_nodes(["gpu-1"], none)[0].next_step == "make a BatchPool that selects it"


@pytest.mark.parametrize(
    ("trip", "more", "owner", "next_step", "blocked_by"),
    [
        (loan(done=()), [], "joining", "the fence goes onto the node (Fenced); the operator has said nothing", ""),
        (
            loan(done=VACATED, message="starting slurmd"),
            [],
            "joining",
            "slurmd starts and registers with Slurm (Joined): starting slurmd",
            "",
        ),
        (
            loan(done=VACATED, message="waits"),
            [slurmd(phase="Pending", waiting_reason="ErrImagePull: no such image")],
            "joining",
            "(Joined): waits",
            "slurmd pod tidegate/slurmd-gpu-1-1: ErrImagePull: no such image",
        ),
        (
            loan(done=LENT),
            [slurmd()],
            "Slurm",
            "it returns when a claim of a priority above -100 needs it, or when",
            "",
        ),
        (
            loan(done=LENT),
            [working(pool(lending={"policy": "Eager"}))],
            "Slurm",
            "it returns when a claim of a priority above -100 needs it",
            "",
        ),
        (loan(done=LENT, message="drained: bad fan"), [], "Slurm", "it returns when", "drained: bad fan"),
        (
            loan(done=RECALLED, message="SlurmNotReady"),
            [working(ready="False", reason="SlurmNotReady")],
            "returning",
            "(Drained)",
            "pool batch is not Ready: words",
        ),
        (
            with_condition(loan(done=DRAINED), "Left", False, "SlurmSilent", "no answer"),
            [],
            "returning",
            "slurmd and its record in Slurm go (Left)",
            "SlurmSilent: no answer",
        ),
        (
            with_condition(loan(done=LEFT, message="not Ready"), "Overdue", True, "DeadlinePassed", "not Ready"),
            [],
            "returning",
            "(Clean)",
            "overdue since 2026-11-21T11:59:55Z: not Ready",
        ),
        (loan(done=CLEAN, message="taking the fence off"), [], "returning", "(Returned): taking the fence off", ""),
    ],
)
def test_a_node_on_loan_tells_of_its_trip(
    trip: NodeLoan, more: list[Any], owner: str, next_step: str, blocked_by: str
) -> None:
    for found in (
        about("gpu-1", lent_node(), trip, *more),
        explain("loan", "gpu-1-1", "", seen(lent_node(), trip, *more)),
    ):
        assert found.owner == owner
        assert next_step in found.next_step
        assert found.blocked_by == blocked_by
        assert dict(found.facts)["loan"] == "gpu-1-1"


def test_a_node_that_is_gone_is_still_explained_while_its_loan_lasts() -> None:
    assert about("gpu-1", loan(done=RECALLED)).owner == "returning"


def test_a_loan_whose_pool_is_gone_says_so() -> None:
    found = about("gpu-1", lent_node(), loan(done=RECALLED, pool_name="old"))
    assert found.blocked_by.startswith("pool old does not exist")


def test_a_recalled_loan_tells_of_steps_jobs_claim_and_deadline() -> None:
    job = TouchedJob(job_id=17, action="Requeued", time=ago(30), requeueable=True, gpus=8, start_time=ago(600))
    kept = TouchedJob(job_id=18, action="Waited", time=ago(40), requeueable=False, gpus=8)
    trip = loan(
        done=RECALLED,
        since=ago(45),
        back=back_for("c1"),
        jobs=(job, kept),
        deadline=NOW + timedelta(seconds=15),
        message="job 17 is being requeued; job 18 may end by itself",
    )
    found = explain("loan", "gpu-1-1", "", seen(lent_node(), trip, waiting()))
    assert found.because == "Claimed: wanted"
    assert found.since == ago(45)
    assert found.blocked_by == "job 17 is being requeued; job 18 may end by itself"
    facts = dict(found.facts)
    assert facts["deadline"] == "2026-11-21T12:00:15Z (in 15s)"
    assert facts["Fenced"] == "2026-11-21T11:59:15Z after 49m15s, Done"
    assert facts["Recalled"] == "2026-11-21T11:59:15Z after 0.0s, Done"
    assert facts["job 17"] == "Requeued 2026-11-21T11:59:30Z"
    assert facts["job 18"] == "Waited 2026-11-21T11:59:20Z, it may not be requeued"
    assert (facts["for claim"], facts["recall class"]) == ("team/c1", "quick")
    assert "ledger" not in facts


def test_an_ended_loan_tells_what_it_gave_and_cost() -> None:
    ledger = {"lent_seconds": 900, "requeued_jobs": 2, "cancelled_jobs": 1, "lost_gpu_seconds": 4800}
    found = explain("loan", "gpu-1-1", "", seen(node(), loan(done=RETURNED, ledger=ledger)))
    assert found.owner == "nobody, the loan is over"
    assert dict(found.facts)["ledger"] == (
        "lent for 900 s, 2 jobs requeued, 1 cancelled, at most 4800 GPU-seconds of work lost"
    )


def test_a_held_node_belongs_to_its_claim() -> None:
    found = about("gpu-1", claimed_node(), waiting(nodes=2))
    assert found.owner == "claim team/c1"
    assert found.next_step == "it is held until the claim is deleted or expires"
    assert found.blocked_by == "waiting for gpu-1"


def test_the_fence_of_a_claim_that_is_gone_is_about_to_go() -> None:
    found = about("gpu-1", claimed_node())
    assert "over or gone" in found.because
    assert found.next_step == "the fence is taken off"


@pytest.mark.parametrize(
    ("trips", "next_step"),
    [
        ([], f"when nothing runs there, `kubectl taint nodes gpu-1 {FENCE_TAINT}-` opens it"),
        ([loan(done=RETURNED)], "the fence is taken off"),
        ([loan(done=RETURNED, pool_name="old")], f"`kubectl taint nodes gpu-1 {FENCE_TAINT}-` opens it"),
    ],
)
def test_a_fence_that_nobody_needs_has_a_way_out(trips: list[NodeLoan], next_step: str) -> None:
    assert next_step in about("gpu-1", lent_node(), *trips).next_step


@pytest.mark.parametrize(
    ("wish", "things", "next_step", "blocked_by"),
    [
        (claim(), [], "the operator looks for nodes; the operator has said nothing", ""),
        (
            waiting(),
            [lent_node(), loan(done=RECALLED, back=back_for("c1"))],
            "it gets gpu-1 as soon as Slurm has let go",
            "Recalling: waiting for gpu-1",
        ),
        (waiting(reason="Binding", message="bound soon"), [], "kube-scheduler binds its pods", "Binding: bound soon"),
        (
            waiting(reason="NothingToRecall", message="no loan below 1000"),
            [lent_node(), loan(priority=2000)],
            "as soon as there are any for it",
            "NothingToRecall: no loan below 1000",
        ),
        (claim(deleted=ago(1)), [], "nothing, the claim is over", ""),
        (
            claim(status=CapacityClaimStatus().with_condition(ago(5), "Satisfied", True, "Held", "1 nodes")),
            [claimed_node()],
            "it is held until the claim is deleted or expires",
            "",
        ),
        (
            claim(
                holder="web",
                automatic=True,
                status=CapacityClaimStatus().with_condition(ago(5), "Satisfied", True, "Served", "all bound"),
            ),
            [],
            "nothing, the claim is over",
            "",
        ),
    ],
)
def test_a_claim_says_what_it_waits_for(
    wish: CapacityClaim, things: list[Any], next_step: str, blocked_by: str
) -> None:
    found = explain("claim", "c1", "", seen(wish, *things))
    assert next_step in found.next_step
    assert found.blocked_by == blocked_by


def test_a_claim_names_its_loans_and_the_nodes_that_were_considered() -> None:
    others = [
        *(lent_node(f"gpu-{n}") for n in range(1, 5)),
        loan("gpu-1", done=RECALLED, back=back_for("c1"), message="draining the Slurm node"),
        loan("gpu-2", priority=1000),
        loan("gpu-3", done=RECALLED, back=back_for("c2")),
        loan("gpu-4"),
    ]
    wish = waiting(nodes=3, ttl_seconds=90)
    considered = ConsideredNode(node_name="gpu-2", answer="AsImportant", message="its loan has priority 1000")
    wish = wish.model_copy(update={"status": wish.status.model_copy(update={"considered": (considered,)})})
    found = explain("claim", "team/c1", "", seen(wish, pod(claim="c1"), *others))
    assert found.owner == "holds 0 of 3 nodes"
    assert found.because == "it was made by hand for the pods that carry its name in the label tidegate.dev/claim"
    assert found.facts == (
        ("pool", "batch"),
        ("priority", "1000 (high)"),
        ("recall class", "quick"),
        ("pods", "0 of 1 bound"),
        ("amount", "3 nodes"),
        ("expected", "by 2026-11-21T12:01:51Z (in 1m51s)"),
        ("ends", "2026-11-21T12:01:00Z (in 1m), TimeToLive"),
        ("loan gpu-1-1", "its jobs end, save their work or are requeued (Drained): draining the Slurm node"),
        ("node gpu-2", "AsImportant: its loan has priority 1000"),
    )


def test_a_reservation_tells_of_its_start_and_of_what_slurm_knows() -> None:
    start, later = NOW + timedelta(hours=1), NOW + timedelta(hours=2)
    wish = waiting(reason="Reserved", start_time=start, duration_seconds=600)
    status = wish.status.model_copy(update={"promised_start": later}).with_condition(
        NOW, "SlurmTold", True, "NothingToTell", "free nodes are enough"
    )
    found = explain("claim", "c1", "", seen(node(), wish.model_copy(update={"status": status})))
    assert found.next_step.startswith(
        "starts at 2026-11-21T13:00:00Z; its nodes are held and recalled from 2026-11-21T12:"
    )
    facts = dict(found.facts)
    assert facts["expected"] == "by 2026-11-21T14:00:00Z (in 2h)"
    assert facts["promised start"] == "2026-11-21T14:00:00Z (in 2h)"
    assert facts["SlurmTold"] == "True, NothingToTell: free nodes are enough"
    assert facts["ends"] == "2026-11-21T13:10:00Z (in 1h10m), Ended"


def test_an_automatic_claim_names_its_controller() -> None:
    found = explain("claim", "c1", "team", seen(waiting(holder="web", automatic=True)))
    assert found.because == "Tidegate made it for the pending GPU pods of ReplicaSet web"


def test_claims_of_one_name_are_told_apart_by_namespace() -> None:
    other = claim()
    other = other.model_copy(update={"metadata": other.metadata.model_copy(update={"namespace": "lab", "uid": "u2"})})
    world = seen(claim(), other)
    with pytest.raises(UnknownObjectError, match=r"There are several claims c1: name one of lab/c1, team/c1\."):
        explain("claim", "c1", "", world)
    assert explain("claim", "c1", "lab", world).subject == "claim lab/c1"
    assert explain("claim", "lab/c1", "", world).subject == "claim lab/c1"


def test_a_pool_counts_its_nodes_and_says_what_is_next() -> None:
    found = explain(
        "pool",
        "batch",
        "",
        seen(
            node("gpu-1"),
            node("gpu-2", unschedulable=True),
            lent_node("gpu-3"),
            loan("gpu-3"),
            lent_node("gpu-4"),
            loan("gpu-4", done=RECALLED, message="draining the Slurm node"),
            claimed_node("gpu-5"),
            waiting(),
            working(pool(lending={"headroom": {"low": 0, "high": 0}})),
        ),
    )
    assert found.owner == "Kubernetes 2, Slurm 1, claim 1, returning 1"
    assert found.because == "Working: words"
    assert found.next_step == "node gpu-1 can be lent after 60 s without a GPU pod"
    assert found.blocked_by == ""
    facts = dict(found.facts)
    assert facts["demand"] == "2 nodes beyond those lent and joining"
    assert facts["Exclusive"] == "Unknown"
    assert facts["next recall"] == "when a claim has a priority above -100, or Slurm had no use for a node for 60 s"
    assert facts["loan gpu-4-1"].endswith("draining the Slurm node")
    assert facts["not lent: node gpu-2"].startswith("Cordoned: ")


@pytest.mark.parametrize(
    ("things", "next_step", "blocked_by"),
    [
        ([node(), working(demand=0)], "a node is lent when a pending job of partition lent can use it", "NoDemand: "),
        ([node(), working(pool(stop_policy="HoldAndDrain"))], "no node is lent before that is over", "PoolStopped: "),
        ([node(unschedulable=True), working()], "no node is lent before that is over", "Headroom: "),
        ([node(annotations=PROTECTED), working()], "a node is lent when one is free to be lent", ""),
        ([working(ready="False", reason="NoNodes")], "no node is lent before that is over", "NoNodes: "),
    ],
)
def test_a_pool_says_what_keeps_it_from_lending(things: list[Any], next_step: str, blocked_by: str) -> None:
    found = explain("pool", "batch", "", seen(*things))
    assert found.next_step == next_step
    assert found.blocked_by.startswith(blocked_by)
    assert bool(found.blocked_by) == bool(blocked_by)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("node", "There is no node x; those there are: gpu-1."),
        ("loan", "There is no loan x; those there are: gpu-1-1."),
        ("claim", "There is no claim x; those there are: team/c1."),
        ("pool", "There is no pool x; those there are: batch."),
    ],
)
def test_an_unknown_name_is_answered_with_those_there_are(kind: Any, words: str) -> None:
    with pytest.raises(UnknownObjectError) as raised:
        explain(kind, "x", "", seen(lent_node(), loan(), claim()))
    assert str(raised.value) == words


def test_of_many_names_the_first_are_listed() -> None:
    with pytest.raises(UnknownObjectError, match=r"gpu-1, gpu-10, .* and 4 more\."):
        about("x", *(node(f"gpu-{n}") for n in range(1, 13)))
    with pytest.raises(UnknownObjectError, match=r"There is no loan x; there is none yet\."):
        explain("loan", "x", "", seen())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-3, "0s"), (0, "0s"), (45, "45s"), (312, "5m12s"), (3600, "1h"), (12_000, "3h20m"), (187_200, "2d4h")],
)
def test_ages_are_said_in_two_units(seconds: int, words: str) -> None:
    assert age(timedelta(seconds=seconds)) == words


def test_moments_say_how_far_they_are() -> None:
    assert moment(ago(60), NOW) == "2026-11-21T11:59:00Z (1m ago)"
    assert moment(NOW + timedelta(seconds=5), NOW) == "2026-11-21T12:00:05Z (in 5s)"


NAMES = st.sampled_from(["gpu-1", "gpu-2", "gpu-3"])
TEXT = st.sampled_from(["", "words", "job 17 may end by itself"])
PAST = st.integers(0, 5000).map(ago)
FENCES = st.sampled_from([None, "gpu-1-1", "gpu-2-1", "claim_uid-c1", "claim_uid-gone", "foreign"])
NODES = st.builds(
    node,
    NAMES,
    gpus=st.sampled_from([0, 8]),
    fence=FENCES,
    taints=st.sampled_from([(), (Taint("site/bad", "", "NoSchedule"),)]),
    labels=st.sampled_from([{}, {"tidegate.dev/lendable": "no"}, {"zone": "a"}]),
    ready=st.booleans(),
    unschedulable=st.booleans(),
    deleting=st.booleans(),
)
CONDITIONS = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from([*RETURNED, "Overdue", "Satisfied", "Expired", "Ready", "Exclusive"]),
            "status": st.sampled_from(["True", "False", "Unknown"]),
            "reason": st.sampled_from(["Done", "Served", "RecordKept", "SlurmNotReady", "DrainedByOthers", "Binding"]),
            "message": TEXT,
            "last_transition_time": PAST,
        }
    ).map(Condition.model_validate),
    max_size=len(RETURNED),
    unique_by=lambda condition: condition.type,
).map(tuple)
BACK = st.sampled_from([None, back_for(), back_for("c1"), back_for("gone")])


@st.composite
def loans(draw: st.DrawFn) -> NodeLoan:
    one = loan(
        draw(NAMES),
        name=draw(st.sampled_from(["gpu-1-1", "gpu-2-1", "x-1"])),
        pool_name=draw(st.sampled_from(["batch", "gone"])),
        done=(),
        created=draw(PAST),
        back=draw(BACK),
        wanted=draw(st.sampled_from(["", "Lent", "Returned"])),
        priority=draw(st.sampled_from([-100, 5000])),
        deleted=draw(st.none() | PAST),
        message=draw(TEXT),
        deadline=draw(st.none() | st.integers(-100, 100).map(ago)),
    )
    status = one.status.model_copy(update={"conditions": draw(CONDITIONS)})
    meta = one.metadata if draw(st.booleans()) else one.metadata.model_copy(update={"creation_timestamp": None})
    return one.model_copy(update={"status": status, "metadata": meta})


@st.composite
def claims(draw: st.DrawFn) -> CapacityClaim:
    return claim(
        draw(st.sampled_from(["c1", "c2"])),
        nodes=draw(st.integers(1, 3)),
        pool_name=draw(st.sampled_from(["batch", "gone"])),
        priority_class_name=draw(st.sampled_from([None, "high", "gone"])),
        ttl_seconds=draw(st.sampled_from([None, 10, 5000])),
        holder=(holder := draw(st.sampled_from(["", "web"]))),
        automatic=bool(holder) and draw(st.booleans()),
        deleted=draw(st.none() | PAST),
        status=CapacityClaimStatus(conditions=draw(CONDITIONS)),
    )


@st.composite
def pools(draw: st.DrawFn) -> BatchPool:
    terms = pool(
        draw(st.sampled_from(["batch", "other"])),
        lending={
            "policy": draw(st.sampled_from(["Eager", "DemandDriven"])),
            "cap": draw(st.sampled_from([None, 0, 5])),
            "headroom": draw(st.sampled_from([{}, {"low": 1, "high": 2}])),
        },
        deleted=draw(st.none() | PAST),
        stop_policy=draw(st.sampled_from(["None", "Hold", "HoldAndDrain"])),
    )
    return terms.model_copy(
        update={"status": BatchPoolStatus(conditions=draw(CONDITIONS), demand_nodes=draw(st.integers(0, 3)))}
    )


PODS = st.builds(
    pod, st.sampled_from(["a", "b"]), on=st.sampled_from(["", "gpu-1"]), owner=st.sampled_from(["", "web"])
) | st.builds(slurmd, on=st.sampled_from(["", "gpu-1"]), waiting_reason=TEXT, scheduler_message=TEXT)


@given(
    st.lists(NODES, max_size=3),
    st.lists(PODS, max_size=3),
    st.lists(pools(), max_size=2, unique_by=lambda one: one.metadata.name),
    st.lists(loans(), max_size=3, unique_by=lambda one: one.metadata.name),
    st.lists(claims(), max_size=2, unique_by=lambda one: one.metadata.name),
    st.booleans(),
)
def test_every_object_of_every_world_has_an_explanation(
    nodes: list[Any], pods: list[Any], terms: list[Any], trips: list[Any], wishes: list[Any], sees_slurm: bool
) -> None:
    world = replace(snapshot(*nodes, *pods, *trips, *wishes), pools=tuple(terms))
    found = Index(world if sees_slurm else replace(world, slurm={}, idle_since={}), NOW)
    explained = explain_nodes({*world.nodes, *found.active_loans}, found)
    explained += [explain("loan", trip.metadata.name, "", found) for trip in trips]
    explained += [explain("claim", wish.metadata.name, "team", found) for wish in wishes]
    explained += [explain("pool", one.metadata.name, "", found) for one in terms]
    for one in explained:
        assert one.subject
        assert one.owner
        assert one.because
        assert one.next_step
        assert len(dict(one.facts)) == len(one.facts)
        assert all(name and value for name, value in one.facts)
        words = (one.owner, one.because, one.next_step, one.blocked_by, *(value for _, value in one.facts))
        assert not any(text.endswith((": ", " ")) for text in words)

"""Claims: those that Tidegate makes for pending pods, those that people make, and what both hold."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sharing.build import (
    DRAINED,
    NOW,
    RECALLED,
    ago,
    back_for,
    claim,
    claimed_node,
    decided,
    job,
    lent_node,
    loan,
    names,
    node,
    one,
    only,
    pod,
    pool,
    slurm,
    slurm_node,
    slurmd,
)
from tidegate.api import CapacityClaimStatus, Condition
from tidegate.api.names import FENCE_TAINT, claim_fence
from tidegate.sharing.commands import (
    CreateClaim,
    ForgetClaim,
    FreeNode,
    HoldNode,
    RecallLoan,
    ResizeClaim,
    TolerateFence,
    WriteClaimStatus,
)
from tidegate.sharing.snapshot import Toleration

LENT_NODE = [lent_node(), loan(since=ago(30)), slurmd(), slurm(slurm_node("gpu-1"))]
BUSY_FOR_LONG = slurm(slurm_node("gpu-1"), job(7, on="gpu-1", requeueable=False))


def two_lent() -> list[Any]:
    more = [lent_node("gpu-2"), loan("gpu-2"), slurmd("gpu-2-1", on="gpu-2")]
    return [*LENT_NODE[:-1], *more, slurm(slurm_node("gpu-1"), slurm_node("gpu-2"))]


def made(*things: Any, **more: Any) -> list[CreateClaim]:
    return only(decided(*things, **more), CreateClaim)


def satisfied(*things: Any, name: str = "c1", **more: Any) -> tuple[str, str]:
    """Reason and message of condition Satisfied, as it would be written."""
    (write,) = [c for c in only(decided(*things, **more), WriteClaimStatus) if c.claim.metadata.name == name]
    condition = write.status.condition("Satisfied")
    assert condition is not None
    assert (condition.status == "True") is (condition.reason in ("Held", "Served"))
    return condition.reason, condition.message


def over(reason: str, seconds: float = 0, type_: str = "Satisfied") -> CapacityClaimStatus:
    condition = Condition(type=type_, status="True", reason=reason, last_transition_time=ago(seconds))
    return CapacityClaimStatus(conditions=(condition,))


# --- made for pending pods


def test_an_unschedulable_gpu_pod_that_a_lent_node_could_run_gets_a_claim() -> None:
    (command,) = made(*LENT_NODE, pod(owner="web", priority=7, priority_class_name="high"))
    assert (command.namespace, command.name) == ("team", "replicaset-web-1")
    assert command.spec.to_json() == {
        "poolName": "batch",
        "nodes": 1,
        "nodeSelector": {},
        "gang": False,
        "gatherSeconds": 900,
        "holderRef": {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "uid-web"},
        "priorityClassName": "high",
        "recallClass": "quick",
    }


def test_a_bare_pod_is_its_own_holder() -> None:
    (command,) = made(*LENT_NODE, pod("solo"))
    assert command.spec.holder_ref is not None
    assert (command.name, command.spec.holder_ref.kind) == ("pod-solo-1", "Pod")


@pytest.mark.parametrize(
    "waiting",
    [
        pod(unschedulable=False),
        pod(gated=True),
        pod(deleting=True),
        pod(gpus=0),
        pod(gpus=9),
        pod(resource="amd.com/gpu"),
        pod(claim="mine"),
        pod(node_selector={"zone": "b"}),
        pod(on="gpu-1"),
    ],
)
def test_a_pod_that_no_recall_would_help_gets_no_claim(waiting: Any) -> None:
    assert made(*LENT_NODE, waiting) == []


def test_without_loans_there_is_nothing_to_claim() -> None:
    assert made(node(), pod()) == []


def test_one_claim_for_each_controller_as_large_as_its_pods_need() -> None:
    pods = [pod(f"w{n}", owner="web", gpus=5) for n in range(2)] + [pod("x", owner="other")]
    assert {c.name: c.spec.nodes for c in made(*two_lent(), *pods)} == {
        "replicaset-web-1": 2,
        "replicaset-other-1": 1,
    }


def test_the_most_important_pod_gives_the_claim_its_class() -> None:
    pods = [pod("a", owner="web"), pod("b", owner="web", priority=9, priority_class_name="high")]
    assert [c.spec.priority_class_name for c in made(*LENT_NODE, *pods)] == ["high"]


def test_the_claim_has_the_pools_automatic_class() -> None:
    assert made(*LENT_NODE, pod(), pool(recall={"automaticClass": "fast"}))[0].spec.recall_class == "fast"


def test_a_controller_with_a_live_claim_gets_no_second_one() -> None:
    assert made(*LENT_NODE, pod(owner="web"), claim("a-1", holder="web", automatic=True)) == []


def test_after_its_claim_was_served_a_controller_gets_a_new_one_with_the_next_number() -> None:
    served = claim("replicaset-web-1", holder="web", automatic=True, status=over("Served"))
    assert [c.name for c in made(*LENT_NODE, pod(owner="web"), served)] == ["replicaset-web-2"]


def test_a_name_that_somebody_took_is_passed_over() -> None:
    taken = claim("replicaset-web-1", pool_name="elsewhere")
    assert [c.name for c in made(*LENT_NODE, pod(owner="web"), taken)] == ["replicaset-web-2"]


def test_the_oldest_pool_that_helps_is_claimed() -> None:
    old = pool("old", nodeSelector={"side": "old"}, created=ago(999_999))
    assert [c.spec.pool_name for c in made(*LENT_NODE, pod(), pool(), old)] == ["batch"]


AUTO = claim("auto", holder="web", automatic=True)


def test_an_automatic_claim_grows_with_its_pods() -> None:
    pods = [pod(f"w{n}", owner="web", gpus=8) for n in range(2)]
    assert one(decided(*two_lent(), *pods, AUTO), ResizeClaim).nodes == 2


def test_an_automatic_claim_does_not_shrink() -> None:
    wide = claim("auto", holder="web", automatic=True, nodes=5)
    assert not only(decided(*two_lent(), pod(owner="web"), wide), ResizeClaim)


def test_an_automatic_claim_counts_the_room_on_what_it_holds() -> None:
    held = claimed_node("gpu-8", claim="auto")
    pods = [pod("a", owner="web", on="gpu-8", gpus=4), pod("b", owner="web", gpus=4)]
    commands = decided(*LENT_NODE, held, *pods, AUTO)
    assert not only(commands, RecallLoan)
    assert not only(commands, ResizeClaim)
    assert satisfied(*LENT_NODE, held, *pods, AUTO, name="auto")[0] == "Binding"


def test_an_automatic_claim_is_served_when_its_pods_are_bound_and_lets_go() -> None:
    held = claimed_node("gpu-8", claim="auto")
    things = [*LENT_NODE, held, pod(owner="web", on="gpu-8"), AUTO]
    assert satisfied(*things, name="auto") == ("Served", "all its pods are bound")
    write = one(decided(*things), WriteClaimStatus)
    assert (write.status.nodes, write.status.held_nodes) == ((), 0)
    served = claim("auto", holder="web", automatic=True, status=over("Served"))
    assert one(decided(*LENT_NODE, held, served), FreeNode).claim_uid == "uid-auto"


def test_an_automatic_claim_waits_for_what_is_on_its_way_to_it() -> None:
    coming = [lent_node("gpu-2"), loan("gpu-2", done=RECALLED, back=back_for("auto")), slurmd("gpu-2-1", on="gpu-2")]
    reason, message = satisfied(*coming, pod(owner="web"), AUTO, name="auto")
    assert (reason, "gpu-2" in message) == ("Recalling", True)
    assert satisfied(*coming, AUTO, name="auto")[0] == "Recalling", "also when its pods went elsewhere"


def test_pods_that_are_gated_or_being_deleted_keep_no_claim_alive() -> None:
    assert satisfied(*LENT_NODE, pod(owner="web", gated=True), AUTO, name="auto")[0] == "Served"
    assert satisfied(*LENT_NODE, pod(owner="web", deleting=True), AUTO, name="auto")[0] == "Served"


# --- what a claim's pods tolerate


def tolerated(*things: Any) -> list[str]:
    return [c.pod.name for c in only(decided(*things), TolerateFence)]


def test_pending_pods_of_a_claim_get_a_toleration_for_its_fence_and_nobody_else_does() -> None:
    pods = [
        pod("mine", claim="c1"),
        pod("bound", claim="c1", on="gpu-8"),
        pod("gone", claim="c1", deleting=True),
        pod("alien", claim="c1", namespace="other"),
        pod("else"),
        pod("other", claim="c2"),
    ]
    assert tolerated(*pods, claim()) == ["mine"]
    assert one(decided(*pods, claim()), TolerateFence).claim_uid == "uid-c1"


def test_pods_of_the_holder_are_the_claims_even_before_the_scheduler_saw_them() -> None:
    things = [*LENT_NODE, pod("a", owner="web", unschedulable=False), pod("b", owner="other"), AUTO]
    assert tolerated(*things) == ["a"]


def test_a_toleration_is_given_once() -> None:
    has = Toleration(FENCE_TAINT, "Equal", claim_fence("uid-c1"), "NoSchedule")
    assert tolerated(pod(claim="c1", tolerations=[has]), claim()) == []


# --- made by people


def test_free_nodes_are_held_for_an_explicit_claim() -> None:
    commands = decided(node("gpu-1"), node("gpu-2"), node("gpu-3", ready=False), claim(nodes=3))
    assert [(c.node.name, c.claim_uid) for c in only(commands, HoldNode)] == [("gpu-1", "uid-c1"), ("gpu-2", "uid-c1")]


@pytest.mark.parametrize("taken", [claimed_node(claim="other"), node(unschedulable=True), node(fence="gpu-1-9")])
def test_a_node_that_is_not_free_is_not_held(taken: Any) -> None:
    assert not only(decided(taken, claim(), claim("other", nodes=1)), HoldNode)


def test_a_node_with_a_gpu_pod_is_not_held() -> None:
    assert not only(decided(node(), pod(on="gpu-1"), claim()), HoldNode)


def test_no_more_nodes_are_held_than_are_lacking() -> None:
    coming = [lent_node("gpu-7"), loan("gpu-7", done=RECALLED, back=back_for("c1"))]
    things = [claimed_node("gpu-1"), node("gpu-2"), node("gpu-3"), *coming]
    assert len(only(decided(*things, claim(nodes=3)), HoldNode)) == 1
    assert not only(decided(*things, claim(nodes=2)), HoldNode)


def test_all_nodes_held_is_said_with_their_names() -> None:
    things = [claimed_node("gpu-2"), claimed_node("gpu-1"), claim(nodes=2)]
    write = one(decided(*things), WriteClaimStatus)
    assert (write.status.nodes, write.status.held_nodes, write.status.priority) == (("gpu-1", "gpu-2"), 2, 1000)
    assert satisfied(*things) == ("Held", "2 nodes are held for it")


@pytest.mark.parametrize(
    ("things", "reason", "sentence"),
    [
        (
            [claim(pool_name="nosuch")],
            "PoolNotFound",
            "BatchPool nosuch does not exist; set poolName to one of batch",
        ),
        (
            [node(), claim(priority_class_name="nosuch")],
            "PriorityClassNotFound",
            "PriorityClass nosuch does not exist; create it or name another",
        ),
        (
            [node(), claim(nodes=3)],
            "MoreThanPool",
            "asks for 3 nodes, pool batch has 1; lower nodes or change poolName",
        ),
        (
            [*LENT_NODE[:-1], BUSY_FOR_LONG, claim()],
            "Protected",
            "what could be recalled is protected: job 7 may not be requeued (until it ends)",
        ),
        (
            [*LENT_NODE, claim(priority_class_name="low")],
            "NothingToRecall",
            "no loan of pool batch has a priority below -200",
        ),
        ([*LENT_NODE, claim()], "Choosing", "choosing loans to recall"),
        (
            [lent_node(), loan(done=RECALLED, back=back_for("c1")), claim()],
            "Recalling",
            "waiting for gpu-1 to come back from Slurm",
        ),
    ],
)
def test_what_a_claim_waits_for_is_said_in_one_sentence(things: list[Any], reason: str, sentence: str) -> None:
    assert satisfied(*things) == (reason, sentence)


def test_a_claim_that_is_about_to_get_free_nodes_does_not_say_that_nothing_can_be_recalled() -> None:
    assert satisfied(node(), claim())[0] == "Choosing"


def test_without_any_pool_the_sentence_says_so() -> None:
    message = satisfied(pool("gone", deleted=None), claim(pool_name="nosuch"))[1]
    assert message.endswith("one of gone")


# --- the end of claims


def test_a_claim_expires_and_lets_go() -> None:
    wish = claim(ttl_seconds=30, created=ago(30))
    commands = decided(claimed_node(), node("gpu-2"), wish)
    status = one(commands, WriteClaimStatus).status
    assert status.is_true("Expired")
    expired = status.condition("Expired")
    assert expired is not None
    assert expired.message == "not ended within ttlSeconds 30; its nodes are let go"
    assert (status.nodes, status.held_nodes) == ((), 0)
    assert one(commands, FreeNode).node.name == "gpu-1"
    assert not only(commands, HoldNode)


def test_a_claim_that_is_not_yet_expired_lives() -> None:
    assert not only(decided(claimed_node(), claim(ttl_seconds=31, created=ago(30))), FreeNode)


@pytest.mark.parametrize(
    "things",
    [
        [],
        [claim(status=over("Served"))],
        [claim(status=over("TimeToLive", type_="Expired"))],
        [claim(deleted=NOW)],
    ],
)
def test_the_fence_of_a_claim_that_is_over_or_gone_goes(things: list[Any]) -> None:
    commands = decided(claimed_node(), *things)
    assert one(commands, FreeNode).claim_uid == "uid-c1"
    assert not only(commands, WriteClaimStatus)


def test_the_fence_of_a_live_claim_and_of_loans_stays() -> None:
    assert not only(decided(claimed_node(), claim(), *[lent_node("gpu-2"), loan("gpu-2")]), FreeNode)


@pytest.mark.parametrize(("seconds", "forgotten"), [(600, 0), (601, 1)])
@pytest.mark.parametrize("kind", ["Satisfied", "Expired"])
def test_an_automatic_claim_that_is_over_is_forgotten_after_a_while(seconds: int, forgotten: int, kind: str) -> None:
    old = claim("a-1", holder="web", automatic=True, status=over("Served", seconds, kind))
    assert len(only(decided(old), ForgetClaim)) == forgotten


def test_claims_of_people_and_those_being_deleted_are_not_forgotten() -> None:
    mine = claim("mine", status=over("Served", 9999))
    going = claim("a-1", holder="web", automatic=True, status=over("Served", 9999), deleted=NOW)
    assert not only(decided(mine, going), ForgetClaim)


def test_a_claim_that_is_as_it_should_read_is_not_written_again() -> None:
    things = [claimed_node(), claim()]
    status = one(decided(*things), WriteClaimStatus).status
    assert "WriteClaimStatus" not in names(decided(claimed_node(), claim(status=status)))


def test_a_claim_that_got_a_node_while_another_was_draining_needs_no_more() -> None:
    coming = [lent_node("gpu-2"), loan("gpu-2", done=DRAINED, back=back_for("c1")), slurmd("gpu-2-1", on="gpu-2")]
    commands = decided(claimed_node("gpu-1"), *coming, claim(nodes=2))
    assert not only(commands, RecallLoan)

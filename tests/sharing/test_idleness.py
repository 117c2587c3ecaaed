"""When a node may be lent."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sharing.build import (
    FENCED,
    GPU,
    LENT,
    NOW,
    RECALLED,
    RETURNED,
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
    slurm_node,
    slurmd,
    snapshot,
)
from tidegate.sharing.idleness import lend_blocker, set_aside, track_idle
from tidegate.sharing.snapshot import Node, SlurmState, Taint, Toleration

HARD = Taint("site/bad", "x", "NoSchedule")


def blocked(target: Node, *things: Any, state: SlurmState | None = None, **more: Any) -> str | None:
    terms = next((thing for thing in things if hasattr(thing, "spec") and thing.kind == "BatchPool"), pool())
    state = state or slurm()
    others = [thing for thing in things if thing is not terms]
    blocker = lend_blocker(target, terms, index(target, terms, state, *others, **more), state)
    if blocker is None:
        return None
    assert target.name in blocker.message
    return blocker.reason


def test_a_healthy_node_that_was_idle_for_long_enough_may_be_lent() -> None:
    assert blocked(node()) is None


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (node(deleting=True), "NodeDeleting"),
        (node(unschedulable=True), "Cordoned"),
        (node(ready=False), "NotReady"),
        (node(labels={"tidegate.dev/lendable": "no"}), "NotSelected"),
        (node(taints=[HARD]), "Tainted"),
        (node(taints=[Taint("site/bad", "", "NoExecute")]), "Tainted"),
        (node(taints=[Taint("site/bad", "", "PreferNoSchedule")]), None),
        (node(annotations={"karpenter.sh/do-not-disrupt": "true"}), "DoNotDisrupt"),
        (node(annotations={"karpenter.sh/do-not-disrupt": "false"}), None),
        (claimed_node(), "Fenced"),
        (node(fence="gpu-1-7"), "Fenced"),
    ],
)
def test_what_others_did_to_a_node_keeps_us_off_it(target: Node, reason: str | None) -> None:
    assert blocked(target) == reason


def test_a_taint_that_the_slurmd_template_tolerates_does_not_count() -> None:
    tolerant = pool(template={"spec": {"tolerations": [{"key": "site/bad", "operator": "Exists"}]}})
    assert set_aside(node(taints=[HARD]), tolerant) is None
    assert set_aside(node(taints=[Taint("site/other", "", "NoSchedule")]), tolerant) is not None


def test_the_own_fence_does_not_set_a_node_aside() -> None:
    assert set_aside(lent_node(), pool()) is None


@pytest.mark.parametrize(
    ("things", "reason"),
    [
        ([loan(done=LENT)], "OnLoan"),
        ([loan(done=())], "OnLoan"),
        ([loan(done=RETURNED)], None),
        ([pod(on="gpu-1")], "InUse"),
        ([pod(on="gpu-1", gpus=0)], None),
        ([pod(on="gpu-1", resource="amd.com/gpu")], None),
        ([slurmd("gpu-1-1")], "InUse"),
        ([pod()], "PendingPod"),
        ([pod(gpus=9)], None),
        ([pod(gpus=0)], None),
        ([pod(cpus=65)], None),
        ([pod(gated=True)], None),
        ([pod(deleting=True)], None),
        ([pod(node_selector={"zone": "b"})], None),
        ([pod(unschedulable=False)], "PendingPod"),
    ],
)
def test_pods_and_loans_hold_a_node(things: list[Any], reason: str | None) -> None:
    assert blocked(node(), *things) == reason


@pytest.mark.parametrize(("seconds", "reason"), [(59, "RecentlyUsed"), (60, None), (61, None)])
def test_a_node_must_be_idle_for_the_pools_time(seconds: int, reason: str | None) -> None:
    assert blocked(node(), idle_since={"gpu-1": ago(seconds)}) == reason


def test_a_node_that_was_never_seen_idle_is_not_lent() -> None:
    assert blocked(node(), idle_since={}) == "RecentlyUsed"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (slurm_node(extra=""), "SlurmNameTaken"),
        (slurm_node(extra="someone=else"), "SlurmNameTaken"),
        (slurm_node(), None),
        (slurm_node("gpu-1", "IDLE", "DRAIN", reason="bad fan"), "DrainedByOthers"),
        (slurm_node("gpu-1", "IDLE", "DRAIN", reason="tidegate: Claimed"), None),
        (slurm_node("gpu-2", extra=""), None),
    ],
)
def test_records_of_others_in_slurm_keep_a_node_home(record: Any, reason: str | None) -> None:
    assert blocked(node(), state=slurm(record)) == reason


def test_two_nodes_that_slurm_could_not_tell_apart_are_not_lent() -> None:
    assert blocked(node("gpu-1.rack-a"), node("gpu-1.rack-b")) == "SlurmNameTaken"


def test_a_node_of_another_slurm_cluster_may_have_the_same_name_there() -> None:
    west = pool("west", nodeSelector={"side": "west"}, slurmClusterName="other")
    assert (
        blocked(node("gpu-1.a"), pool(), west, node("gpu-1.b", labels={"tidegate.dev/lendable": "", "side": "west"}))
        is None
    )


@pytest.mark.parametrize(("count", "reason"), [(1, None), (2, "FlapBudget"), (3, "FlapBudget")])
def test_the_flap_budget_quarantines_a_node(count: int, reason: str | None) -> None:
    terms = pool(lending={"flapBudget": {"loans": 2, "windowSeconds": 600}})
    past = [loan(name=f"gpu-1-{n}", done=RETURNED, created=ago(500 - n)) for n in range(count)]
    assert blocked(node(), terms, *past) == reason


def test_old_loans_those_of_other_nodes_and_those_without_a_fence_do_not_count_as_flaps() -> None:
    terms = pool(lending={"flapBudget": {"loans": 1, "windowSeconds": 600}})
    old = loan(name="gpu-1-1", done=RETURNED, created=ago(601))
    other = loan("gpu-2", done=RETURNED, created=ago(5))
    unfenced = loan(name="gpu-1-2", done=("Recalled", "Drained", "Left", "Clean", "Returned"), created=ago(5))
    assert blocked(node(), terms, old, other, unfenced) is None
    assert blocked(node(), terms, loan(name="gpu-1-3", done=(*FENCED, "Returned"), created=ago(5))) == "FlapBudget"


def test_idleness_is_tracked_from_the_first_sight_and_ends_with_a_gpu_pod() -> None:
    free, busy = node("free"), node("busy")
    world = snapshot(free, busy, pod("w", on="busy"), slurmd("free-1", on="free"))
    assert track_idle({}, world, NOW) == {"free": NOW}
    assert track_idle({"free": ago(50), "busy": ago(50), "gone": ago(50)}, world, NOW) == {"free": ago(50)}


@pytest.mark.parametrize("claim_is_live", [True, False])
def test_a_node_that_is_held_for_a_claim_or_comes_back_for_one_is_not_idle(claim_is_live: bool) -> None:
    coming = loan("coming", done=RECALLED, wanted="Returned", back=back_for("c1"))
    going = loan("going", done=RECALLED, wanted="Returned")
    over = loan("over", done=RETURNED, wanted="Returned", back=back_for("c1"))
    nodes = [claimed_node("held"), *map(lent_node, ("coming", "going")), node("over")]
    world = snapshot(*nodes, coming, going, over, *([claim("c1")] if claim_is_live else []))
    assert track_idle(dict.fromkeys(world.nodes, ago(50)), world, NOW) == {"going": ago(50), "over": ago(50)}


def test_pods_without_gpus_of_any_pool_leave_a_node_idle() -> None:
    world = snapshot(node(), pod(on="gpu-1", gpus=0), pod("x", on="gpu-1", resource="amd.com/gpu"))
    assert track_idle({}, world, NOW) == {"gpu-1": NOW}


@pytest.mark.parametrize(
    ("toleration", "tolerates"),
    [
        (Toleration(operator="Exists"), True),
        (Toleration("site/bad", "Exists"), True),
        (Toleration("site/bad", "Equal", "x"), True),
        (Toleration("site/bad", "Equal", "y"), False),
        (Toleration("site/bad", "Equal", "x", "NoExecute"), False),
        (Toleration("site/bad", "Equal", "x", "NoSchedule"), True),
        (Toleration("other", "Exists"), False),
        (Toleration("", "Equal", "x"), False),
    ],
)
def test_tolerations_are_read_as_the_scheduler_reads_them(toleration: Toleration, tolerates: bool) -> None:
    assert toleration.tolerates(HARD) is tolerates


def test_gpus_of_another_vendor_count_when_the_pool_says_so() -> None:
    amd = pool(gpuResourceNames=["amd.com/gpu", GPU])
    target = node(resource="amd.com/gpu")
    assert blocked(target, amd) is None
    assert blocked(target, amd, pod(on="gpu-1", resource="amd.com/gpu")) == "InUse"

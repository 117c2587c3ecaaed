"""What holds in every world, whatever is in it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.sharing.build import NOW, ago, job, node, only
from tests.sharing.worlds import worlds
from tidegate.api import Ladder, TouchedJob
from tidegate.api.batch_pool import Recall
from tidegate.api.names import claim_fence, claim_of_fence
from tidegate.sharing.allotment import allot, unservable
from tidegate.sharing.commands import (
    AnnounceReservation,
    ApplyPart,
    Command,
    ConfirmVacated,
    CreateClaim,
    CreateLoan,
    CreateSlurmdPod,
    DeleteSlurmNode,
    DownSlurmNode,
    FenceNode,
    FreeNode,
    FreeSurplus,
    GuardPool,
    HoldNode,
    RecallLoan,
    ReleaseNode,
    TolerateFence,
    WithdrawReservation,
    WriteClaimStatus,
    WriteClusterStatus,
    WriteLoanStatus,
    WritePoolStatus,
    WriteServiceStatus,
)
from tidegate.sharing.decide import decide
from tidegate.sharing.idleness import held_by, set_aside
from tidegate.sharing.index import Index
from tidegate.sharing.ladder import climb
from tidegate.sharing.lending import obtainable
from tidegate.sharing.lifetime import is_gathering
from tidegate.sharing.needs import (
    amount,
    coming_loans,
    held_nodes,
    lacking,
    pods_of,
    suits,
    units_of,
    units_of_loan,
)
from tidegate.sharing.priorities import of_loan
from tidegate.sharing.quotas import counts
from tidegate.sharing.recall_classes import may_use
from tidegate.sharing.recommend import has_begun
from tidegate.sharing.sides import sides
from tidegate.sharing.snapshot import Snapshot


def with_statuses(world: Snapshot, commands: Sequence[Command]) -> Snapshot:
    """The world in which the statuses were written that the decision wants, and nothing else happened."""
    loans = {c.loan.metadata.name: c.status for c in only(commands, WriteLoanStatus)}
    claims = {c.claim.metadata.uid: c.status for c in only(commands, WriteClaimStatus)}
    pools = {c.pool.metadata.name: c.status for c in only(commands, WritePoolStatus)}
    clusters = {c.cluster.metadata.name: c.status for c in only(commands, WriteClusterStatus)}

    def put(thing: Any, statuses: dict[str, Any], key: str) -> Any:
        return thing.model_copy(update={"status": statuses[key]}) if key in statuses else thing

    return replace(
        world,
        loans=tuple(put(one, loans, one.metadata.name) for one in world.loans),
        claims=tuple(put(one, claims, one.metadata.uid) for one in world.claims),
        pools=tuple(put(one, pools, one.metadata.name) for one in world.pools),
        clusters={name: put(one, clusters, name) for name, one in world.clusters.items()},
    )


def status_writes(commands: Sequence[Command]) -> list[Command]:
    kinds = (WriteLoanStatus, WriteClaimStatus, WritePoolStatus, WriteClusterStatus)
    return [command for command in commands if isinstance(command, kinds)]


@given(worlds())
def test_a_decision_is_a_function_of_the_world(world: Snapshot) -> None:
    assert decide(world, NOW) == decide(world, NOW)


@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_in_which_things_are_seen_does_not_matter(world: Snapshot, rng: random.Random) -> None:
    def mixed(things: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(rng.sample(list(things), len(things)))

    slurm = {
        name: replace(state, nodes=dict(mixed(tuple(state.nodes.items()))), jobs=dict(mixed(tuple(state.jobs.items()))))
        for name, state in world.slurm.items()
    }
    other = replace(
        world,
        nodes=dict(mixed(tuple(world.nodes.items()))),
        pods=mixed(world.pods),
        pools=mixed(world.pools),
        loans=mixed(world.loans),
        claims=mixed(world.claims),
        clusters=dict(mixed(tuple(world.clusters.items()))),
        slurm=slurm,
    )
    assert Counter(map(repr, decide(other, NOW))) == Counter(map(repr, decide(world, NOW)))


@given(worlds())
def test_statuses_reach_a_fixed_point(world: Snapshot) -> None:
    """Some steps are said one after the other, but each only once, and then there is silence."""
    for _ in range(12):
        commands = decide(world, NOW)
        if not status_writes(commands):
            return
        world = with_statuses(world, commands)
    pytest.fail(f"still writing: {status_writes(commands)}")


@given(worlds(), st.integers(1, 3000))
def test_each_deadline_stands_still_while_nothing_happens(world: Snapshot, seconds: int) -> None:
    """Time alone moves no deadline of the same step away: what is late becomes overdue and not later."""
    for _ in range(12):
        world = with_statuses(world, decide(world, NOW))
    before = {one.metadata.name: one.status for one in world.loans}
    slurm = {
        name: replace(state, observed=state.observed + timedelta(seconds=seconds)) if state.observed else state
        for name, state in world.slurm.items()
    }
    later = replace(world, slurm=slurm)
    for write in only(decide(later, NOW + timedelta(seconds=seconds)), WriteLoanStatus):
        old = before[write.loan.metadata.name]
        if old.deadline is None or write.status.deadline is None or old.deadline <= NOW:
            continue
        same = [c.type for c in old.conditions if c.status == "True"] == [
            c.type for c in write.status.conditions if c.status == "True"
        ]
        if same and write.status.jobs == old.jobs and write.status.message == old.message:
            assert write.status.deadline == old.deadline


@given(worlds())
def test_only_nodes_that_nobody_holds_or_set_aside_are_lent_or_held(world: Snapshot) -> None:
    commands, index = decide(world, NOW), Index(world, NOW)
    for create in only(commands, CreateLoan):
        pool, target = index.pools[create.spec.pool_name], world.nodes[create.spec.node_name]
        assert set_aside(target, pool) is None
        held = held_by(target, pool, index)
        assert held is None or (create.spec.taken_for and held.reason == "InUse")
        assert pool.metadata.deletion_timestamp is None
        assert pool.spec.stop_policy == "None"
        assert index.pool_of_node[target.name] == pool.metadata.name
        assert not any(one.metadata.name == create.name for one in world.loans), "a number is used once"
    for hold in only(commands, HoldNode):
        assert suits(hold.node, index.live_claims[hold.claim_uid])
        assert hold.node.fence is None
        assert hold.node.name not in index.active_loans
        assert hold.claim_uid in index.live_claims
    given_away = [c.spec.node_name for c in only(commands, CreateLoan)] + [
        c.node.name for c in only(commands, HoldNode)
    ]
    assert len(given_away) == len(set(given_away)), "one owner"


@given(worlds())
def test_the_cap_headroom_and_joining_limits_hold(world: Snapshot) -> None:
    commands, index = decide(world, NOW), Index(world, NOW)
    for name, pool in index.pools.items():
        new = [c for c in only(commands, CreateLoan) if c.spec.pool_name == name]
        if not new:
            continue
        out = [one for one in index.loans_of(name) if not one.is_wanted_back]
        terms = index.terms(pool)
        if terms.cap is not None:
            assert len(out) + len(new) <= terms.cap
        assert len(new) + sum(not one.status.is_true("Lent") for one in out) <= terms.max_joining
        free = {n.name for n in index.nodes_of_pool[name] if not set_aside(n, pool) and not held_by(n, pool, index)}
        given = [c for c in new if c.spec.node_name in free]
        assert not given or len(free) - len(given) >= terms.headroom.high
        assert sides(pool, index).kubernetes - len(new) >= terms.kubernetes.floor
        assert index.slurm_of(name) is not None, "nothing is lent to a Slurm that cannot be seen"


BEGINS = (AnnounceReservation, CreateLoan, FenceNode, ConfirmVacated, CreateSlurmdPod, HoldNode, CreateClaim)


@given(worlds())
def test_a_pool_that_recommends_begins_nothing(world: Snapshot) -> None:
    """All that is left to do is to bring home what is out, and to see through the claims that have nodes."""
    index = Index(world, NOW)
    for command in decide(world, NOW):
        pool = index.pools.get(_pool_of(command, index))
        if pool is None or pool.spec.mode == "Enforce":
            continue
        assert not isinstance(command, BEGINS)
        if isinstance(command, RecallLoan):
            assert command.back.claim is None
        if isinstance(command, TolerateFence):
            assert has_begun(index.live_claims[command.claim_uid], index)
        if isinstance(command, GuardPool):
            assert not command.guarded


def _pool_of(command: Command, index: Index) -> str:
    """The pool that a command concerns, found in another way than by the code under test."""
    match command:
        case WritePoolStatus(pool=pool) | GuardPool(pool=pool):
            return pool.metadata.name
        case CreateLoan(spec=spec) | CreateClaim(spec=spec):
            return spec.pool_name
        case HoldNode(node=held) | FreeNode(node=held):
            return index.pool_of_node.get(held.name, "")
        case TolerateFence(claim_uid=uid):
            return index.live_claims[uid].spec.pool_name
        case WriteClusterStatus() | WithdrawReservation() | ApplyPart() | WriteServiceStatus():
            return ""
        case _ if hasattr(command, "loan"):
            return str(command.loan.spec.pool_name)
        case _ if hasattr(command, "claim"):
            return str(command.claim.spec.pool_name)
    raise AssertionError(f"whose is {command}?")


@given(worlds())
def test_what_is_recommended_are_free_nodes_of_the_pool(world: Snapshot) -> None:
    index = Index(world, NOW)
    for write in only(decide(world, NOW), WritePoolStatus):
        name = write.pool.metadata.name
        if (found := write.status.recommended) is None:
            assert write.pool.spec.mode == "Enforce"
            continue
        here = {node.name: node for node in index.nodes_of_pool[name]}
        assert all(held_by(here[one.name], write.pool, index) is None for one in found.nodes)
        old = write.pool.status.recommended
        assert found.lends >= (old.lends if old else 0)
        assert len(found.nodes) == len(old.nodes if old else ()) + sum(
            1 if one.would == "Lend" else -1 for one in write.advice
        )


@given(worlds())
def test_claims_and_headroom_recall_up_to_kubernetes_cap(world: Snapshot) -> None:
    recalls, index = only(decide(world, NOW), RecallLoan), Index(world, NOW)
    for name, pool in index.pools.items():
        ours = [c for c in recalls if c.loan.spec.pool_name == name and not c.loan.is_wanted_back]
        for reason in ("Claimed", "HeadroomLow"):
            assert sum(c.back.reason == reason for c in ours) <= sides(pool, index).may_take_back


@given(worlds())
def test_a_claim_recalls_only_what_is_less_important_and_never_twice(world: Snapshot) -> None:
    index = Index(world, NOW)
    recalls = only(decide(world, NOW), RecallLoan)
    assert len({c.loan.metadata.name for c in recalls}) == len(recalls)
    for recall in recalls:
        claim = index.live_claims[recall.back.claim.uid] if recall.back.claim else None
        if claim is None:
            assert not recall.loan.is_wanted_back, "a loan on its way back is turned only towards a claim"
            continue
        priority = index.priority_of(claim)
        assert priority is not None
        assert claim.spec.pool_name == recall.loan.spec.pool_name
        if recall.loan.is_wanted_back:
            before = recall.loan.spec.back.claim if recall.loan.spec.back else None
            assert before is None or before.uid not in index.live_claims, "what was promised is kept"
        else:
            assert of_loan(recall.loan, index) < priority


@given(worlds())
def test_a_gang_gets_all_that_it_lacks_or_nothing_and_its_pods_wait_for_that(world: Snapshot) -> None:
    index, given = Index(world, NOW), allot(Index(world, NOW))
    for claim in filter(is_gathering, index.live_claims.values()):
        uid, pool = claim.metadata.uid, index.pools.get(claim.spec.pool_name)
        nodes = [hold.node for hold in given.holds if hold.claim_uid == uid]
        loans = [turn.loan for turn in given.recalls if turn.back.claim and turn.back.claim.uid == uid]
        if pool and (nodes or loans):
            units = sum(units_of(one, claim, pool) for one in nodes) + sum(units_of_loan(one, claim) for one in loans)
            assert units >= lacking(claim, pool, index)
            assert uid not in given.waits
    for tolerate in only(decide(world, NOW), TolerateFence):
        assert not is_gathering(index.live_claims[tolerate.claim_uid])


@given(worlds())
def test_quotas_are_kept_and_no_class_is_used_without_leave(world: Snapshot) -> None:
    index, given = Index(world, NOW), allot(Index(world, NOW))
    new = Counter(hold.claim_uid for hold in given.holds)
    for turn in given.recalls:
        assert turn.back.claim is not None
        new[turn.back.claim.uid] += 1
        claim = index.live_claims[turn.back.claim.uid]
        if not turn.loan.is_wanted_back:
            assert may_use(index.pools[claim.spec.pool_name], turn.back.recall_class, index.priority_of(claim) or 0)
    for name, pool in index.pools.items():
        for quota in pool.spec.claims.quotas:
            counted = [c for c in index.live_claims.values() if c.spec.pool_name == name and counts(quota, c, index)]
            had = sum(len(held_nodes(c, index)) + len(coming_loans(c, index)) for c in counted)
            more = sum(new[c.metadata.uid] for c in counted)
            assert more == 0 or had + more <= quota.nodes


@given(worlds())
def test_a_protected_job_is_not_ended_for_a_claim_or_for_headroom(world: Snapshot) -> None:
    pools = {one.metadata.name: one for one in world.pools}
    for command in only(decide(world, NOW), RecallLoan):
        if command.loan.is_wanted_back or command.back.reason not in ("Claimed", "HeadroomLow"):
            continue
        terms = pools[command.loan.spec.pool_name].spec.recall
        slurm = world.slurm[pools[command.loan.spec.pool_name].spec.slurm_cluster_name]
        for one in slurm.jobs.values():
            if command.loan.spec.slurm_node_name not in one.nodes or "COMPLETING" in one.states or not one.start_time:
                continue
            ran = (NOW - one.start_time).total_seconds()
            assert ran >= terms.protection.minimum_run_seconds
            assert one.restarts < terms.protection.after_restarts or ran >= terms.protection.protected_seconds
            assert one.requeueable or terms.non_requeueable_jobs == "Cancel"


@given(worlds())
def test_nothing_is_concluded_from_a_slurm_that_was_not_seen(world: Snapshot) -> None:
    index = Index(world, NOW)
    commands = decide(world, NOW)
    vacated = {one.metadata.name for one in world.loans if one.status.is_true("Vacated")}
    for command in commands:
        if isinstance(command, DeleteSlurmNode | DownSlurmNode | CreateSlurmdPod):
            assert index.slurm_of(command.loan.spec.pool_name) is not None
    for write in only(commands, WriteLoanStatus):
        if write.loan.metadata.name not in vacated or index.slurm_of(write.loan.spec.pool_name) is not None:
            continue
        for step in ("Joined", "Drained", "Left"):
            assert write.status.is_true(step) <= write.loan.status.is_true(step)
    for release in only(commands, ReleaseNode):
        left = [w.status for w in only(commands, WriteLoanStatus) if w.loan.metadata.name == release.loan.metadata.name]
        assert (left[0] if left else release.loan.status).is_true("Left") or release.loan.is_over


@given(worlds())
def test_a_node_is_released_only_by_its_loan_and_only_to_a_live_claim(world: Snapshot) -> None:
    index = Index(world, NOW)
    for release in only(decide(world, NOW), ReleaseNode):
        assert release.loan.is_wanted_back or release.loan.is_over
        assert world.nodes[release.loan.spec.node_name].fence == release.loan.metadata.name
        assert not index.slurmd_pods.get(release.loan.metadata.name)
        assert release.claim_uid is None or release.claim_uid in index.live_claims
    for spare in only(decide(world, NOW), FreeSurplus):
        uid = spare.claim.metadata.uid
        assert spare.node.fence == claim_fence(uid)
        assert uid in index.live_claims
        assert not [pod for pod in pods_of(spare.claim, index) if pod.node == spare.node.name]
        kept = [world.nodes[name] for name in spare.keeps]
        assert sum(units_of(node, spare.claim, index.pools["batch"]) for node in kept) >= amount(spare.claim)
    for free in only(decide(world, NOW), FreeNode):
        assert free.node.fence is not None
        assert claim_of_fence(free.node.fence) == free.claim_uid
        assert free.claim_uid not in index.live_claims


@given(worlds())
def test_slurmd_is_started_only_behind_the_fence_on_a_vacant_node(world: Snapshot) -> None:
    index = Index(world, NOW)
    for command in decide(world, NOW):
        if not isinstance(command, CreateSlurmdPod | ConfirmVacated):
            continue
        target = world.nodes[command.loan.spec.node_name]
        assert (target.fence, target.loan_label) == (command.loan.metadata.name, command.loan.metadata.name)
        assert not index.foreign_gpu_pods(target.name, command.pool)
        if isinstance(command, CreateSlurmdPod):
            assert command.loan.status.is_true("Vacated")


@given(worlds())
def test_one_more_free_node_never_makes_more_recalls_for_claims(world: Snapshot) -> None:
    def recalls(seen: Snapshot) -> int:
        return sum(c.back.claim is not None and not c.loan.is_wanted_back for c in only(decide(seen, NOW), RecallLoan))

    spare = node("zz-spare")
    richer = replace(
        world, nodes={**world.nodes, spare.name: spare}, idle_since={**world.idle_since, spare.name: ago(9999)}
    )
    # a claim for more than the pool has gets nothing, so that one more node may make it possible, as it may a gang
    index = Index(world, NOW)
    assume(all(unservable(claim, index) is None or unservable(claim, Index(richer, NOW)) for claim in world.claims))
    assume(not any(claim.spec.gang for claim in world.claims))
    assert recalls(richer) <= recalls(world)


@given(worlds())
def test_returning_never_hopes_for_fewer_nodes_than_lending(world: Snapshot) -> None:
    """Else what one gives to a job of several nodes the other takes back."""
    index = Index(world, NOW)
    for pool in world.pools:
        if slurm := index.slurm_of(pool.metadata.name):
            assert obtainable(pool, slurm, index, soon=False) <= obtainable(pool, slurm, index, soon=True)


@given(worlds())
def test_every_loan_on_its_way_has_a_deadline_or_is_there(world: Snapshot) -> None:
    """Bounded: what is neither lent nor over says until when its present step may take."""
    turned = {c.loan.metadata.name for c in only(decide(world, NOW), RecallLoan)}
    for write in only(decide(world, NOW), WriteLoanStatus):
        after = write.status
        if write.loan.metadata.name in turned or after.is_true("Returned"):
            continue
        if write.loan.is_wanted_back or not after.is_true("Joined"):
            # A condition that was only just set gets the deadline of the next step in the next decision.
            fresh = after.conditions != write.loan.status.conditions
            pool_is_gone = write.loan.spec.pool_name not in {one.metadata.name for one in world.pools}
            assert after.deadline is not None or fresh or pool_is_gone


# --- the ladder


@st.composite
def ladders(draw: st.DrawFn) -> dict[str, Any]:
    seconds = st.sampled_from([0, 10, 60])
    jobs = tuple(
        job(
            number,
            on="gpu-1",
            states=draw(st.sampled_from([("RUNNING",), ("RUNNING",), ("COMPLETING",), ("SUSPENDED",)])),
            requeueable=draw(st.booleans()),
            comment=draw(st.sampled_from(["", "tidegate:signal=USR1"])),
        )
        for number in range(1, draw(st.integers(1, 4)))
    )
    return {
        "jobs": jobs,
        "ladder": Ladder(
            drain_seconds=draw(seconds),
            checkpoint_seconds=draw(seconds),
            requeue_seconds=draw(st.sampled_from([1, 30])),
        ),
        "terms": Recall.model_validate(
            {
                "nonRequeueableJobs": draw(st.sampled_from(["Protect", "Cancel"])),
                "nonRequeueableSeconds": draw(st.sampled_from([50, 200])),
            }
        ),
        "can_requeue": draw(st.booleans()),
    }


def promised_until(one: Any, given_up: dict[str, Any], start: datetime) -> datetime:
    """Until when the job may run undisturbed, by the terms that people wrote down."""
    ladder, terms = given_up["ladder"], given_up["terms"]
    drained = start + timedelta(seconds=ladder.drain_seconds)
    saved = drained + timedelta(seconds=ladder.checkpoint_seconds) if one.comment else drained
    if not one.requeueable and terms.non_requeueable_jobs == "Protect":
        return max(saved, start + timedelta(seconds=terms.non_requeueable_seconds))
    return saved


@given(ladders(), st.lists(st.integers(1, 90), min_size=1, max_size=30))
def test_the_ladder_keeps_its_promises_whenever_it_is_looked_at(terms: dict[str, Any], pauses: list[int]) -> None:
    """Jobs that never end, looked at after any pauses: nobody is disturbed early, each rung comes before the next."""
    start = now = NOW
    touched: tuple[TouchedJob, ...] = ()
    signalled: set[int] = set()
    requeued: set[int] = set()
    cancelled: set[int] = set()
    running = [one for one in terms["jobs"] if "COMPLETING" not in one.states]
    for pause in [0, *pauses]:
        now += timedelta(seconds=pause)
        rungs = climb(touched=touched, start=start, now=now, **terms)
        promises = {one.job_id: promised_until(one, terms, start) for one in running}
        for job_id, _ in rungs.signal:
            assert job_id not in signalled, "a signal twice would end the job"
            signalled.add(job_id)
        for job_id in (*rungs.requeue, *rungs.cancel):
            assert promises[job_id] <= now
        requeued |= set(rungs.requeue)
        cancelled |= set(rungs.cancel)
        by_id = {one.job_id: one for one in terms["jobs"]}
        assert all(by_id[job_id].requeueable for job_id in requeued)
        assert not any(by_id[job_id].requeueable for job_id in cancelled)
        if rungs.down:
            assert all(moment <= now for moment in promises.values())
            if terms["can_requeue"]:
                assert {one.job_id for one in running} <= requeued | cancelled, "never the first rung"
        touched = rungs.touched
        again = climb(touched=touched, start=start, now=now, **terms)
        assert (again.touched, again.down, again.deadline) == (rungs.touched, rungs.down, rungs.deadline)


@given(ladders())
def test_the_ladder_ends(terms: dict[str, Any]) -> None:
    touched: tuple[TouchedJob, ...] = ()
    for seconds in range(0, 400, 20):
        rungs = climb(touched=touched, start=NOW, now=NOW + timedelta(seconds=seconds), **terms)
        touched = rungs.touched
    assert rungs.down
    assert {one.job_id for one in touched} == {one.job_id for one in terms["jobs"]}

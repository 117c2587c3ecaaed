"""Each applier that could open a node to both sides refuses what a decision on an old observation asks of it.

The commands are made as a stale or second operator would make them; the world has moved on since.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.controllers.site import USERS, Operator, Site
from tidegate.api import NodeLoan
from tidegate.api.names import FENCE_TAINT, JOINING_REASON, claim_fence
from tidegate.cluster.kinds import BATCH_POOLS, CAPACITY_CLAIMS, EVENTS, NODE_LOANS, NODES, PODS
from tidegate.controllers.appliers import apply
from tidegate.sharing.commands import (
    ConfirmVacated,
    CreateSlurmdPod,
    DeleteSlurmdPod,
    DeleteSlurmNode,
    DownSlurmNode,
    DrainSlurmNode,
    EvictPod,
    FenceNode,
    FreeNode,
    FreeSurplus,
    HoldNode,
    RecallLoan,
    ReleaseNode,
    ResumeSlurmNode,
    TieToHolder,
    TolerateFence,
    UnlabelNode,
    WriteClaimStatus,
)
from tidegate.sharing.idleness import DO_NOT_DISRUPT
from tidegate.sharing.index import Index
from tidegate.sharing.return_steps import back_of


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(nodes=1)
    yield site
    site.close()


@pytest.fixture
def operator(site: Site) -> Operator:
    return Operator(site)


@pytest.fixture
def lent(site: Site, operator: Operator) -> NodeLoan:
    """A loan whose node is in Slurm and runs a long job."""
    site.slurm.submit(gpus_per_node=2, duration_seconds=1000)
    site.settle(operator, turns=15)
    loan = site.loans()[0]
    assert loan.status.is_true("Lent")
    return loan


def fenced(site: Site, operator: Operator) -> NodeLoan:
    """A loan whose fence is up and whose node nobody has looked at since."""
    site.slurm.submit(gpus_per_node=2)
    while not (site.loans() and site.loans()[0].status.is_true("Fenced")):
        operator.read_watch()
        operator.ask_slurm()
        for command in operator.decide():
            if not isinstance(command, ConfirmVacated):
                operator.apply(command)
        site.pass_time(1)
    return site.loans()[0]


def node_of(site: Site) -> str | None:
    return site.nodes()["gpu-0"].fence


def ended(site: Site, operator: Operator) -> NodeLoan:
    """A loan that went out and came home."""
    site.slurm.submit(gpus_per_node=2, duration_seconds=5)
    site.settle(operator, turns=60)
    loan = site.loans()[0]
    assert loan.is_over
    return loan


def test_a_node_that_changed_since_is_not_fenced(site: Site, operator: Operator) -> None:
    loan, seen = ended(site, operator), site.nodes()["gpu-0"]
    site.run(site.kube.patch(NODES, "gpu-0", {"spec": {"unschedulable": True}}))
    assert not operator.apply(FenceNode(loan, seen))
    assert not operator.apply(HoldNode(seen, "uid-of-a-claim"))
    assert node_of(site) is None


def test_a_pod_that_came_before_the_fence_keeps_the_node(site: Site, operator: Operator) -> None:
    loan = fenced(site, operator)
    site.gpu_pod("late", "web", 1)
    site.kube.schedule_stale(USERS, "late", "gpu-0")
    assert not operator.apply(ConfirmVacated(loan, site.pool()))
    assert not site.loans()[0].status.is_true("Vacated")


def test_a_node_that_lost_the_fence_is_not_called_vacant(site: Site, operator: Operator) -> None:
    loan = fenced(site, operator)
    site.run(site.kube.patch(NODES, "gpu-0", {"spec": {"taints": []}}))
    assert not operator.apply(ConfirmVacated(loan, site.pool()))


def test_no_slurmd_is_started_for_a_loan_that_is_wanted_back(site: Site, operator: Operator, lent: NodeLoan) -> None:
    cluster = operator.world.snapshot({}, {}).clusters["site"]
    pod = next(pod for pod in site.pods() if pod.loan)
    site.run(site.kube.patch(NODE_LOANS, lent.metadata.name, {"spec": {"wanted": "Returned"}}))
    site.run(site.kube.delete(PODS, pod.name, pod.namespace, grace_seconds=0))
    assert not operator.apply(CreateSlurmdPod(lent, site.pool(), cluster, 8, 1000))
    assert not [pod for pod in site.pods() if pod.loan]


def test_a_slurmd_that_may_get_jobs_is_not_ended(site: Site, operator: Operator, lent: NodeLoan) -> None:
    pod = next(pod for pod in site.pods() if pod.loan)
    assert not operator.apply(DeleteSlurmdPod("site", lent, pod))
    site.slurm.unreachable = True
    assert not operator.apply(DeleteSlurmdPod("site", lent, pod))
    assert next(pod for pod in site.pods() if pod.loan).deleting is False


def test_a_pod_of_another_uid_is_not_ended(site: Site, operator: Operator, lent: NodeLoan) -> None:
    pod = next(pod for pod in site.pods() if pod.loan)
    site.slurm.admin_drains("gpu-0", "tidegate: test")
    operator.apply(DeleteSlurmdPod("site", lent, replace(pod, uid="uid-of-an-earlier-one")))
    assert next(pod for pod in site.pods() if pod.loan).deleting is False


@pytest.mark.parametrize("claim_uid", [None, "uid-of-a-claim"])
@pytest.mark.parametrize("obstacle", ["not wanted back", "not left", "pod", "record", "label", "silent"])
def test_the_fence_stays_while_anything_of_the_loan_is_left(
    site: Site, operator: Operator, lent: NodeLoan, obstacle: str, claim_uid: str | None
) -> None:
    name = lent.metadata.name
    if obstacle != "not wanted back":
        site.run(site.kube.patch(NODE_LOANS, name, {"spec": {"wanted": "Returned"}}))
    if obstacle not in ("not wanted back", "not left"):
        status = lent.status.with_condition(site.now(), "Left", True, "Gone")
        site.run(site.kube.patch(NODE_LOANS, name, {"status": status.to_json()}, subresource="status"))
    if obstacle != "label":
        site.run(site.kube.patch(NODES, "gpu-0", {"metadata": {"labels": {"tidegate.dev/loan": None}}}))
    if obstacle in ("record", "silent"):
        pod = next(pod for pod in site.pods() if pod.loan)
        site.run(site.kube.delete(PODS, pod.name, pod.namespace, grace_seconds=0))
    site.slurm.unreachable = obstacle == "silent"
    assert not operator.apply(ReleaseNode(lent, "site", claim_uid))
    assert node_of(site) == name


def test_a_node_is_not_opened_to_all_when_a_claim_was_given_it_meanwhile(
    site: Site, operator: Operator, lent: NodeLoan
) -> None:
    site.claim("mine")
    for _ in range(40):
        operator.read_watch()
        operator.ask_slurm()
        for command in operator.decide():
            if not isinstance(command, ReleaseNode):
                operator.apply(command)
        site.turn()
        site.pass_time(1)
        if any(isinstance(command, ReleaseNode) for command in operator.decide()):
            break
    operator.read_watch()
    (release,) = [command for command in operator.decide() if isinstance(command, ReleaseNode)]
    assert not operator.apply(replace(release, claim_uid=None))
    assert node_of(site) == lent.metadata.name
    assert operator.apply(release)
    assert node_of(site) == claim_fence(site.claims()[0].metadata.uid)


def test_the_label_of_another_loan_stays(site: Site, operator: Operator) -> None:
    loan, seen = ended(site, operator), site.nodes()["gpu-0"]
    site.slurm.submit(gpus_per_node=2, duration_seconds=1000)
    site.settle(operator, turns=20)
    operator.apply(UnlabelNode(loan, seen))
    assert site.nodes()["gpu-0"].loan_label == node_of(site) != loan.metadata.name


def test_the_node_of_a_living_claim_is_not_freed(site: Site, operator: Operator) -> None:
    claim = site.claim("demo")
    site.settle(operator, turns=5)
    fence = claim_fence(claim["metadata"]["uid"])
    assert node_of(site) == fence
    assert not operator.apply(FreeNode(site.nodes()["gpu-0"], claim["metadata"]["uid"]))
    assert node_of(site) == fence
    site.run(site.kube.delete(CAPACITY_CLAIMS, "demo", USERS))
    assert operator.apply(FreeNode(site.nodes()["gpu-0"], claim["metadata"]["uid"]))
    assert node_of(site) is None


@pytest.mark.parametrize("news", ["none", "wanted again", "kept node lost", "pod came", "other claim"])
def test_a_spare_node_is_let_go_only_if_it_is_still_spare(news: str) -> None:
    site = Site(nodes=2)
    operator = Operator(site)
    try:
        site.claim("demo", nodes=2)
        site.settle(operator, turns=5)
        site.run(site.kube.patch(CAPACITY_CLAIMS, "demo", {"spec": {"nodes": 1}}, USERS))
        operator.read_watch()
        (spare,) = [command for command in operator.decide() if isinstance(command, FreeSurplus)]
        if news == "wanted again":
            site.run(site.kube.patch(CAPACITY_CLAIMS, "demo", {"spec": {"nodes": 2}}, USERS))
        if news == "kept node lost":
            site.run(site.kube.patch(NODES, spare.keeps[0], {"spec": {"taints": []}}))
        if news == "pod came":
            tolerate = {"key": FENCE_TAINT, "operator": "Exists"}
            site.gpu_pod("web-1", "web", 1, tolerations=[tolerate])
            site.kube.schedule_stale(USERS, "web-1", spare.node.name)
        if news == "other claim":
            site.run(site.kube.delete(CAPACITY_CLAIMS, "demo", USERS))
            site.claim("demo", nodes=1)
        assert operator.apply(spare) is (news == "none")
        assert (site.nodes()[spare.node.name].fence is None) is (news == "none")
    finally:
        site.close()


def test_a_gang_is_not_told_that_it_has_nodes_which_it_lost(site: Site, operator: Operator) -> None:
    site.claim("demo", gang=True)
    operator.read_watch()
    operator.round()
    assert node_of(site)
    (write,) = [command for command in operator.decide() if isinstance(command, WriteClaimStatus)]
    assert write.status.started is not None
    site.run(site.kube.patch(NODES, "gpu-0", {"spec": {"taints": []}}))
    assert not operator.apply(write)
    assert site.claims()[0].status.started is None


def test_a_claim_that_changed_since_is_not_tied(site: Site, operator: Operator) -> None:
    site.gpu_pod("web-1", "web")
    site.claim("demo", holderRef=site.holder("web"))
    operator.read_watch()
    (tie,) = [command for command in operator.decide() if isinstance(command, TieToHolder)]
    site.run(site.kube.patch(CAPACITY_CLAIMS, "demo", {"metadata": {"annotations": {"seen": "by a person"}}}, USERS))
    assert not operator.apply(tie)
    operator.read_watch()
    operator.round()
    assert site.claims()[0].metadata.owner_references[0].name == "web"


def test_a_record_that_somebody_else_drained_or_made_stays(site: Site, operator: Operator, lent: NodeLoan) -> None:
    site.drain_by_admin("gpu-0", "bad fan")
    assert operator.apply(DrainSlurmNode("site", lent, "tidegate: Claimed"))
    assert site.slurm.nodes["gpu-0"].reason == "bad fan"
    site.run(site.slurm.cancel_job(1))
    site.pass_time(5)
    assert not operator.apply(DeleteSlurmNode("site", lent))
    site.slurm.nodes["gpu-0"].extra = "somebody=else"
    site.slurm.admin_resumes("gpu-0")
    assert not operator.apply(DeleteSlurmNode("site", lent))
    assert operator.apply(DownSlurmNode("site", lent, "tidegate: Claimed"))
    assert operator.apply(DrainSlurmNode("site", lent, "tidegate: Claimed"))
    assert not site.slurm.nodes["gpu-0"].drained
    assert not site.slurm.nodes["gpu-0"].down


def test_a_loan_that_changed_since_is_not_turned_around(site: Site, operator: Operator, lent: NodeLoan) -> None:
    site.run(site.kube.patch(NODE_LOANS, lent.metadata.name, {"metadata": {"annotations": {"seen": "by a person"}}}))
    back = back_of(lent, Index(operator.world.snapshot({}, {}), site.now()))
    assert not operator.apply(RecallLoan(lent, back))
    assert site.loans()[0].spec.wanted == "Lent"


def test_a_node_that_looked_idle_is_not_recalled_once_a_job_has_started_there(site: Site, operator: Operator) -> None:
    site.run(site.kube.patch(BATCH_POOLS, "batch", {"spec": {"lending": {"policy": "Eager"}}}))
    site.settle(operator, turns=15)
    assert site.loans()[0].status.is_true("Lent")
    site.claim("demo")
    operator.read_watch()
    operator.ask_slurm()
    (recall,) = [command for command in operator.decide() if isinstance(command, RecallLoan)]
    site.slurm.submit(gpus_per_node=1, duration_seconds=1000, requeueable=False)
    site.pass_time(2)
    assert not operator.apply(recall)
    operator.ask_slurm()
    assert not [command for command in operator.decide() if isinstance(command, RecallLoan)], "its job is protected"
    site.run(site.slurm.cancel_job(1))
    site.pass_time(5)
    assert operator.apply(recall)
    assert site.loans()[0].spec.wanted == "Returned"


def test_a_node_that_had_not_registered_is_not_recalled_once_a_job_runs_there(site: Site, operator: Operator) -> None:
    site.slurm.submit(gpus_per_node=2, duration_seconds=1000, requeueable=False)
    for _ in range(40):
        operator.read_watch()
        operator.ask_slurm()
        operator.round()
        if any(pod.loan for pod in site.pods()):
            break
        site.pass_time(1)
    for _ in range(4):
        site.turn()
        site.pass_time(1)
    assert site.slurm.jobs[1].state == "RUNNING"
    site.claim("demo")
    operator.read_watch()
    (recall,) = [command for command in operator.decide() if isinstance(command, RecallLoan)]
    assert not operator.apply(recall)
    assert site.loans()[0].spec.wanted == "Lent"


def test_a_bound_pod_gets_no_toleration(site: Site, operator: Operator) -> None:
    site.gpu_pod("web-1", "web", 1)
    waiting = next(pod for pod in site.pods() if pod.name == "web-1")
    site.turn()
    operator.apply(TolerateFence(waiting, "uid-of-a-claim"))
    assert not next(pod for pod in site.pods() if pod.name == "web-1").tolerations


def test_nothing_is_done_without_the_lease(site: Site, operator: Operator, lent: NodeLoan) -> None:
    hands = replace(operator.hands, may_act=lambda: False)
    assert not site.run(apply(DrainSlurmNode("site", lent, "tidegate: Claimed"), hands))
    assert not site.slurm.nodes["gpu-0"].drained


def test_a_drain_is_lifted_only_while_the_node_joins(site: Site, operator: Operator, lent: NodeLoan) -> None:
    resume = ResumeSlurmNode("site", lent)
    site.slurm.nodes["gpu-0"].drained, site.slurm.nodes["gpu-0"].reason = True, "tidegate: Claimed for team/x"
    assert not operator.apply(resume), "it is recalled"
    site.slurm.nodes["gpu-0"].reason = "bad fan"
    assert not operator.apply(resume), "somebody else drained it"
    site.slurm.nodes["gpu-0"].reason = JOINING_REASON
    site.run(site.kube.patch(NODE_LOANS, lent.metadata.name, {"spec": {"wanted": "Returned"}}))
    assert not operator.apply(resume), "it is wanted back"
    assert site.slurm.nodes["gpu-0"].drained


@pytest.fixture
def eviction(site: Site, operator: Operator) -> EvictPod:
    """What an operator wants after it has seen that a node with a pod is fenced for an urgent job."""
    site.run(site.kube.patch(BATCH_POOLS, "batch", {"spec": {"lending": {"preemption": "LowerPriority"}}}))
    site.gpu_pod("web-1", "web")
    site.turn()
    site.slurm.submit(partition="urgent", gpus_per_node=2, duration_seconds=1000)
    for _ in range(40):
        operator.read_watch()
        operator.ask_slurm()
        for command in operator.decide():
            if isinstance(command, EvictPod):
                return command
            operator.apply(command)
        site.pass_time(1)
    raise AssertionError("nobody is to be evicted")


def test_a_pod_that_may_still_go_is_evicted_and_told_why(site: Site, operator: Operator, eviction: EvictPod) -> None:
    assert operator.apply(eviction)
    assert [pod["metadata"]["name"] for pod in site.kube.evicted] == ["web-1"]
    (event,) = [raw for raw in site.run(site.kube.list(EVENTS, USERS)) if raw["reason"] == "Evicted"]
    assert event["message"] == "Evicted from node gpu-0 for Slurm job 1 of priority 1500: the pod's priority is 1000"
    assert operator.apply(eviction), "a second try is content with a pod that is ending"
    assert len(site.kube.evicted) == 1


def test_a_pod_is_not_evicted_any_more_when_the_world_has_moved_on(
    site: Site, operator: Operator, eviction: EvictPod
) -> None:
    loan = eviction.loan.metadata.name
    protected = {"metadata": {"annotations": {DO_NOT_DISRUPT: "true"}}}
    unprotected = {"metadata": {"annotations": {DO_NOT_DISRUPT: None}}}
    site.run(site.kube.patch(PODS, "web-1", protected, USERS))
    assert not operator.apply(eviction)
    site.run(site.kube.patch(PODS, "web-1", unprotected, USERS))
    site.run(site.kube.patch(NODES, "gpu-0", protected))
    assert not operator.apply(eviction)
    site.run(site.kube.patch(NODES, "gpu-0", unprotected))
    site.budget("web", maxUnavailable=0)
    assert not operator.apply(eviction)
    site.budget("web", maxUnavailable=1)
    assert not operator.apply(replace(eviction, gang=(loan, "another")))
    assert not operator.apply(replace(eviction, gang=()))
    elsewhere = replace(eviction.pod, node="gpu-7")
    assert operator.apply(replace(eviction, pod=replace(elsewhere, uid="of-another-pod"))), "that one is gone"
    site.run(site.kube.patch(NODES, "gpu-0", {"spec": {"taints": []}}))
    assert not operator.apply(eviction)
    site.run(site.kube.patch(NODE_LOANS, loan, {"spec": {"wanted": "Returned"}}))
    assert not operator.apply(eviction)
    assert site.kube.evicted == []
    assert site.wrongs == []


def test_nobody_goes_before_the_server_says_that_all_may(site: Site, operator: Operator, eviction: EvictPod) -> None:
    site.gpu_pod("api-1", "api", 1, "low")
    site.kube.schedule_stale(USERS, "api-1", "gpu-0")
    for raw in site.run(site.kube.list(PODS, USERS)):
        site.run(site.kube.patch(PODS, raw["metadata"]["name"], {"status": {"phase": "Running"}}, USERS, "status"))
    other = next(pod for pod in site.pods() if pod.name == "api-1")
    site.budget("api", minAvailable=1)
    assert not operator.apply(replace(eviction, others=(other,)))
    assert site.kube.evicted == []
    site.budget("api", minAvailable=0)
    assert operator.apply(replace(eviction, others=(other,)))
    assert [pod["metadata"]["name"] for pod in site.kube.evicted] == ["web-1"], "the other one was only asked about"

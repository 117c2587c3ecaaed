"""The main job on the site in memory, with the real decide and the real appliers: lend, recall, hand over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.controllers.site import USERS, Operator, Site
from tidegate.cluster.kinds import BATCH_POOLS, CAPACITY_CLAIMS, NODE_LOANS, NODES, PODS


@pytest.fixture(params=["24.11", "26.05"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    site = Site(release=request.param)
    yield site
    site.close()


@pytest.fixture
def operator(site: Site) -> Operator:
    return Operator(site)


def owners(site: Site) -> dict[str, str | None]:
    return {name: node.fence for name, node in site.nodes().items()}


def satisfaction(site: Site) -> tuple[str, str]:
    """Reason and message of the only claim's condition."""
    condition = site.claims()[0].status.condition("Satisfied")
    assert condition is not None
    return condition.reason, condition.message


def test_idle_nodes_stay_home_without_demand(site: Site, operator: Operator) -> None:
    site.settle(operator, turns=30)
    assert set(owners(site).values()) == {None}
    assert site.pool().status.nodes.kubernetes == 3


def test_demand_lends_as_many_nodes_as_jobs_can_use_and_they_come_home(site: Site, operator: Operator) -> None:
    jobs = [site.slurm.submit(gpus_per_node=2, duration_seconds=40) for _ in range(2)]
    site.settle(operator, turns=15)
    assert sum(fence is not None for fence in owners(site).values()) == 2
    site.settle(operator, turns=80)
    assert [site.slurm.jobs[job].state for job in jobs] == ["COMPLETED", "COMPLETED"]
    assert set(owners(site).values()) == {None}
    assert all(loan.is_over for loan in site.loans())
    assert site.slurm.nodes == {}


def test_a_job_of_three_nodes_gets_them_together_though_they_come_one_by_one(site: Site, operator: Operator) -> None:
    # Three nodes that each idled in Slurm at another time once went home and came back in turn, for ever.
    for seconds in (20, 28, 36):
        site.slurm.submit(gpus_per_node=2, duration_seconds=seconds)
    site.settle(operator, turns=12)
    site.run(site.kube.patch(NODES, "gpu-0", {"spec": {"unschedulable": True}}))
    job = site.slurm.submit(nodes=3, gpus_per_node=2, duration_seconds=30)
    site.settle(operator, turns=120)
    before = len(site.loans())
    assert all(loan.is_over for loan in site.loans()), "two nodes are not enough for the job, so none is lent"
    site.run(site.kube.patch(NODES, "gpu-0", {"spec": {"unschedulable": None}}))
    site.settle(operator, turns=120)
    assert site.slurm.jobs[job].state == "COMPLETED"
    assert len(site.loans()) == before + 3


def test_a_more_important_pod_gets_the_cheapest_node_back(site: Site, operator: Operator) -> None:
    site.gpu_pod("web-1", "web")
    long = site.slurm.submit(gpus_per_node=2, duration_seconds=500)
    site.settle(operator, turns=100)
    short = site.slurm.submit(gpus_per_node=2, duration_seconds=500)
    site.settle(operator, turns=20)
    assert sum(loan.status.is_true("Lent") for loan in site.loans()) == 2
    victim = site.slurm.jobs[short].nodes
    site.gpu_pod("web-2", "web")
    site.settle(operator, turns=30)
    pods = {pod.name: pod.node for pod in site.pods() if pod.namespace == USERS}
    assert pods["web-2"] in victim
    assert site.slurm.jobs[long].state == "RUNNING"
    assert site.slurm.history[short][-1].end_state == "REQUEUED"
    assert satisfaction(site)[0] == "Served"
    assert owners(site)[pods["web-2"]] is None
    site.run(site.kube.delete(PODS, "web-2", USERS, grace_seconds=0))
    site.settle(operator, turns=700)
    assert site.slurm.jobs[short].state == "COMPLETED"


def test_a_job_that_declares_a_signal_saves_its_work(site: Site, operator: Operator) -> None:
    job = site.slurm.submit(
        nodes=3, gpus_per_node=2, duration_seconds=300, comment="tidegate:signal=USR1", on_signal="checkpoints"
    )
    site.settle(operator, turns=60)
    assert site.slurm.jobs[job].state == "RUNNING"
    site.gpu_pod("web-1", "web")
    site.settle(operator, turns=40)
    run = site.slurm.history[job][-1]
    assert site.slurm.jobs[job].signals == ["USR1"]
    assert run.end_state == "REQUEUED"
    assert run.lost_seconds <= 12


def test_an_explicit_claim_holds_free_nodes_first_and_lets_go_when_deleted(site: Site, operator: Operator) -> None:
    site.slurm.submit(gpus_per_node=2, duration_seconds=500)
    site.settle(operator, turns=20)
    site.claim("demo", nodes=3)
    site.settle(operator, turns=30)
    assert satisfaction(site)[0] == "Held"
    assert site.claims()[0].status.held_nodes == 3
    site.run(site.kube.delete(CAPACITY_CLAIMS, "demo", USERS))
    site.settle(operator, turns=5)
    assert sum(fence is not None and fence.startswith("claim_") for fence in owners(site).values()) == 0


def test_a_claim_of_no_higher_priority_gets_nothing_and_says_why(site: Site, operator: Operator) -> None:
    site.run(site.kube.patch(BATCH_POOLS, "batch", {"spec": {"priority": 1000}}))
    site.slurm.submit(gpus_per_node=2, nodes=3, duration_seconds=500)
    site.settle(operator, turns=20)
    site.claim("demo")
    site.settle(operator, turns=20)
    assert satisfaction(site) == (
        "NothingToRecall",
        "no loan of pool batch has a priority below 1000",
    )


def test_a_deleted_loan_brings_its_node_home(site: Site, operator: Operator) -> None:
    site.slurm.submit(gpus_per_node=2, duration_seconds=100)
    site.settle(operator, turns=20)
    loan = next(loan for loan in site.loans() if not loan.is_over)
    site.run(site.kube.delete(NODE_LOANS, loan.metadata.name))
    site.settle(operator, turns=20)
    assert not site.has_loan(loan.metadata.name)


TAKING = {"lending": {"preemption": "LowerPriority", "evictionSeconds": 40}}


def pods_of(site: Site, app: str) -> list[str]:
    """Nodes of a Deployment's pods, empty for those that wait."""
    return sorted(pod.node for pod in site.pods() if pod.labels.get("app") == app and not pod.deleting)


def test_an_urgent_job_takes_a_node_from_less_important_pods_which_get_it_back_afterwards(
    site: Site, operator: Operator
) -> None:
    site.run(site.kube.patch(BATCH_POOLS, "batch", {"spec": TAKING}))
    for number in range(3):
        site.gpu_pod(f"web-{number}", "web")
    site.settle(operator, turns=10)
    plain = site.slurm.submit(gpus_per_node=2, duration_seconds=20)
    site.settle(operator, turns=20)
    assert site.kube.evicted == [], "a job that nobody named waits for free nodes"
    urgent = site.slurm.submit(partition="urgent", gpus_per_node=2, duration_seconds=60, priority=10)
    site.settle(operator, turns=25)
    assert site.slurm.jobs[urgent].state == "RUNNING"
    assert len(site.kube.evicted) == 1
    assert pods_of(site, "web").count("") == 1, "its controller made a new one, which waits"
    (loan,) = [one for one in site.loans() if not one.is_over]
    assert (loan.status.priority, loan.spec.taken_for is not None) == (1500, True)
    assert satisfaction(site) == ("NothingToRecall", "no loan of pool batch has a priority below 1000")
    site.settle(operator, turns=60)
    assert site.slurm.jobs[urgent].state == "COMPLETED"
    assert satisfaction(site)[0] == "Served"
    assert pods_of(site, "web").count("") == 0
    assert site.slurm.jobs[plain].state == "PENDING"
    assert len(site.kube.evicted) == 1
    assert site.wrongs == []


def test_a_gang_takes_all_its_nodes_or_none(site: Site, operator: Operator) -> None:
    site.run(site.kube.patch(BATCH_POOLS, "batch", {"spec": TAKING}))
    site.budget("web", maxUnavailable=1)
    for number in range(3):
        site.gpu_pod(f"web-{number}", "web")
    site.settle(operator, turns=10)
    job = site.slurm.submit(partition="urgent", nodes=2, gpus_per_node=2, duration_seconds=30)
    site.settle(operator, turns=20)
    assert site.kube.evicted == []
    said = site.pool().status.condition("UrgentServed")
    assert said is not None
    assert (said.status, said.reason) == ("False", "TooFewToTake")
    assert "job 1 of priority 1500 lacks 2 nodes and could take 1" in said.message
    assert "PodDisruptionBudget team/web does not allow the eviction of pod team/web-" in said.message
    site.budget("web", maxUnavailable=2)
    site.settle(operator, turns=20)
    assert site.slurm.jobs[job].state == "RUNNING"
    assert len(site.kube.evicted) == 2
    site.settle(operator, turns=60)
    assert pods_of(site, "web").count("") == 0
    assert site.wrongs == []


def test_an_eviction_that_the_server_refuses_turns_the_node_back(site: Site, operator: Operator) -> None:
    site.run(site.kube.patch(BATCH_POOLS, "batch", {"spec": TAKING}))
    for number in range(3):
        site.gpu_pod(f"web-{number}", "web")
    site.settle(operator, turns=10)
    site.slurm.submit(partition="urgent", gpus_per_node=2, duration_seconds=300)
    while not any(loan.spec.taken_for for loan in site.loans()):
        site.settle(operator, turns=1)
    site.budget("web", maxUnavailable=0)
    site.settle(operator, turns=60)
    back = site.loans()[0].spec.back
    assert back is not None
    assert back.reason == "EvictionRefused"
    assert "PodDisruptionBudget team/web does not allow the eviction of pod team/web-" in back.message
    assert site.kube.evicted == []
    assert set(owners(site).values()) == {None}

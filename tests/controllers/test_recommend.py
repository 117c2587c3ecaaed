"""A pool that recommends, on the site in memory: a recording of all requests shows that it touches nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.controllers.site import USERS, Operator, Site
from tidegate.cluster.kinds import BATCH_POOLS, EVENTS, NODES, PODS
from tidegate.controllers.hands import Hands

LOOKS = ("get", "list", "node", "observe")


class Recorder:
    """Notes each call that is more than a look: its name, the kind of object, and the subresource."""

    def __init__(self, target: Any, calls: list[tuple[str, ...]]) -> None:
        self._target = target
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            if name not in LOOKS:
                kind = getattr(args[0], "plural", "slurm") if args else "slurm"
                self._calls.append((name, kind, kwargs.get("subresource", "")))
            return await method(*args, **kwargs)

        return call


class Recorded(Operator):
    """An operator whose requests are recorded."""

    def __init__(self, site: Site) -> None:
        self.calls: list[tuple[str, ...]] = []
        super().__init__(site)

    @property
    def hands(self) -> Hands:
        plain = super().hands
        return replace(
            plain,
            kube=Recorder(plain.kube, self.calls),
            slurm=lambda name: Recorder(plain.slurm(name), self.calls),
        )


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(terms={"mode": "Recommend"})
    yield site
    site.close()


@pytest.fixture
def operator(site: Site) -> Recorded:
    return Recorded(site)


STATUSES_AND_EVENTS = {
    ("patch", "batchpools", "status"),
    ("patch", "capacityclaims", "status"),
    ("patch", "slurmclusters", "status"),
    ("create", "events", ""),
}


def recommended(site: Site) -> Any:
    found = site.pool().status.recommended
    assert found is not None
    return found


def names(site: Site) -> list[str]:
    return [one.name for one in recommended(site).nodes]


def raw_nodes(site: Site) -> list[Any]:
    return [(raw["metadata"]["labels"], raw["spec"].get("taints")) for raw in site.run(site.kube.list(NODES))]


def events(site: Site, reason: str) -> list[tuple[str, str]]:
    """Kind of the object and message of these events."""
    found = site.run(site.kube.list(EVENTS))
    return [(one["involvedObject"]["kind"], one["message"]) for one in found if one["reason"] == reason]


def test_whatever_happens_it_writes_statuses_and_events_only(site: Site, operator: Recorded) -> None:
    before = raw_nodes(site)
    for _ in range(2):
        site.slurm.submit(gpus_per_node=2, duration_seconds=40)
    site.settle(operator, turns=12)
    assert len(names(site)) == 2
    site.claim("wish", nodes=3)
    site.claim("short", nodes=1, ttlSeconds=5)
    site.settle(operator, turns=10)
    for number in range(4):
        site.gpu_pod(f"web-{number}", "web", 2, "urgent")
    site.settle(operator, turns=12)
    site.slurm.jobs.clear()
    for name in ("web-0", "web-1"):
        site.run(site.kube.delete(PODS, name, USERS, grace_seconds=0))
    site.settle(operator, turns=70)
    assert set(operator.calls) == STATUSES_AND_EVENTS
    assert raw_nodes(site) == before, "no fence and no label"
    assert site.loans() == []
    assert site.slurm.nodes == {}
    assert site.pool().metadata.finalizers == ()
    assert {claim.metadata.name for claim in site.claims()} == {"wish", "short"}, "no automatic claim"
    assert not any(t.key.startswith("tidegate.dev") for pod in site.pods() for t in pod.tolerations)


def test_a_waiting_job_is_recommended_a_node_until_it_does_not_wait_any_more(site: Site, operator: Recorded) -> None:
    job = site.slurm.submit(gpus_per_node=2, duration_seconds=40)
    site.settle(operator, turns=10)
    assert names(site) == ["gpu-0"]
    assert site.slurm.jobs[job].state == "PENDING", "nothing was done for it"
    words = "pending jobs of partition lent could use it"
    assert ("BatchPool", f"would lend gpu-0: {words}") in events(site, "WouldLend")
    assert ("Node", f"Pool batch would lend it: {words}") in events(site, "WouldLend")
    site.slurm.jobs.clear()
    site.settle(operator, turns=14)
    assert names(site) == []
    assert (recommended(site).lends, recommended(site).recalls) == (1, 1)
    assert recommended(site).node_seconds >= 10
    kinds = [kind for kind, _ in events(site, "WouldRecall")]
    assert sorted(kinds) == ["BatchPool", "Node"], "told once"
    condition = site.pool().status.condition("Ready")
    assert condition is not None
    assert (condition.status, condition.reason) == ("True", "Recommending")


def test_a_pod_comes_onto_the_node_as_if_nobody_had_thought_of_it(site: Site, operator: Recorded) -> None:
    for _ in range(3):
        site.slurm.submit(gpus_per_node=2, duration_seconds=40)
    site.settle(operator, turns=10)
    assert len(names(site)) == 3
    site.gpu_pod("web", "web", 2)
    site.settle(operator, turns=3)
    (pod,) = [pod for pod in site.pods() if pod.name == "web"]
    assert pod.node, "it did not even wait"
    assert pod.node not in names(site)
    assert [words for kind, words in events(site, "WouldRecall") if kind == "BatchPool"] == [
        f"would take back {pod.node}: pod {USERS}/web came onto it"
    ]


def test_two_operators_count_once(site: Site) -> None:
    operators = [Recorded(site), Recorded(site)]
    site.slurm.submit(gpus_per_node=2, duration_seconds=40)
    for _ in range(10):
        for operator in operators:
            operator.ask_slurm()
            operator.round()
        for operator in operators:
            operator.read_watch()
        site.pass_time(1)
    assert recommended(site).lends == 1


@pytest.fixture
def enforced() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


def switch(site: Site, mode: str) -> None:
    site.run(site.kube.patch(BATCH_POOLS, "batch", {"spec": {"mode": mode}}))


def test_when_it_only_recommends_from_now_on_what_is_out_comes_home_and_no_job_is_lost(enforced: Site) -> None:
    site, operator = enforced, Recorded(enforced)
    jobs = [site.slurm.submit(gpus_per_node=2, duration_seconds=seconds) for seconds in (15, 500)]
    site.settle(operator, turns=10)
    assert len(site.loans()) == 2
    switch(site, "Recommend")
    site.settle(operator, turns=60)
    assert all(loan.is_over for loan in site.loans())
    backs = [loan.spec.back for loan in site.loans()]
    assert [(back.reason, back.recall_class) for back in backs if back] == [("PoolRecommends", "graceful")] * 2
    assert site.slurm.jobs[jobs[0]].state == "COMPLETED", "it could end by itself"
    assert site.slurm.jobs[jobs[1]].state == "PENDING", "it was requeued"
    assert site.pool().metadata.finalizers == ()
    assert names(site), "and from then on it recommends"
    operator.calls.clear()
    site.settle(operator, turns=20)
    assert set(operator.calls) <= STATUSES_AND_EVENTS


def test_when_it_enforces_again_it_begins_from_nothing(site: Site, operator: Recorded) -> None:
    site.slurm.submit(gpus_per_node=2, duration_seconds=20)
    site.settle(operator, turns=10)
    assert names(site)
    switch(site, "Enforce")
    site.settle(operator, turns=8)
    assert site.pool().status.recommended is None
    assert len(site.loans()) == 1


def test_what_a_claim_held_before_stays_held_until_it_is_over(enforced: Site) -> None:
    site, operator = enforced, Recorded(enforced)
    site.claim("wish", nodes=1)
    site.settle(operator, turns=5)
    switch(site, "Recommend")
    site.claim("late", nodes=1)
    site.settle(operator, turns=10)
    held = {claim.metadata.name: claim.status.held_nodes for claim in site.claims()}
    assert held == {"wish": 1, "late": 0}
    late = next(claim for claim in site.claims() if claim.metadata.name == "late").status.condition("Satisfied")
    assert late is not None
    assert (late.status, late.reason) == ("False", "Recommended")

"""Gangs on a whole site: all nodes or none, whoever else wants them, and no halves for ever."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.controllers.promises import Promises
from tests.controllers.site import USERS, Operator, Site
from tests.controllers.test_state_machine import quiet as quiet
from tidegate.api import CapacityClaim
from tidegate.api.names import claim_fence
from tidegate.cluster.kinds import CAPACITY_CLAIMS, NODES

GATHER = 20
SLACK = timedelta(seconds=GATHER + 10)
"""The deadline, and what a healthy operator needs to see it and to let go."""


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


def held(site: Site, claim: str) -> int:
    """How many nodes are held for the claim of that name."""
    uids = [one.metadata.uid for one in site.claims() if one.metadata.name == claim]
    return sum(node.fence == claim_fence(uid) for node in site.nodes().values() for uid in uids)


def named(site: Site, claim: str) -> CapacityClaim:
    return next(one for one in site.claims() if one.metadata.name == claim)


def bound(site: Site) -> set[str]:
    return {pod.name for pod in site.pods() if pod.namespace == USERS and pod.node}


def test_pods_of_a_gang_come_when_the_last_node_has_come(site: Site) -> None:
    operator = Operator(site)
    site.slurm.submit(
        nodes=2, gpus_per_node=2, duration_seconds=1000, on_signal="ignores", comment="tidegate:signal=USR1"
    )
    site.settle(operator, turns=15)
    free = next(name for name, node in site.nodes().items() if node.fence is None)
    site.claim("both", nodes=3, gang=True)
    for number in range(3):
        site.gpu_pod(f"rank-{number}", "mpi", claim="both")
    site.settle(operator, turns=6)
    assert site.nodes()[free].fence, "it is held while the others are being freed"
    assert named(site, "both").status.is_true("Gathering")
    assert bound(site) == set(), "one pod alone could do nothing there"
    site.settle(operator, turns=25)
    assert held(site, "both") == 3
    assert bound(site) == {"rank-0", "rank-1", "rank-2"}


def test_a_gang_that_cannot_be_whole_recalls_nothing(site: Site) -> None:
    operator = Operator(site)
    job = site.slurm.submit(nodes=2, gpus_per_node=2, duration_seconds=1000)
    site.settle(operator, turns=15)
    idle = next(name for name, node in site.nodes().items() if node.fence is None)
    site.run(site.kube.patch(NODES, idle, {"spec": {"unschedulable": True}}))
    site.claim("three", nodes=3, gang=True)
    site.settle(operator, turns=30)
    condition = named(site, "three").status.condition("Satisfied")
    assert condition is not None
    assert condition.reason == "GangWaits"
    assert site.slurm.jobs[job].state == "RUNNING"
    site.run(site.kube.patch(NODES, idle, {"spec": {"unschedulable": None}}))
    site.settle(operator, turns=40)
    assert held(site, "three") == 3


def test_what_a_gang_gathered_in_vain_goes_to_the_next(site: Site) -> None:
    operator = Operator(site)
    site.slurm.submit(nodes=2, gpus_per_node=2, duration_seconds=1000)
    site.settle(operator, turns=15)
    site.claim("first", nodes=3, gang=True, gatherSeconds=GATHER)
    site.settle(operator, turns=2)
    site.kube.node_dies("gpu-1")
    site.claim("second", nodes=2, gang=True, gatherSeconds=GATHER)
    site.settle(operator, turns=2 * GATHER)
    expired = named(site, "first").status.condition("Expired")
    assert expired is not None
    assert (expired.reason, "it had " in expired.message) == ("GangIncomplete", True)
    site.settle(operator, turns=10)
    assert (held(site, "first"), held(site, "second")) == (0, 2)


@pytest.mark.parametrize(
    ("old", "young", "winner"), [("inference", "inference", "old"), ("inference", "urgent", "young")]
)
def test_of_two_gangs_that_come_at_once_the_stronger_gets_all(old: str, young: str, winner: str) -> None:
    site = Site()
    try:
        operator = Operator(site)
        for name, priority_class in (("old", old), ("young", young)):
            site.claim(name, nodes=2, priority_class=priority_class, gang=True)
            site.pass_time(1)
        site.settle(operator, turns=20)
        loser = {"old": "young", "young": "old"}[winner]
        assert (held(site, winner), held(site, loser)) == (2, 0)
        site.run(site.kube.delete(CAPACITY_CLAIMS, winner, USERS))
        site.settle(operator, turns=20)
        assert held(site, loser) == 2
    finally:
        site.close()


events = st.lists(
    st.tuples(
        st.integers(0, 12),
        st.sampled_from(["claim", "claim", "urgent claim", "plain claim", "job", "node dies", "node lives", "cancel"]),
        st.integers(0, 2),
    ),
    min_size=2,
    max_size=10,
)


@settings(max_examples=settings().max_examples // 8)
@given(events)
def test_no_two_gangs_hold_halves_for_longer_than_the_deadline(happens: list[tuple[int, str, int]]) -> None:
    """Gangs of two on three nodes, whatever comes and goes."""
    site = Site()
    operator, promises = Operator(site), Promises(site)
    since: dict[str, datetime] = {}

    def live_on(turns: int) -> None:
        for _ in range(turns):
            site.settle(operator, turns=1, seconds=2.0)
            promises.check()
            halves = [
                one.metadata.name for one in site.claims() if one.spec.gang and held(site, one.metadata.name) == 1
            ]
            gathering = {name for name in halves if named(site, name).status.started is None}
            for name in list(since):
                if name not in gathering:
                    del since[name]
            for name in gathering:
                since.setdefault(name, site.now())
                assert site.now() - since[name] <= SLACK, f"{name} holds a half since {since[name]}"

    try:
        for number, (turns, what, which) in enumerate(happens):
            if what.endswith("claim"):
                gang = {} if what.startswith("plain") else {"gang": True, "gatherSeconds": GATHER}
                class_ = "urgent" if what.startswith("urgent") else "inference"
                site.claim(f"claim-{number}", nodes=1 if not gang else 2, priority_class=class_, **gang)
            elif what == "job":
                site.slurm.submit(nodes=1 + which % 2, gpus_per_node=2, duration_seconds=30)
            elif what == "cancel" and (claims := site.claims()):
                name = claims[which % len(claims)].metadata.name
                site.run(site.kube.delete(CAPACITY_CLAIMS, name, USERS))
            elif what.startswith("node"):
                (site.kube.node_dies if what == "node dies" else site.kube.node_lives)(f"gpu-{which}")
            live_on(turns)
        live_on(GATHER)
    finally:
        site.close()

"""Reservations from their making to their end, on a site whose time the test makes pass."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.controllers.promises import Promises
from tests.controllers.site import USERS, Operator, Site
from tidegate.api import CapacityClaim
from tidegate.api.names import claim_of_fence
from tidegate.cluster.kinds import CAPACITY_CLAIMS


@pytest.fixture(params=["24.11", "26.05"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    made = Site(release=request.param, nodes=3)
    yield made
    made.close()


def reserve(site: Site, nodes: int, start: float, duration: int) -> datetime:
    """A reservation that starts so many seconds from now; returns when."""
    moment = site.now() + timedelta(seconds=start)
    site.claim("later", nodes, startTime=moment.isoformat(), durationSeconds=duration)
    return moment


def the_claim(site: Site) -> CapacityClaim:
    return next(claim for claim in site.claims() if claim.metadata.name == "later")


def held(site: Site) -> list[str]:
    """Nodes that are held for any claim."""
    return [node.name for node in site.nodes().values() if node.fence and claim_of_fence(node.fence)]


def until(site: Site, operator: Operator, moment: datetime) -> None:
    """Let a healthy operator and the world take turns until then."""
    promises = Promises(site)
    while site.now() < moment:
        site.settle(operator, turns=1, seconds=2.0)
        promises.check()


def test_nodes_work_until_they_are_needed_are_there_at_the_start_and_go_back_at_the_end(site: Site) -> None:
    operator = Operator(site)
    jobs = [site.slurm.submit(nodes=1, gpus_per_node=2, duration_seconds=10_000) for _ in range(3)]
    site.settle(operator, turns=20)
    assert all(site.slurm.jobs[job].state == "RUNNING" for job in jobs)
    start = reserve(site, nodes=2, start=200, duration=100)
    until(site, operator, start - timedelta(seconds=80))
    assert not held(site)
    assert all(site.slurm.jobs[job].state == "RUNNING" for job in jobs)
    claim = the_claim(site)
    assert claim.status.promised_start == start
    assert (told := claim.status.condition("SlurmTold"))
    assert told.reason == ("NotSupported" if site.slurm.release == "24.11" else "Reserved")
    assert len(site.slurm.reservations) == int(site.slurm.release != "24.11")
    until(site, operator, start)
    assert len(held(site)) == 2
    assert not site.slurm.reservations
    site.settle(operator, turns=2)
    claim = the_claim(site)
    assert claim.status.started == start
    assert (late := claim.status.condition("StartedLate"))
    assert (late.status, late.reason) == ("False", "OnTime")
    until(site, operator, start + timedelta(seconds=100 + 40))
    assert not held(site)
    assert the_claim(site).status.is_true("Expired")
    assert sum(site.slurm.jobs[job].state == "RUNNING" for job in jobs) == 3, "lent again"


def test_a_start_that_is_too_soon_is_late_and_says_by_how_much(site: Site) -> None:
    operator = Operator(site)
    for _ in range(3):
        site.slurm.submit(nodes=1, gpus_per_node=2, duration_seconds=10_000, comment="tidegate:signal=USR1")
    site.settle(operator, turns=20)
    start = reserve(site, nodes=3, start=2, duration=300)
    until(site, operator, start + timedelta(seconds=5))
    claim = the_claim(site)
    assert claim.status.started is None
    assert claim.status.promised_start
    assert claim.status.promised_start > start, "by then it was known that this is too soon"
    until(site, operator, start + timedelta(seconds=60))
    claim = the_claim(site)
    assert claim.status.started
    assert claim.status.started > start


@pytest.mark.parametrize("shape", [{"nodes": 1}, {"nodes": 2}])
def test_nodes_do_not_come_and_go_for_jobs_that_would_run_into_a_reservation(site: Site, shape: Any) -> None:
    """Lending and returning agree about what is kept: after the first minute nothing changes hands."""
    operator = Operator(site)
    reserve(site, nodes=2, start=4000, duration=100)
    site.settle(operator, turns=5)
    for _ in range(3):
        site.slurm.submit(**shape, gpus_per_node=2, duration_seconds=10_000)
    site.settle(operator, turns=60)
    before = {loan.metadata.name for loan in site.loans()}
    running = {job.job_id for job in site.slurm.jobs.values() if job.state == "RUNNING"}
    assert len(running) == (1 if shape["nodes"] == 1 else 0)
    assert len(before) == len(running)
    until(site, operator, site.now() + timedelta(seconds=120))
    assert {loan.metadata.name for loan in site.loans()} == before


def test_short_jobs_use_what_is_kept_from_long_ones(site: Site) -> None:
    operator = Operator(site)
    reserve(site, nodes=3, start=4000, duration=100)
    site.settle(operator, turns=5)
    long = site.slurm.submit(gpus_per_node=2, duration_seconds=10_000, priority=-1)
    short = [site.slurm.submit(gpus_per_node=2, duration_seconds=100, time_limit_seconds=600) for _ in range(9)]
    site.settle(operator, turns=150, seconds=3.0)
    assert all(site.slurm.jobs[job].state == "COMPLETED" for job in short)
    if site.slurm.release != "24.11":
        assert site.slurm.jobs[long].state == "PENDING", "it would have been stopped at the start"


def test_a_long_job_at_the_head_of_the_queue_does_not_get_the_node_that_joins_for_a_short_one(site: Site) -> None:
    """The node registers drained, and takes jobs when Slurm has been told what it is kept from."""
    operator = Operator(site)
    reserve(site, nodes=3, start=4000, duration=100)
    site.settle(operator, turns=5)
    long = site.slurm.submit(gpus_per_node=2, duration_seconds=10_000, priority=1)
    short = [site.slurm.submit(gpus_per_node=2, duration_seconds=50, time_limit_seconds=600) for _ in range(3)]
    site.settle(operator, turns=60, seconds=3.0)
    if site.slurm.release == "24.11":
        assert site.slurm.jobs[long].state == "RUNNING", "nothing can be told there"
        return
    assert all(site.slurm.jobs[job].state == "COMPLETED" for job in short)
    assert not site.slurm.history[long]
    assert site.slurm.jobs[long].state == "PENDING"


def test_a_cancelled_reservation_leaves_nothing_behind_in_slurm(site: Site) -> None:
    operator = Operator(site)
    for _ in range(3):
        site.slurm.submit(nodes=1, gpus_per_node=2, duration_seconds=10_000)
    site.settle(operator, turns=20)
    reserve(site, nodes=2, start=4000, duration=100)
    site.settle(operator, turns=5)
    assert len(site.slurm.reservations) == int(site.slurm.release != "24.11")
    site.run(site.kube.delete(CAPACITY_CLAIMS, "later", USERS))
    site.settle(operator, turns=5)
    assert not site.slurm.reservations

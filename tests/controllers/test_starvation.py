"""The two bounds of protection in a closed loop: no job starves under a stream of claims, no claim waits for ever."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.controllers.site import USERS, Operator, Site
from tidegate.cluster.kinds import BATCH_POOLS, CAPACITY_CLAIMS

PROTECTED_SECONDS = 60
LENDING = {"policy": "Eager", "idleSeconds": 2, "flapBudget": {"loans": 50, "windowSeconds": 3600}}


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site(nodes=1, terms={"lending": LENDING})
    yield made
    made.close()


def protect(site: Site, after_restarts: int) -> Operator:
    terms = {"afterRestarts": after_restarts, "protectedSeconds": PROTECTED_SECONDS}
    site.run(site.kube.patch(BATCH_POOLS, "batch", {"spec": {"recall": {"protection": terms}}}))
    return Operator(site)


def a_claim_comes_and_goes(site: Site, operator: Operator, number: int) -> None:
    """A claim wants the only node as soon as a job runs there, and is cancelled some seconds later, with it or not."""
    for _ in range(40):
        if any(job.state == "RUNNING" for job in site.slurm.jobs.values()):
            break
        site.settle(operator, turns=1)
    site.claim(f"claim-{number}")
    site.settle(operator, turns=8)
    site.run(site.kube.delete(CAPACITY_CLAIMS, f"claim-{number}", USERS))


@pytest.mark.parametrize("after_restarts", [1, 3])
def test_a_job_under_a_stream_of_claims_finishes(site: Site, after_restarts: int) -> None:
    operator = protect(site, after_restarts)
    site.settle(operator, turns=15)
    job = site.slurm.jobs[site.slurm.submit(gpus_per_node=2, duration_seconds=PROTECTED_SECONDS - 5)]
    number = 0
    while job.state != "COMPLETED":
        number += 1
        assert number < 60, f"starved after {job.restarts} restarts"
        a_claim_comes_and_goes(site, operator, number)
    assert job.restarts == after_restarts, "each claim took the node until the job was protected"
    assert number > after_restarts


def test_no_claim_waits_longer_for_a_job_than_it_is_protected(site: Site) -> None:
    operator = protect(site, after_restarts=1)
    site.settle(operator, turns=15)
    job = site.slurm.jobs[site.slurm.submit(gpus_per_node=2, duration_seconds=100_000)]
    for number in range(1, 4):
        for _ in range(60):
            if job.state == "RUNNING":
                break
            site.settle(operator, turns=1)
        assert (job.state, job.restarts) == ("RUNNING", number - 1)
        began = job.start
        assert began is not None
        site.claim(f"claim-{number}")
        while job.state == "RUNNING":
            site.settle(operator, turns=1)
            assert (site.now() - began).total_seconds() < PROTECTED_SECONDS + 5
        if number > 1:
            ran = site.slurm.history[job.job_id][-1].end - began
            assert ran.total_seconds() >= PROTECTED_SECONDS
            assert condition_of(site, f"claim-{number}") == "Recalling"
        site.settle(operator, turns=20)
        site.run(site.kube.delete(CAPACITY_CLAIMS, f"claim-{number}", USERS))


def test_the_claim_says_which_job_it_waits_for(site: Site) -> None:
    operator = protect(site, after_restarts=3)
    site.settle(operator, turns=15)
    job = site.slurm.submit(gpus_per_node=2, requeueable=False, time_limit_seconds=600, duration_seconds=500)
    site.settle(operator, turns=3)
    site.claim("waits")
    site.settle(operator, turns=30)
    assert condition_of(site, "waits") == "Protected"
    message = next(claim.status.condition("Satisfied") for claim in site.claims())
    assert message is not None
    assert f"job {job} may not be requeued (until " in message.message
    assert not site.recalls


def condition_of(site: Site, name: str) -> str:
    claim = next(claim for claim in site.claims() if claim.metadata.name == name)
    satisfied = claim.status.condition("Satisfied")
    return satisfied.reason if satisfied else ""

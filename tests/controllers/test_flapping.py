"""What flaps, fails or comes back for ever is bounded: by how long a node has to idle, and by the node's budget.

Each case goes on for minutes, while jobs wait in Slurm all the time and two operators act in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.controllers.promises import Promises
from tests.controllers.site import USERS, Operator, Site
from tidegate.cli.node_release import release
from tidegate.cluster.kinds import BATCH_POOLS, CAPACITY_CLAIMS, EVENTS, PODS

TURN_SECONDS = 2.0
TURNS = 120
IDLE_TURNS = 10
BUDGET = 2
LENDING = {"idleSeconds": IDLE_TURNS * TURN_SECONDS, "joinSeconds": 5, "flapBudget": {"loans": BUDGET}}
NODES = ("gpu-0", "gpu-1", "gpu-2")
Act = Callable[[int], object]


class Minutes:
    """A site that goes on and on, its nodes lent from the beginning if they can be, with more jobs than it can run."""

    def __init__(self, mute: str = "") -> None:
        self.site = Site()
        self.site.mute |= {mute} - {""}
        self.site.run(self.site.kube.patch(BATCH_POOLS, "batch", {"spec": {"lending": LENDING}}))
        self.operators = [Operator(self.site), Operator(self.site)]
        self.promises = Promises(self.site)
        for _ in range(6):
            self.site.slurm.submit(gpus_per_node=2, duration_seconds=100 * TURNS * TURN_SECONDS)
        self.pass_by(2 * IDLE_TURNS)

    def pass_by(self, turns: int, act: Act = lambda turn: None) -> None:
        """Let something happen before each turn of an operator and of the world."""
        for turn in range(turns):
            act(turn)
            self.site.settle(self.operators[turn % 2], turns=1, seconds=TURN_SECONDS)
        self.promises.check()

    def release(self, *nodes: str) -> None:
        """`tidegate node release`."""
        said: list[str] = []
        self.site.run(release(self.site.kube, nodes, self.site.now(), said.append))
        assert len(said) == len(nodes)
        assert all(": released, " in line for line in said), said

    @property
    def lent(self) -> list[str]:
        """Nodes that are Slurm's."""
        loans = [loan for loan in self.site.loans() if loan.status.is_true("Lent") and not loan.is_wanted_back]
        return sorted(loan.spec.node_name for loan in loans)

    @property
    def trips(self) -> tuple[int, ...]:
        """How often each node was handed over to Slurm."""
        fenced = [loan.spec.node_name for loan in self.site.loans() if loan.status.is_true("Fenced")]
        return tuple(fenced.count(node) for node in NODES)

    @property
    def requeues(self) -> int:
        """Runs of jobs that were ended before their time."""
        return sum(run.end_state == "REQUEUED" for runs in self.site.slurm.history.values() for run in runs)

    @property
    def quarantined(self) -> list[str]:
        """As the pool says."""
        status = self.site.pool().status
        assert status.nodes.quarantined == len(status.quarantined)
        return [one.node for one in status.quarantined]

    def told(self, reason: str) -> list[str]:
        """Nodes with an event for this reason, once for each event."""
        events = self.site.run(self.site.kube.list(EVENTS))
        return sorted(event["involvedObject"]["name"] for event in events if event["reason"] == reason)


@pytest.fixture
def minutes() -> Iterator[Minutes]:
    minutes = Minutes()
    assert minutes.lent == list(NODES)
    yield minutes
    minutes.site.close()


@pytest.fixture
def minutes_with_a_bad_node() -> Iterator[Minutes]:
    """The slurmd of `gpu-0` never registers."""
    minutes = Minutes(mute="gpu-0")
    yield minutes
    minutes.site.close()


def test_a_gang_whose_victims_leave_one_by_one_keeps_what_it_has(minutes: Minutes) -> None:
    site = minutes.site
    ladder = {"graceful": {"drainSeconds": 60, "checkpointSeconds": 0, "requeueSeconds": 5}}
    site.run(site.kube.patch(BATCH_POOLS, "batch", {"spec": {"recall": ladder}}))
    running = [job for job in site.slurm.jobs.values() if job.state == "RUNNING"]
    # One ends after the other, and for each of their nodes a job waits.
    for number, job in enumerate(running):
        assert job.start
        job.duration_seconds = (site.now() - job.start).total_seconds() + 8 + 14 * number
    site.claim("gang", 3, gang=True, recallClass="graceful")
    minutes.pass_by(40)
    (claim,) = site.claims()
    assert claim.status.held_nodes == 3
    assert minutes.trips == (1, 1, 1), "no freed node was lent before the last one had come"
    assert minutes.requeues == 0


@pytest.mark.parametrize(("period", "gang"), [(1, False), (3, True), (8, False)])
def test_a_claim_that_is_deleted_and_made_again_for_ever_disturbs_each_job_once(
    minutes: Minutes, period: int, gang: bool
) -> None:
    site = minutes.site

    def flap(turn: int) -> None:
        if turn % period == 0:
            site.run(site.kube.delete(CAPACITY_CLAIMS, f"claim-{turn - period}", USERS)) if turn else None
            site.claim(f"claim-{turn}", 2, gang=gang)

    minutes.pass_by(TURNS, flap)
    assert minutes.trips == (1, 1, 1)
    # Claims that come faster than the operators look keep the loans from moving on, which spares the jobs.
    assert minutes.requeues == (2 if period > 1 else 0)
    assert len(minutes.lent) == 1


def test_a_deployment_that_is_scaled_up_and_down_for_ever_disturbs_a_job_once(minutes: Minutes) -> None:
    site, period = minutes.site, IDLE_TURNS - 2

    def scale(turn: int) -> None:
        if turn % (2 * period) == 0:
            site.gpu_pod(f"web-{turn}", "web")
        elif turn % period == 0:
            site.run(site.kube.delete(PODS, f"web-{turn - period}", USERS, grace_seconds=0))

    minutes.pass_by(TURNS, scale)
    assert minutes.trips == (1, 1, 1)
    assert minutes.requeues == 1


def test_a_claim_that_flaps_slower_than_nodes_idle_is_bounded_by_the_budget(minutes: Minutes) -> None:
    site, period = minutes.site, 3 * IDLE_TURNS

    def flap(turn: int) -> None:
        if turn % period == 0:
            site.claim(f"claim-{turn}", 3)
        elif turn % period == IDLE_TURNS:
            site.run(site.kube.delete(CAPACITY_CLAIMS, f"claim-{turn - IDLE_TURNS}", USERS))

    minutes.pass_by(TURNS, flap)
    assert minutes.trips == (BUDGET, BUDGET, BUDGET)
    assert minutes.requeues == 3 * BUDGET
    assert minutes.quarantined == minutes.told("Quarantined") == list(NODES)
    minutes.release("gpu-1")
    minutes.pass_by(IDLE_TURNS)
    assert minutes.lent == minutes.told("QuarantinedOver") == ["gpu-1"]
    assert minutes.quarantined == ["gpu-0", "gpu-2"]


def test_victims_that_come_back_each_time_are_bounded_by_the_budget(minutes: Minutes) -> None:
    # Slurm queues a requeued job again, and its node idles between two visits of a notebook: they meet each time.
    site, visit, rest = minutes.site, 14, 2 * IDLE_TURNS

    def come_and_go(turn: int) -> None:
        since = turn % (visit + rest)
        for number in range(3):
            if since == 0:
                site.gpu_pod(f"book-{turn}-{number}", f"book-{number}")
            elif since == visit:
                site.run(site.kube.delete(PODS, f"book-{turn - visit}-{number}", USERS, grace_seconds=0))

    minutes.pass_by(TURNS, come_and_go)
    assert minutes.trips == (BUDGET, BUDGET, BUDGET)
    assert minutes.requeues == 3 * BUDGET
    assert minutes.quarantined == list(NODES)
    minutes.release(*NODES)
    minutes.pass_by(3 * IDLE_TURNS)
    assert minutes.lent == list(NODES)


@pytest.fixture
def both_ways(minutes: Minutes) -> Minutes:
    """A service has taken all nodes from jobs, and urgent jobs may take them from it."""
    site = minutes.site
    site.run(site.kube.patch(BATCH_POOLS, "batch", {"spec": {"lending": {"preemption": "LowerPriority"}}}))
    for number in range(3):
        site.gpu_pod(f"web-{number}", "web")
    minutes.pass_by(IDLE_TURNS)
    assert (minutes.trips, minutes.requeues, minutes.lent) == ((1, 1, 1), 3, [])
    return minutes


def test_pods_that_their_controller_makes_again_do_not_take_their_node_back(both_ways: Minutes) -> None:
    site = both_ways.site
    job = site.slurm.submit(partition="urgent", priority=9, gpus_per_node=2, duration_seconds=9999)
    both_ways.pass_by(TURNS)
    assert site.slurm.jobs[job].state == "RUNNING"
    assert len(site.kube.evicted) == 1
    assert sorted(both_ways.trips) == [1, 1, 2]
    assert both_ways.requeues == 3
    assert sum(not pod.node for pod in site.pods() if pod.namespace == USERS) == 1


def test_urgent_jobs_that_come_and_go_for_ever_take_a_node_no_more_often_than_its_budget(both_ways: Minutes) -> None:
    site = both_ways.site

    def come(turn: int) -> None:
        if turn % IDLE_TURNS == 0:
            site.slurm.submit(partition="urgent", priority=9, gpus_per_node=2, duration_seconds=5)

    both_ways.pass_by(TURNS, come)
    assert both_ways.trips == (BUDGET, BUDGET, BUDGET)
    assert len(site.kube.evicted) == 3 * (BUDGET - 1)
    # A job that was requeued three times keeps the node that it has got by then.
    assert sorted([*both_ways.quarantined, *both_ways.lent]) == list(NODES)
    assert site.wrongs == []


def test_a_node_that_fails_each_time_it_is_lent_is_left_alone_and_the_others_work(
    minutes_with_a_bad_node: Minutes,
) -> None:
    minutes = minutes_with_a_bad_node
    minutes.pass_by(TURNS)
    assert minutes.trips == (BUDGET, 1, 1)
    assert minutes.lent == ["gpu-1", "gpu-2"]
    assert minutes.requeues == 0
    assert minutes.quarantined == minutes.told("Quarantined") == ["gpu-0"]
    assert minutes.site.pool().status.quarantined[0].reason == "JoinOverdue"
    minutes.site.mute.clear()
    minutes.pass_by(IDLE_TURNS)
    assert minutes.lent == ["gpu-1", "gpu-2"], "nobody has said that it is mended"
    minutes.release("gpu-0")
    minutes.pass_by(IDLE_TURNS)
    assert minutes.lent == list(NODES)


def test_a_quarantine_ends_by_itself_when_its_window_has_passed(minutes_with_a_bad_node: Minutes) -> None:
    minutes = minutes_with_a_bad_node
    minutes.pass_by(TURNS // 2)
    (one,) = minutes.site.pool().status.quarantined
    minutes.site.mute.clear()
    minutes.site.pass_time((one.until - minutes.site.now()).total_seconds())
    minutes.pass_by(IDLE_TURNS)
    assert minutes.lent == list(NODES)
    assert (minutes.quarantined, minutes.told("QuarantinedOver")) == ([], ["gpu-0"])

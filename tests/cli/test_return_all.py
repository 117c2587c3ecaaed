"""`tidegate return-all`: every pool stopped, every node home, or a sentence about those that are not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.cli.commands import Commands
from tests.sharing.build import LENT, RECALLED, RETURNED, loan, pool
from tests.sharing.test_explain import working
from tidegate.cli.failures import Failed
from tidegate.cli.return_all import SETTLE_SECONDS, take_all_back
from tidegate.cluster.errors import Unreachable, refused
from tidegate.cluster.kinds import BATCH_POOLS, NODE_LOANS


class Time:
    """A clock that runs only while the command waits; the world turns meanwhile."""

    def __init__(self, *turns: Callable[[], object]) -> None:
        self.seconds = 0.0
        self._turns = list(turns)

    def now(self) -> float:
        return self.seconds

    async def pause(self, seconds: float) -> None:
        self.seconds += seconds
        if self._turns:
            await asyncio.to_thread(self._turns.pop(0))


def take(site: Commands, time: Time, timeout_seconds: float = 60, said: list[str] | None = None) -> list[str]:
    """What it said, which is added to `said`."""
    said = [] if said is None else said
    asyncio.run(take_all_back(site.kube, timeout_seconds, said.append, time.now, time.pause))
    return said


def note(site: Commands, name: str = "batch") -> None:
    """The operator takes note of the pool's newest generation."""
    found = asyncio.run(site.kube.get(BATCH_POOLS, name))
    status = {"observedGeneration": found["metadata"]["generation"]}
    asyncio.run(site.kube.patch(BATCH_POOLS, name, {"status": status}, subresource="status"))


def come_home(site: Commands, name: str = "gpu-1-1") -> None:
    status = {"status": loan(done=RETURNED).status.to_json()}
    asyncio.run(site.kube.patch(NODE_LOANS, name, status, subresource="status"))


def policy(site: Commands, name: str = "batch") -> str:
    return str(asyncio.run(site.kube.get(BATCH_POOLS, name))["spec"]["stopPolicy"])


@pytest.fixture
def site() -> Commands:
    site = Commands()
    site.put(working())
    return site


def test_it_stops_the_pools_and_waits_for_the_last_loan(site: Commands) -> None:
    site.put(working(pool("other", stopPolicy="Hold")))
    site.put(loan(done=LENT, message=""))
    site.put(loan("gpu-2", done=RETURNED))

    def turn() -> None:
        note(site)
        note(site, "other")

    said = take(site, Time(turn, lambda: come_home(site)))
    assert (policy(site), policy(site, "other")) == ("HoldAndDrain", "HoldAndDrain")
    assert said == [
        "pool batch: stopPolicy was None, now it is HoldAndDrain",
        "pool other: stopPolicy was Hold, now it is HoldAndDrain",
        "1 node is still on loan: gpu-1-1 (Lent)",
        "All nodes are home.",
    ]


def test_stopped_pools_without_loans_are_done_at_once(site: Commands) -> None:
    take(site, Time(lambda: note(site)))
    time = Time()
    assert take(site, time) == ["All nodes are home."]
    assert time.seconds == 0


def test_it_waits_until_the_operator_knows_or_else_it_may_just_be_lending(site: Commands) -> None:
    def lend_late() -> None:
        site.put(loan(done=LENT))

    time = Time(lend_late, lambda: note(site), lambda: come_home(site))
    said = take(site, time)
    assert said[1] == "no node is on loan; waiting for the operator to take note of the stop of batch"
    assert said[2:] == ["1 node is still on loan: gpu-1-1 (Lent)", "All nodes are home."]


def test_without_an_operator_nothing_can_be_lent_after_a_while(site: Commands) -> None:
    time = Time()
    said = take(site, time)
    assert SETTLE_SECONDS <= time.seconds < SETTLE_SECONDS + 5
    assert said[-1] == "All nodes are home. No operator has taken note of the stop: it seems that none runs."


def test_a_pool_that_is_made_meanwhile_is_stopped_too(site: Commands) -> None:
    def turn() -> None:
        note(site)
        site.put(working(pool("late")))

    take(site, Time(turn, lambda: note(site, "late")))
    assert policy(site, "late") == "HoldAndDrain"


def test_progress_is_told_when_it_changes_and_now_and_then(site: Commands) -> None:
    site.put(loan(done=RECALLED, message="job 17 may end by itself"))
    said: list[str] = []
    with pytest.raises(Failed):
        take(site, Time(), 62, said)
    assert said[1:] == ["1 node is still on loan: gpu-1-1 (job 17 may end by itself)"] * 3


def test_what_is_still_out_at_the_end_is_named_with_a_way_out(site: Commands) -> None:
    site.put(loan(done=RECALLED, message="job 17 may end by itself"))
    site.put(loan("gpu-2", done=(), message=""))
    with pytest.raises(Failed) as raised:
        take(site, Time(), timeout_seconds=10)
    assert str(raised.value) == (
        "2 nodes are still on loan after 10 s: gpu-1-1 (job 17 may end by itself), gpu-2-1 (not taken up yet); "
        "look at `tidegate explain loan gpu-1-1` and see that the operator runs, it has not taken note of the stop of "
        "batch, then run this again, or set stopPolicy of the pools back to None to keep lending."
    )


def test_an_api_server_that_is_away_for_a_while_is_asked_again(site: Commands) -> None:
    site.kube.fail_next("list", BATCH_POOLS, Unreachable(0, "Cannot list batchpools: no answer."))
    said = take(site, Time(lambda: note(site), lambda: note(site)))
    assert said[0] == "Cannot list batchpools: no answer."
    assert said[-1] == "All nodes are home."


def test_an_api_server_that_stays_away_ends_it(site: Commands) -> None:
    for _ in range(10):
        site.kube.fail_next("list", BATCH_POOLS, Unreachable(0, "Cannot list batchpools: no answer."))
    with pytest.raises(Failed, match=r"^Gave up after 10 s: Cannot list batchpools: no answer\.$"):
        take(site, Time(), timeout_seconds=10)


def test_a_pool_that_is_deleted_meanwhile_is_not_missed(site: Commands) -> None:
    gone = refused(404, "NotFound", "not found", "patch", BATCH_POOLS, "batch")
    site.kube.fail_next("patch", BATCH_POOLS, gone)
    assert take(site, Time(lambda: note(site), lambda: note(site)))[0] == "pool batch: deleted meanwhile"


def test_without_crds_there_is_nothing_to_take_back(site: Commands) -> None:
    site.kube.fail_next("list", BATCH_POOLS, refused(404, "NotFound", "no such resource", "list", BATCH_POOLS))
    result = site("return-all")
    assert result.exit_code == 0
    assert result.stdout == "The cluster does not know Tidegate's resources: nothing can be on loan.\n"


def test_a_missing_right_ends_it_at_once(site: Commands) -> None:
    site.kube.fail_next("patch", BATCH_POOLS, refused(403, "Forbidden", "may not", "patch", BATCH_POOLS, "batch"))
    result = site("return-all")
    assert result.exit_code == 1
    assert "the verb `patch` on `batchpools.tidegate.dev`" in result.stderr


def test_exit_codes_of_the_command(site: Commands) -> None:
    site.put(loan(done=RECALLED, message="job 17 may end by itself"))
    result = site("return-all", "--timeout-seconds", "1")
    assert result.exit_code == 1
    assert result.stderr.startswith("1 node is still on loan after 1 s: gpu-1-1 (job 17 may end by itself); ")
    come_home(site)
    note(site)
    assert site("return-all").exit_code == 0

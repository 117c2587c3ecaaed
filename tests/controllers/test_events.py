"""Events: told where people look, once for each change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.fakes.kube import FakeKube
from tests.sharing.build import LENT, RECALLED, back_for, claim, loan, pool
from tidegate.api import BatchPoolStatus, Quarantine
from tidegate.cluster.errors import Forbidden
from tidegate.cluster.kinds import EVENTS
from tidegate.controllers.events import tell_advice, tell_claim, tell_loan, tell_quarantine
from tidegate.controllers.hands import Hands
from tidegate.sharing.commands import Advice
from tidegate.slurm.api import SlurmApi

MOMENT = datetime(2026, 11, 21, 12, 0, 0, 250_000, tzinfo=UTC)


def no_slurm(name: str) -> SlurmApi:
    raise AssertionError(f"events need no Slurm, {name} was asked for")


class Site:
    """An API server, and a clock that moves with each look at it."""

    def __init__(self) -> None:
        self.now = MOMENT
        self.kube = FakeKube(self.clock)
        self.hands = Hands(
            self.kube,
            no_slurm,
            "tidegate",
            self.clock,
            remember=lambda kind, body: None,
            applied=lambda kind, body: None,
            refused=lambda service, words, moment: None,
            gate_image="",
            may_act=lambda: True,
        )

    def clock(self) -> datetime:
        self.now += timedelta(microseconds=1)
        return self.now

    async def told(self) -> list[dict[str, Any]]:
        return await self.kube.list(EVENTS)


@pytest.fixture
def site() -> Site:
    return Site()


async def test_a_step_is_told_on_the_loan_its_node_and_its_claim(site: Site) -> None:
    before = loan(done=LENT, wanted="Returned", back=back_for("c1"))
    after = before.status.with_condition(MOMENT, "Recalled", True, "Claimed", "claim team/c1 needs the node")
    await tell_loan(before, after, site.hands)
    told = {event["involvedObject"]["kind"]: event for event in await site.told()}
    assert set(told) == {"NodeLoan", "Node", "CapacityClaim"}
    assert told["NodeLoan"]["message"] == "claim team/c1 needs the node"
    assert told["Node"]["message"] == "Loan gpu-1-1: claim team/c1 needs the node"
    assert told["Node"]["involvedObject"]["uid"] == "gpu-1", "where kubectl describe node looks"
    assert told["Node"]["metadata"]["namespace"] == told["NodeLoan"]["metadata"]["namespace"] == "default"
    assert told["CapacityClaim"]["metadata"]["namespace"] == "team"
    assert {event["reason"] for event in told.values()} == {"Recalled"}
    assert {event["action"] for event in told.values()} == {"Claimed"}
    assert {event["type"] for event in told.values()} == {"Normal"}


async def test_what_did_not_change_is_not_told(site: Site) -> None:
    same = loan(done=RECALLED)
    await tell_loan(same, same.status.model_copy(update={"message": "another sentence"}), site.hands)
    again = same.status.with_condition(MOMENT, "Recalled", True, "Done", "other words")
    await tell_loan(same, again, site.hands)
    assert await site.told() == []


async def test_a_new_reason_is_told_even_if_the_status_stays(site: Site) -> None:
    before = claim()
    first = before.status.with_condition(MOMENT, "Satisfied", False, "Choosing", "choosing loans")
    await tell_claim(before, first, site.hands)
    second = first.with_condition(MOMENT, "Satisfied", False, "Recalling", "waiting")
    await tell_claim(before.model_copy(update={"status": first}), second, site.hands)
    reasons = [event["reason"] for event in await site.told()]
    assert sorted(reasons) == ["SatisfiedChoosing", "SatisfiedRecalling"], "what does not hold says why"


@pytest.mark.parametrize(("type_", "status", "kind"), [("Overdue", True, "Warning"), ("Overdue", False, "Normal")])
async def test_what_is_late_is_a_warning(site: Site, type_: str, status: bool, kind: str) -> None:
    before = loan()
    await tell_loan(before, before.status.with_condition(MOMENT, type_, status, "DeadlinePassed", "late"), site.hands)
    assert {event["type"] for event in await site.told()} == {kind}


async def test_an_expired_claim_is_a_warning_on_it_and_its_holder(site: Site) -> None:
    before = claim("auto", holder="web", automatic=True)
    after = before.status.with_condition(MOMENT, "Expired", True, "TimeToLive", "its nodes are let go")
    await tell_claim(before, after, site.hands)
    told = {event["involvedObject"]["kind"]: event for event in await site.told()}
    assert set(told) == {"CapacityClaim", "ReplicaSet"}
    assert told["ReplicaSet"]["message"] == "Claim auto: its nodes are let go"
    assert told["ReplicaSet"]["involvedObject"] == {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": "web",
        "uid": "uid-web",
        "namespace": "team",
    }
    assert {event["type"] for event in told.values()} == {"Warning"}


async def test_a_claim_that_ends_as_it_was_asked_to_is_no_warning(site: Site) -> None:
    before = claim()
    after = before.status.with_condition(MOMENT, "Expired", True, "Ended", "its durationSeconds 60 are over")
    await tell_claim(before, after, site.hands)
    assert [event["type"] for event in await site.told()] == ["Normal"]


async def test_names_are_valid_and_differ(site: Site) -> None:
    before = loan(name="n" * 60)
    after = before.status
    for type_ in ("Recalled", "Drained", "Left"):
        after = after.with_condition(MOMENT, type_, True, "X", "x")
    await tell_loan(before, after, site.hands)
    names = [event["metadata"]["name"] for event in await site.told()]
    assert len(names) == len(set(names)) == 6
    assert all(len(name) <= 253 and name == name.lower() and " " not in name for name in names)


async def test_one_event_lost_stops_nothing(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.kube.fail_next("create", EVENTS, Forbidden(403, "no rights on events"))
    before = loan(done=LENT, wanted="Returned")
    await tell_loan(before, before.status.with_condition(MOMENT, "Recalled", True, "X", "x"), site.hands)
    assert len(await site.told()) == 1
    assert "no rights on events" in caplog.text


async def test_long_words_are_cut(site: Site) -> None:
    before = loan()
    long = before.status.with_condition(MOMENT, "Recalled", True, "X", "w" * 1024)
    await tell_loan(before, long, site.hands)
    assert all(len(event["message"]) <= 1024 for event in await site.told())


async def test_a_quarantine_is_told_on_the_node_once_when_it_begins_and_once_when_it_is_over(site: Site) -> None:
    until = MOMENT + timedelta(hours=1)
    quiet, before = BatchPoolStatus(), pool()
    flapping = BatchPoolStatus(quarantined=(Quarantine(node="gpu-1", until=until, reason="JoinTimeout"),))
    later = BatchPoolStatus(quarantined=(Quarantine(node="gpu-1", until=until + timedelta(hours=1), reason="Claimed"),))
    for old, new in ((quiet, flapping), (flapping, later), (later, quiet), (quiet, quiet)):
        await tell_quarantine(before.model_copy(update={"status": old}), new, site.hands)
    told = [(event["involvedObject"]["name"], event["type"], event["reason"]) for event in await site.told()]
    assert sorted(told) == [("gpu-1", "Normal", "QuarantinedOver"), ("gpu-1", "Warning", "Quarantined")]
    words = {event["reason"]: event["message"] for event in await site.told()}
    assert words == {
        "Quarantined": "It was lent as often as flapBudget of pool batch allows and stays home until "
        "2026-11-21T13:00:00Z; `tidegate node release gpu-1` ends that",
        "QuarantinedOver": "Pool batch may lend it again",
    }


async def test_advice_is_told_on_the_pool_by_reason_and_on_the_first_nodes(site: Site) -> None:
    many = [Advice("Lend", f"gpu-{n}", "Demand", "jobs could use it") for n in range(40)]
    await tell_advice(pool(), [*many, Advice("Recall", "gpu-99", "PodCame", "pod team/web came onto it")], site.hands)
    told = await site.told()
    on_pool = {one["reason"]: one["message"] for one in told if one["involvedObject"]["kind"] == "BatchPool"}
    assert on_pool["WouldLend"].startswith("would lend gpu-0, gpu-1,")
    assert on_pool["WouldLend"].endswith("and 32 more: jobs could use it")
    assert on_pool["WouldRecall"] == "would take back gpu-99: pod team/web came onto it"
    on_nodes = [one for one in told if one["involvedObject"]["kind"] == "Node"]
    assert len(on_nodes) == 16, "not one for each of a thousand nodes"
    assert on_nodes[0]["message"] == "Pool batch would lend it: jobs could use it"
    assert {(one["type"], one["action"]) for one in on_nodes} == {("Normal", "Demand")}

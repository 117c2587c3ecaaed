"""How long pods are left to gather before a claim is made for them all."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.sharing.build import NOW, ago, decided, index, only, pod, snapshot
from tests.sharing.test_claims import AUTO, LENT_NODE, made, two_lent
from tidegate.sharing.commands import RecallLoan, ResizeClaim
from tidegate.sharing.snapshot import Pod
from tidegate.sharing.waiting import is_settled, next_settled, track_waiting


def pods(count: int) -> list[Pod]:
    return [pod(f"w{number}", owner="web", gpus=8) for number in range(count)]


@pytest.mark.parametrize(
    ("seconds", "settled"),
    [
        ([], True),
        ([60], True),
        ([0.2], True),
        ([0.1], False),
        ([0], False),
        ([60, 0.1], False),
        ([60, 0.2], True),
        ([0.3, 0.15, 0.01], False),
        ([n / 10 for n in range(20)], False),
        ([n / 10 for n in range(21)], True),
        ([*(2 + n / 10 for n in range(20)), 0.1], False),
    ],
)
def test_a_claim_waits_until_no_more_come_or_the_first_waited_long(seconds: list[float], settled: bool) -> None:
    waiting = pods(len(seconds))
    since = {one.uid: ago(age) for one, age in zip(waiting, seconds, strict=True)}
    assert is_settled(waiting, index(*waiting, waiting_since=since)) is settled


def test_a_pod_that_was_not_remembered_came_just_now() -> None:
    assert not is_settled(pods(1), index(*pods(1), waiting_since={}))


@pytest.mark.parametrize(
    "passed_over",
    [pod(on="gpu-1"), pod(gated=True), pod(deleting=True), pod(unschedulable=False), pod(gpus=0)],
)
def test_only_pods_that_wait_for_gpus_are_remembered(passed_over: Pod) -> None:
    assert track_waiting({}, snapshot(passed_over), NOW) == {}


def test_the_first_sight_of_a_pod_is_remembered_until_it_waits_no_more() -> None:
    first = track_waiting({"uid-gone": ago(9)}, snapshot(*pods(1)), ago(5))
    assert first == {"uid-w0": ago(5)}
    assert track_waiting(first, snapshot(*pods(2)), NOW) == {"uid-w0": ago(5), "uid-w1": NOW}


def test_the_loop_is_told_when_to_look_again() -> None:
    assert next_settled({}, NOW) is None
    assert next_settled({"a": ago(60)}, NOW) is None
    assert next_settled({"a": ago(60), "b": ago(0.05), "c": NOW + timedelta(seconds=1)}, NOW) == pytest.approx(0.15)


def test_one_claim_is_made_for_all_that_came_together() -> None:
    fresh = {"uid-w0": ago(0.5), "uid-w1": ago(0.1)}
    assert made(*two_lent(), *pods(2), waiting_since=fresh) == []
    assert [c.spec.nodes for c in made(*two_lent(), *pods(2))] == [2]


def test_others_are_not_held_up() -> None:
    fresh = {"uid-w0": ago(0.1), "uid-other": ago(60)}
    found = made(*two_lent(), *pods(1), pod("other"), waiting_since=fresh)
    assert [c.name for c in found] == ["pod-other-1"]


def test_a_claim_grows_when_no_more_come_and_recalls_no_more_than_its_size() -> None:
    fresh = {"uid-w0": ago(60), "uid-w1": ago(0.1)}
    commands = decided(*two_lent(), *pods(2), AUTO, waiting_since=fresh)
    assert not only(commands, ResizeClaim)
    assert len(only(commands, RecallLoan)) == 1
    commands = decided(*two_lent(), *pods(2), AUTO)
    assert [c.nodes for c in only(commands, ResizeClaim)] == [2]


def test_a_pod_that_nobody_lets_run_is_not_waited_for() -> None:
    gated = pod("w1", owner="web", gated=True)
    since = {"uid-w0": ago(60)}
    assert len(made(*LENT_NODE, *pods(1), gated, waiting_since=since)) == 1

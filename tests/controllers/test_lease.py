"""At most one operator acts at a time, by clocks that may differ."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.fakes.kube import FakeKube
from tidegate.cluster.errors import Conflict, KubeError, Unreachable
from tidegate.cluster.kinds import LEASES
from tidegate.controllers import lease as module
from tidegate.controllers.lease import LEASE_NAME, LEASE_SECONDS, Lease

NAMESPACE = "tidegate"


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube(lambda: datetime(2026, 11, 21, 12, tzinfo=UTC))


def candidate(kube: FakeKube, name: str, clock: Clock) -> Lease:
    return Lease(kube, NAMESPACE, name, clock)


async def spec_of(kube: FakeKube) -> dict[str, Any]:
    spec: dict[str, Any] = (await kube.get(LEASES, LEASE_NAME, NAMESPACE))["spec"]
    return spec


async def test_the_first_one_makes_the_lease_and_holds_it(kube: FakeKube) -> None:
    mine = candidate(kube, "a", Clock())
    assert not mine.held()
    assert await mine.renew()
    assert mine.held()
    spec = await spec_of(kube)
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"]) == ("a", LEASE_SECONDS)


async def test_it_expires_by_the_own_clock_a_second_before_others_may_take_it(kube: FakeKube) -> None:
    clock = Clock()
    mine = candidate(kube, "a", clock)
    await mine.renew()
    clock.now += LEASE_SECONDS - 1.01
    assert mine.held()
    clock.now += 0.02
    assert not mine.held()


async def test_renewing_prolongs_it(kube: FakeKube) -> None:
    clock = Clock()
    mine = candidate(kube, "a", clock)
    for _ in range(10):
        assert await mine.renew()
        clock.now += LEASE_SECONDS - 2
        assert mine.held()


async def test_the_time_is_counted_from_before_the_request(kube: FakeKube) -> None:
    clock = Clock()

    class Slow(FakeKube):
        async def get(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            clock.now += 8
            return await kube.get(*args, **kwargs)

        async def create(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return await kube.create(*args, **kwargs)

    mine = candidate(Slow(lambda: datetime.now(UTC)), "a", clock)
    await mine.renew()
    clock.now += 1.5
    assert not mine.held(), "asked 9.5 s ago"


async def test_a_second_one_waits_until_the_lease_did_not_change_for_its_duration(kube: FakeKube) -> None:
    mine, clock = candidate(kube, "a", Clock()), Clock()
    other = candidate(kube, "b", clock)
    await mine.renew()
    assert not await other.renew()
    clock.now += LEASE_SECONDS
    assert not await other.renew()
    clock.now += 0.1
    assert await other.renew()
    assert (await spec_of(kube))["holderIdentity"] == "b"


async def test_each_renewal_makes_the_second_one_wait_anew(kube: FakeKube) -> None:
    mine, clock = candidate(kube, "a", Clock()), Clock()
    other = candidate(kube, "b", clock)
    for _ in range(5):
        await mine.renew()
        assert not await other.renew()
        clock.now += LEASE_SECONDS - 1


async def test_two_never_hold_it_at_once_however_they_are_scheduled(kube: FakeKube) -> None:
    """One clock for both; one of them pauses for any time between its renewals."""
    clock = Clock()
    a, b = candidate(kube, "a", clock), candidate(kube, "b", clock)
    for step in range(200):
        clock.now += 1 + (step * 7) % 5
        if step % 40 < 20:
            await a.renew()
        if step % 3:
            await b.renew()
        assert not (a.held() and b.held())
    assert b.held() or a.held()


async def test_the_one_that_lost_it_does_not_take_it_back(kube: FakeKube) -> None:
    clock = Clock()
    a, b = candidate(kube, "a", clock), candidate(kube, "b", clock)
    await a.renew()
    await b.renew()
    clock.now += LEASE_SECONDS + 1
    assert await b.renew()
    assert not await a.renew()
    assert not a.held()


@pytest.mark.parametrize("error", [Conflict(409, "changed"), Unreachable(0, "no answer"), KubeError(500, "broken")])
async def test_a_renewal_that_fails_prolongs_nothing(kube: FakeKube, error: KubeError) -> None:
    clock = Clock()
    mine = candidate(kube, "a", clock)
    await mine.renew()
    clock.now += 5
    kube.fail_next("patch", LEASES, error)
    assert await mine.renew(), "it is still held from before"
    clock.now += 4
    assert not mine.held()


async def test_of_two_that_start_together_one_gets_it(kube: FakeKube) -> None:
    first, second = candidate(kube, "a", Clock()), candidate(kube, "b", Clock())
    real_get = kube.get
    raced = False

    async def get(*args: Any, **kwargs: Any) -> dict[str, Any]:
        nonlocal raced
        if raced:
            return await real_get(*args, **kwargs)
        raced = True
        try:
            return await real_get(*args, **kwargs)
        finally:
            await second.renew()

    kube.get = get  # type: ignore[method-assign]
    assert not await first.renew()
    assert second.held()


async def test_letting_go_frees_it_at_once(kube: FakeKube) -> None:
    a, b = candidate(kube, "a", Clock()), candidate(kube, "b", Clock())
    await a.renew()
    await a.release()
    assert not a.held()
    assert not (await spec_of(kube)).get("holderIdentity")
    assert await b.renew()


async def test_only_the_holder_lets_go(kube: FakeKube) -> None:
    clock = Clock()
    a, b = candidate(kube, "a", clock), candidate(kube, "b", clock)
    await a.renew()
    await b.release()
    assert (await spec_of(kube))["holderIdentity"] == "a"
    await kube.patch(LEASES, LEASE_NAME, {"spec": {"holderIdentity": "b"}}, NAMESPACE)
    await a.release()
    assert (await spec_of(kube))["holderIdentity"] == "b"


async def test_a_failing_release_is_told_and_no_error(kube: FakeKube, caplog: pytest.LogCaptureFixture) -> None:
    mine = candidate(kube, "a", Clock())
    await mine.renew()
    kube.fail_next("patch", LEASES, Unreachable(0, "no answer"))
    await mine.release()
    assert not mine.held()
    assert "no answer" in caplog.text


async def test_the_time_stamp_of_a_holder_whose_clock_is_slow_counts_for_nothing(kube: FakeKube) -> None:
    old = datetime.now(UTC) - timedelta(seconds=3 * LEASE_SECONDS + 5)
    spec = {"holderIdentity": "dead", "renewTime": old.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
    await kube.create(LEASES, {"metadata": {"name": LEASE_NAME}, "spec": spec}, NAMESPACE)
    assert not await candidate(kube, "b", Clock()).renew()


async def test_it_is_renewed_more_often_than_it_expires() -> None:
    assert module.RENEW_SECONDS * 3 < LEASE_SECONDS - 1

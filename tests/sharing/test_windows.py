"""Which window is open, what its terms replace, and what is said of one that cannot be read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sharing.build import NOW, ago, decided, index, job, lent_node, loan, node, one, only, pool, slurm, slurm_node
from tests.sharing.build import slurmd as slurmd_pod
from tidegate.api import OpenWindow, Window
from tidegate.sharing.commands import CreateLoan, RecallLoan, WritePoolStatus
from tidegate.sharing.explain import explain
from tidegate.sharing.windows import last_opening, open_window, unreadable

BERLIN = ZoneInfo("Europe/Berlin")


def window(schedule: str = "0 8 * * 1-5", hours: float = 1, zone: str = "Europe/Berlin", **terms: Any) -> Window:
    fields = {"schedule": schedule, "durationSeconds": int(hours * 3600), "timeZone": zone, "cap": 0, **terms}
    return Window.model_validate(fields)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def opened(schedule: str, now: str, hours: float = 1, zone: str = "Europe/Berlin") -> str:
    """When the open window was opened, as `day hour:minute` in UTC; empty when it is closed."""
    found = open_window([window(schedule, hours, zone)], utc(now))
    return found.opened.astimezone(UTC).strftime("%d %H:%M") if found else ""


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-20 06:59:59", ""),
        ("2026-11-20 07:00:00", "20 07:00"),
        ("2026-11-20 07:59:59", "20 07:00"),
        ("2026-11-20 08:00:00", ""),
        ("2026-11-21 07:30:00", ""),
    ],
)
def test_it_is_open_from_its_schedule_for_its_duration(now: str, expected: str) -> None:
    assert opened("0 8 * * 1-5", now) == expected


SPRING, AUTUMN = "2026-03-29", "2026-10-25"
"""In Berlin 2:00 becomes 3:00 at 1:00 UTC of the first; 3:00 becomes 2:00 at 1:00 UTC of the second."""


@pytest.mark.parametrize(
    ("schedule", "now", "expected"),
    [
        # a day of 23 hours: the same local time is an hour earlier in UTC from then on
        ("0 8 * * *", f"{SPRING} 05:59:59", ""),
        ("0 8 * * *", f"{SPRING} 06:00:00", "29 06:00"),
        ("0 8 * * *", "2026-03-28 07:00:00", "28 07:00"),
        # 2:30 does not exist that day: it opens as soon as the clocks have gone on, as cron does
        ("30 2 * * *", f"{SPRING} 00:59:59", ""),
        ("30 2 * * *", f"{SPRING} 01:00:00", "29 01:00"),
        ("30 2 * * *", f"{SPRING} 01:59:59", "29 01:00"),
        ("30 2 * * *", f"{SPRING} 02:00:00", ""),
        # 2:30 comes twice: it opens the first time only
        ("30 2 * * *", f"{AUTUMN} 00:29:59", ""),
        ("30 2 * * *", f"{AUTUMN} 00:30:00", "25 00:30"),
        ("30 2 * * *", f"{AUTUMN} 01:10:00", "25 00:30"),
        ("30 2 * * *", f"{AUTUMN} 01:30:00", ""),
        ("30 2 * * *", f"{AUTUMN} 01:59:59", ""),
        # a day of 25 hours
        ("0 8 * * *", f"{AUTUMN} 06:59:59", ""),
        ("0 8 * * *", f"{AUTUMN} 07:00:00", "25 07:00"),
        # what opens in each hour is not shifted at all
        ("0 * * * *", f"{SPRING} 01:00:00", "29 01:00"),
        ("0 * * * *", f"{AUTUMN} 00:30:00", "25 00:00"),
        ("0 * * * *", f"{AUTUMN} 01:30:00", "25 01:00"),
    ],
)
def test_summer_time_is_as_in_cron(schedule: str, now: str, expected: str) -> None:
    assert opened(schedule, now) == expected


def test_a_window_over_the_change_of_clocks_is_as_long_as_it_says() -> None:
    for day, start in ((SPRING, "28 22:00"), (AUTUMN, "24 21:00")):
        last = utc(f"{day[:8]}{start}") + timedelta(hours=8) - timedelta(seconds=1)
        assert opened("0 23 * * *", last.strftime("%Y-%m-%d %H:%M:%S"), hours=8) == start
        after = (last + timedelta(seconds=1)).strftime("%Y-%m-%d %H:%M:%S")
        assert opened("0 23 * * *", after, hours=8) == ""


def test_the_zone_counts_not_the_machine() -> None:
    assert opened("0 8 * * *", "2026-07-01 08:00:00", zone="UTC") == "01 08:00"
    assert opened("0 8 * * *", "2026-07-01 15:00:00", zone="America/Los_Angeles") == "01 15:00"
    assert opened("0 8 * * *", "2026-06-30 23:00:00", zone="Asia/Tokyo") == "30 23:00"


@given(
    st.integers(0, 365 * 24 * 60),
    st.sampled_from(["30 2 * * *", "0 * * * *", "*/20 2 * * *", "0 8 * * 1-5", "59 23 L * *", "0 3 * * 7"]),
    st.sampled_from(["Europe/Berlin", "UTC", "Australia/Lord_Howe", "America/St_Johns"]),
)
def test_no_opening_is_ahead_or_forgotten(minutes: int, schedule: str, zone: str) -> None:
    now = utc("2026-01-01 00:00:00") + timedelta(minutes=minutes)
    found = last_opening(window(schedule, zone=zone), now)
    assert found is not None
    assert found <= now
    again = last_opening(window(schedule, zone=zone), found)
    assert again == found, "at the opening itself it is open"
    for step in range(1, 25):
        between = found + (now - found) * step / 25
        assert last_opening(window(schedule, zone=zone), between) == found, "no opening is passed over"


def test_of_open_windows_the_first_counts_and_the_others_stay_out() -> None:
    windows = [window("0 8 * * *", zone="UTC"), window("0 0 * * *", hours=24, zone="UTC", cap=5)]
    assert open_window(windows, utc("2026-11-20 07:00:00")) == OpenWindow(
        number=1, schedule="0 0 * * *", opened=utc("2026-11-20 00:00:00"), closes=utc("2026-11-21 00:00:00")
    )
    first = open_window(windows, utc("2026-11-20 08:30:00"))
    assert first is not None
    assert first.number == 0


@pytest.mark.parametrize(
    ("schedule", "zone", "words"),
    [
        ("0 25 * * *", "UTC", "lending.windows[0].schedule `0 25 * * *` is no cron schedule (Bad hour); write five"),
        ("0 0 31 2 *", "UTC", "lending.windows[0].schedule `0 0 31 2 *` is no cron schedule (Bad day-of-month)"),
        ("* * * * * *", "UTC", "lending.windows[0].schedule `* * * * * *` is no cron schedule (Wrong number"),
        ("0 8 * * *", "Europe/Nowhere", "lending.windows[0].timeZone Europe/Nowhere is not known; name an IANA"),
        ("0 8 * * *", "Europe", "lending.windows[0].timeZone Europe is not known"),
        ("0 8 * * *", "../../etc/passwd", "lending.windows[0].timeZone ../../etc/passwd is not known"),
    ],
)
def test_one_that_cannot_be_read_never_opens_and_says_what_to_write(schedule: str, zone: str, words: str) -> None:
    wrong = window(schedule, zone=zone)
    assert unreadable([wrong], NOW)[0].startswith(words)
    assert open_window([wrong], NOW) is None
    good = window("0 0 * * *", hours=24, zone="UTC")
    found = open_window([wrong, good], NOW)
    assert found is not None
    assert found.number == 1


# --- what they do to a pool

OPEN = {"schedule": "0 12 * * *", "durationSeconds": 3600}
SHUT = {"schedule": "0 11 * * *", "durationSeconds": 3600}
NODES = [node(f"gpu-{n}") for n in range(1, 5)]
BUSY = slurm(*[job(n) for n in range(1, 10)])


def lent(terms: dict[str, Any], *things: Any) -> int:
    return len(only(decided(*(things or (*NODES, BUSY)), pool(lending=terms)), CreateLoan))


@pytest.mark.parametrize(
    ("replaced", "count"),
    [
        ({"cap": 1}, 1),
        ({"headroom": {"low": 0, "high": 3}}, 1),
        ({"kubernetes": {"floor": 2}}, 2),
        ({"policy": "DemandDriven"}, 4),
    ],
)
def test_while_it_is_open_its_terms_replace_the_pools(replaced: dict[str, Any], count: int) -> None:
    assert lent({"windows": [{**OPEN, **replaced}]}) == count
    assert lent({"windows": [{**SHUT, **replaced}]}) == 4


def test_a_floor_is_lent_while_the_window_is_open_and_comes_home_after_it() -> None:
    terms = {"windows": [{**OPEN, "floor": 2}], "idleReturnSeconds": 60}
    assert lent(terms, *NODES) == 2
    out = [lent_node(), loan(since=ago(4000)), slurmd_pod(), slurm(slurm_node(last_busy=ago(4000))), *NODES[1:]]
    assert not only(decided(*out, pool(lending=terms)), RecallLoan)
    assert len(only(decided(*out, pool(lending={**terms, "windows": [{**SHUT, "floor": 2}]})), RecallLoan)) == 1


def test_policy_eager_in_a_window_lends_without_demand() -> None:
    assert lent({"windows": [{**OPEN, "policy": "Eager"}]}, *NODES) == 4
    assert lent({"windows": [{**SHUT, "policy": "Eager"}]}, *NODES) == 0


def test_the_status_and_explain_say_which_window_is_open_until_when() -> None:
    terms = pool(lending={"windows": [{**OPEN, "cap": 1}]})
    status = one(decided(*NODES, terms), WritePoolStatus).status
    assert status.window is not None
    assert status.window.to_json() == {
        "number": 0,
        "schedule": "0 12 * * *",
        "opened": "2026-11-21T12:00:00.000000Z",
        "closes": "2026-11-21T13:00:00.000000Z",
    }
    facts = dict(explain("pool", "batch", "", index(*NODES, terms)).facts)
    assert facts["window"] == "number 0 (`0 12 * * *`) is open, it closes 2026-11-21T13:00:00Z (in 1h)"
    terms = pool(lending={"windows": [{**SHUT, "cap": 1}]})
    assert one(decided(*NODES, terms), WritePoolStatus).status.window is None
    facts = dict(explain("pool", "batch", "", index(*NODES, terms)).facts)
    assert facts["window"] == "none is open, the pool's own terms hold"
    assert "window" not in dict(explain("pool", "batch", "", index(*NODES, pool())).facts)


def test_a_window_that_cannot_be_read_is_a_condition_of_the_pool() -> None:
    terms = pool(lending={"windows": [{**OPEN, "cap": 4}, {**OPEN, "schedule": "0 24 * * *", "cap": 1}]})
    commands = decided(*NODES, BUSY, terms)
    condition = one(commands, WritePoolStatus).status.condition("WindowsReadable")
    assert condition is not None
    assert (condition.status, condition.reason) == ("False", "WindowUnreadable")
    assert condition.message == (
        "lending.windows[1].schedule `0 24 * * *` is no cron schedule (Bad hour); write five fields, "
        "such as `0 8 * * 1-5`: until then the window does not open"
    )
    assert len(only(commands, CreateLoan)) == 4
    facts = dict(explain("pool", "batch", "", index(*NODES, terms.model_copy(
        update={"status": one(commands, WritePoolStatus).status}
    ))).facts)  # fmt: skip
    assert facts["WindowsReadable"].startswith("False, WindowUnreadable: lending.windows[1].schedule")


def test_the_condition_becomes_true_when_the_window_is_mended_or_gone() -> None:
    bad = pool(lending={"windows": [{**OPEN, "schedule": "0 24 * * *", "cap": 1}]})
    said = one(decided(*NODES, bad), WritePoolStatus).status
    for terms in ({}, {"windows": [{**OPEN, "cap": 4}]}):
        mended = pool(lending=terms).model_copy(update={"status": said})
        assert one(decided(*NODES, mended), WritePoolStatus).status.is_true("WindowsReadable")
    assert one(decided(*NODES), WritePoolStatus).status.condition("WindowsReadable") is None

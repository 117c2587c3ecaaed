"""Times at which a pool lends on other terms: which window is open, until when, and which cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from tidegate.api import Lending, OpenWindow, Window

_REPLACED = ("policy", "floor", "cap", "headroom", "kubernetes")
_FIELDS = 5
_LONGEST_REPEATED_HOURS = 3
"""Local times that come twice, when clocks go back, are over after this."""


class UnreadableWindowError(ValueError):
    """No time can be told from the window; `str()` says which field is wrong, and why."""


def open_window(windows: Sequence[Window], now: datetime) -> OpenWindow | None:
    """The first window that is open. Those that cannot be read are left out."""
    for number, window in enumerate(windows):
        try:
            opened = last_opening(window, now)
        except UnreadableWindowError:
            continue
        if opened and now < (closes := opened + timedelta(seconds=window.duration_seconds)):
            return OpenWindow(number=number, schedule=window.schedule, opened=opened, closes=closes)
    return None


def terms_in(lending: Lending, opened: OpenWindow | None) -> Lending:
    """The pool's terms with what the open window replaces."""
    if opened is None:
        return lending
    window = lending.windows[opened.number]
    replaced = {field: value for field in _REPLACED if (value := getattr(window, field)) is not None}
    return lending.model_copy(update=replaced)


def unreadable(windows: Sequence[Window], now: datetime) -> list[str]:
    """A sentence for each window that cannot be read, with the field and the way out."""
    sentences = []
    for number, window in enumerate(windows):
        try:
            last_opening(window, now)
        except UnreadableWindowError as error:
            sentences.append(f"lending.windows[{number}].{error}")
    return sentences


def last_opening(window: Window, now: datetime) -> datetime | None:
    """When the window last opened; None if that was never. Raises `UnreadableWindowError`."""
    return _last(window.schedule, window.time_zone, now.astimezone(UTC).replace(second=0, microsecond=0))


@lru_cache(maxsize=1024)
def _last(schedule: str, time_zone: str, minute: datetime) -> datetime | None:
    try:
        zone = ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UnreadableWindowError(
            f"timeZone {time_zone} is not known; name an IANA time zone, such as Europe/Berlin"
        ) from None
    local = minute.astimezone(zone)
    # Searching back from the second pass through a local time, cron's own time (the first pass) lies ahead.
    start = minute + timedelta(hours=_LONGEST_REPEATED_HOURS) if local.fold else minute
    try:
        if len(schedule.split()) != _FIELDS:
            raise CronSimError("Wrong number of fields")
        # With a microsecond more the search finds the minute itself, too.
        before = CronSim(schedule, (start + timedelta(microseconds=1)).astimezone(zone), reverse=True)
        found = (one.astimezone(UTC) for one in before)
        return next((one for one in found if one <= minute), None)
    except CronSimError as error:
        words = f"schedule `{schedule}` is no cron schedule ({error}); write five fields, such as `0 8 * * 1-5`"
        raise UnreadableWindowError(words) from None

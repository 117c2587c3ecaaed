"""Statuses are copied only where there is news in them."""

from __future__ import annotations

from datetime import UTC, datetime

from tidegate.api import NodeLoanStatus

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ONE = datetime(2026, 11, 21, 13, tzinfo=UTC)


def test_what_is_said_again_is_the_same_object() -> None:
    status = NodeLoanStatus(message="waiting").with_condition(NOON, "Fenced", True, "FenceInPlace", "there", 3)
    assert status.but(message="waiting", deadline=None) is status
    assert status.with_condition(ONE, "Fenced", True, "FenceInPlace", "there", 3) is status


def test_news_is_a_copy_and_time_moves_only_when_the_status_does() -> None:
    status = NodeLoanStatus().with_condition(NOON, "Fenced", True, "FenceInPlace", "there", 3)
    assert status.but(message="news").message == "news"
    for reason, words, generation in (
        ("Other", "there", 3),
        ("FenceInPlace", "still", 3),
        ("FenceInPlace", "there", 4),
    ):
        told = status.with_condition(ONE, "Fenced", True, reason, words, generation)
        assert told != status
        assert told.since("Fenced") == NOON
    assert status.with_condition(ONE, "Fenced", False, "FenceInPlace", "there", 3).since("Fenced") == ONE

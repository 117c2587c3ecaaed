"""Percentiles and tables of the benchmark page."""

from __future__ import annotations

import pytest

from benchmarks.figures import Figure, p50_p95, percentile, steps_table


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([3.0], 0.5, 3.0), ([1.0, 2.0], 0.5, 1.0), ([4.0, 1.0, 3.0, 2.0], 0.95, 4.0), (list(range(1, 21)), 0.95, 19)],
)
def test_a_percentile_is_one_of_the_values(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


def test_a_figure_says_whether_its_aim_was_met() -> None:
    median, high = p50_p95("recall", [1.0, 2.0, 9.0], 4)
    assert median.row == "| recall, p50 | 3 | 2 s |  |  |"
    assert high.row == "| recall, p95 | 3 | 9 s | 4 s | missed |"
    assert not Figure("memory", 260, "MiB", 260).missed


def test_an_aim_may_be_the_least_that_is_wanted() -> None:
    rates = [Figure("hand-overs", value, "/s", 430, at_least=True) for value in (400, 450, 2000)]
    assert [one.missed for one in rates] == [True, False, False]
    assert [one.is_close for one in rates] == [False, True, False]
    assert rates[0].row == "| hand-overs | 1 | 400 /s | at least 430 /s | missed |"


def test_steps_without_measurements_have_no_row() -> None:
    table = steps_table({"Fenced to Vacated": [0.1, 0.2], "Left to Clean": []})
    assert "| Fenced to Vacated | 2 | 0.10 | 0.20 |" in table
    assert "Clean" not in table

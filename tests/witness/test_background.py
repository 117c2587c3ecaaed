"""Work beside a scenario that dies is told of when the scenario is over."""

from __future__ import annotations

import threading

import pytest

from e2e.background import Background


class Counting(Background):
    def __init__(self, until: int | None = None) -> None:
        super().__init__("count")
        self.count, self._until = 0, until

    def work(self) -> None:
        while not self.end.wait(0.001):
            self.count += 1
            if self.count == self._until:
                raise ValueError("too many")


def counted(least: int, until: int | None = None, then: BaseException | None = None) -> Counting:
    with Counting(until) as counting:
        while counting.count < least:
            counting.end.wait(0.001)
        if then:
            raise then
    return counting


def test_it_works_until_the_context_ends() -> None:
    counting = counted(3)
    assert counting.count >= 3
    assert not [thread for thread in threading.enumerate() if thread.name == "count"]


def test_what_ended_it_early_is_raised_at_the_end() -> None:
    with pytest.raises(RuntimeError, match="the count died") as caught:
        counted(2, until=2)
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_error_of_the_scenario_itself_comes_first() -> None:
    with pytest.raises(KeyError):
        counted(1, until=1, then=KeyError())

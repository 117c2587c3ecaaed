"""A dead slurmrestd is asked at a bounded rate, and its error stays visible."""

from __future__ import annotations

import pytest

from tests.slurm.restd import Clock
from tidegate.slurm.circuit import FAILURES, LONGEST_PAUSE, Circuit
from tidegate.slurm.errors import Unreachable


def _opened(clock: Clock) -> Circuit:
    circuit = Circuit(clock)
    for number in range(FAILURES):
        circuit.enter()
        circuit.failed(Unreachable(f"failure {number}"))
    return circuit


def test_stays_closed_for_a_few_failures() -> None:
    circuit = Circuit(Clock())
    for _ in range(FAILURES - 1):
        circuit.enter()
        circuit.failed(Unreachable("no answer"))
    circuit.enter()


def test_opens_after_failures_in_a_row_and_repeats_the_last_error() -> None:
    circuit = _opened(Clock())
    with pytest.raises(Unreachable, match="failure 2"):
        circuit.enter()


def test_an_answer_in_between_starts_the_count_anew() -> None:
    circuit = Circuit(Clock())
    for _ in range(FAILURES * 3):
        circuit.enter()
        circuit.failed(Unreachable("no answer"))
        circuit.succeeded()
    circuit.enter()


def test_after_the_pause_one_request_tries_and_others_wait_for_it() -> None:
    clock = Clock()
    circuit = _opened(clock)
    clock.go_on(1.1)
    circuit.enter()
    with pytest.raises(Unreachable):
        circuit.enter()
    circuit.succeeded()
    circuit.enter()


def test_a_trial_that_is_never_finished_does_not_close_it_for_ever() -> None:
    clock = Clock()
    circuit = _opened(clock)
    clock.go_on(1.1)
    circuit.enter()
    clock.go_on(1.1)
    circuit.enter()


def test_asks_a_dead_server_at_a_bounded_rate() -> None:
    clock = Clock()
    circuit = _opened(clock)
    tried = 0
    for _ in range(10 * 60 * 4):
        clock.go_on(0.25)
        try:
            circuit.enter()
        except Unreachable:
            continue
        tried += 1
        circuit.failed(Unreachable("no answer"))
    assert tried <= 10 * 60 / LONGEST_PAUSE.total_seconds() + 4

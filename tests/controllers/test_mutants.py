"""A test of the test: each of these faults, put into the operator on purpose, is caught by the state machine.

A mutant breaks one rule of the design in the real code. If the state machine lives through it, it does not check that
rule, and its silence about the real code means nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.controllers.test_state_machine import PLAIN, STEPS, TwoOperators
from tests.controllers.test_state_machine import quiet as quiet
from tidegate.api import CapacityClaim
from tidegate.controllers import evict_pod, node_appliers, slurm_appliers
from tidegate.controllers.appliers import APPLIERS
from tidegate.sharing import claims, idleness, ladder, lend_steps, make_way, protection, return_steps, takings
from tidegate.sharing.commands import ReleaseNode
from tidegate.sharing.index import Index
from tidegate.sharing.loan_step import said

Patch = pytest.MonkeyPatch
EXAMPLES = 400
"""Each of them is found by a tenth of that on average, whatever the seed; the first run that does ends the search."""


@dataclass(frozen=True)
class Fault:
    """A fault, the promise that it breaks, and what the site begins with, so that it does not take long to show."""

    mutate: Callable[[Patch], None]
    promise: str
    begin: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.mutate.__name__


def release_to_anybody(patch: Patch) -> None:
    """A freed node is opened to all instead of being held for the claim that freed it."""
    release_node = node_appliers.release_node

    async def to_anybody(command: ReleaseNode, hands: Any) -> None:
        await release_node(replace(command, claim_uid=None), hands)

    patch.setattr(node_appliers, "_promised_to_nobody", _nothing)
    patch.setitem(APPLIERS, ReleaseNode, to_anybody)


def gangs_come_piece_by_piece(patch: Patch) -> None:
    """Pods of a gang may come onto its first node while the others are still being freed."""
    patch.setattr(claims, "is_gathering", lambda _: False)


def recall_equal_priority(patch: Patch) -> None:
    """A claim takes loans that are as important as itself."""
    priority_of = Index.priority_of

    def one_more(index: Index, claim: CapacityClaim) -> int | None:
        worth = priority_of(index, claim)
        return None if worth is None else worth + 1

    patch.setattr(Index, "priority_of", one_more)


def no_budget(patch: Patch) -> None:
    """A node may change hands as often as it likes."""
    patch.setattr(idleness, "_flapping", lambda *_: None)


def unfence_before_empty(patch: Patch) -> None:
    """The fence goes while slurmd is still there."""
    patch.setattr(node_appliers, "_nothing_left", _nothing)
    patch.setattr(return_steps, "_drain", _says_at_once("Drained"))
    patch.setattr(return_steps, "_leave", _says_at_once("Left"))


def down_is_the_first_rung(patch: Patch) -> None:
    """What runs on a recalled node is ended at once, and nobody is told."""
    patch.setattr(return_steps, "climb", lambda jobs, touched, **_: ladder.Rungs(touched, down=True))


def take_the_protected(patch: Patch) -> None:
    """Nothing protects a job: neither how often it was requeued, nor that it may not be."""
    patch.setattr(protection, "_shields", lambda *_: {})


def lift_foreign_drains(patch: Patch) -> None:
    """A drain of an admin is taken for one of ours."""
    for module in (return_steps, lend_steps, idleness, node_appliers, slurm_appliers):
        patch.setattr(module, "is_drained_by_others", lambda _: False)


def evict_anybody(patch: Patch) -> None:
    """Pods go whatever their priority and their annotations say."""
    for module in (takings, make_way, evict_pod):
        patch.setattr(module, "why_it_stays", lambda *_: "")


async def _nothing(*_: Any) -> None:
    """Looks at nothing and refuses nothing."""


def _says_at_once(condition: str) -> Callable[..., bool]:
    """A step of the way back that is done before it has begun."""

    def step_over(loan: Any, back: Any, step: Any, index: Index) -> bool:
        step.status = said(loan, step.status, index.now, condition, True, "Mutant", "")
        return True

    return step_over


PLAINLY: Mapping[str, Any] = {"terms": PLAIN, "quotas": [], "tries_modes": False}
LENT: Mapping[str, Any] = {**PLAINLY, "policy": "Eager", "preemption": "Never"}
FAULTS = [
    Fault(release_to_anybody, "2", PLAINLY),
    Fault(gangs_come_piece_by_piece, "2", PLAINLY),
    Fault(recall_equal_priority, "3", {**LENT, "priority": 1000}),
    Fault(no_budget, "3", {**LENT, "priority": -100, "budget": 1, "busy": []}),
    Fault(unfence_before_empty, "1", PLAINLY),
    Fault(down_is_the_first_rung, "4", {**LENT, "busy": [False] * 3}),
    Fault(take_the_protected, "3", {**LENT, "priority": -100, "busy": [False] * 3, "other": "Protect"}),
    Fault(lift_foreign_drains, "6", LENT),
    Fault(evict_anybody, "7", {**PLAINLY, "preemption": "LowerPriority"}),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_the_state_machine_catches(fault: Fault, monkeypatch: Patch) -> None:
    class Begun(TwoOperators):
        GIVEN = fault.begin

    fault.mutate(monkeypatch)
    with pytest.raises(AssertionError, match=rf"^{fault.promise}: "):
        run_state_machine_as_test(
            seed(1)(Begun),
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                database=None,
                deadline=None,
                derandomize=False,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
                phases=(Phase.generate,),
            ),
        )

"""The operator with a fault in it: it kills itself at a chosen step, or takes the Lease for its own.

python -m e2e.crashing_operator --each FILE --kubeconfig ... --namespace ...
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import functools
import logging
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tidegate.controllers import appliers, shell
from tidegate.controllers.hands import Hands
from tidegate.controllers.lease import Lease
from tidegate.sharing.commands import WriteLoanStatus

READS = frozenset({"get", "list", "openapi", "node", "observe", "close"})
"""Methods of the API server's and Slurm's clients that change nothing; after any other call there was an effect."""


class Saboteur:
    """A client in whose stead it stands; `effect` is called after each call that changes the world."""

    def __init__(self, client: Any, effect: Callable[[], None]) -> None:
        self._client = client
        self._effect = effect

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name in READS or not callable(method):
            return method

        async def act(*args: Any, **options: Any) -> Any:
            result = await method(*args, **options)
            self._effect()
            return result

        return act


def die(step: str, words: str) -> NoReturn:
    """End the process as a power cut does."""
    logging.getLogger(__name__).warning("dies %s %s", words, step)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL returns to nobody")


def wrap_effects(step: type, effect: Callable[[], None]) -> None:
    """Let the applier of a step act through saboteurs."""
    honest = appliers.APPLIERS[step]

    async def watched(command: Any, hands: Hands) -> None:
        def slurm(name: str) -> Any:
            return Saboteur(hands.slurm(name), effect)

        kube: Any = Saboteur(hands.kube, effect)
        await honest(command, dataclasses.replace(hands, kube=kube, slurm=slurm))

    appliers.APPLIERS[step] = watched


def crash_after(step: type, before: Callable[[], None]) -> None:
    """Die right after the first effect of the step; `before` is called before that."""

    def effect() -> None:
        before()
        die(step.__name__, "after the first effect of")

    wrap_effects(step, effect)


def crash_before_status(steps: Sequence[type], before: Callable[[str], None]) -> None:
    """Die when a loan's status is about to be written after one of the steps had its effect."""
    happened: list[str] = []
    for step in steps:
        wrap_effects(step, functools.partial(happened.append, step.__name__))
    write = appliers.APPLIERS[WriteLoanStatus]

    async def deadly(command: Any, hands: Hands) -> None:
        if happened:
            before(happened[0])
            die(happened[0], "before the status is written after")
        await write(command, hands)

    appliers.APPLIERS[WriteLoanStatus] = deadly


class Diary:
    """A file of the steps that were died at; it outlives the process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lacks(self, step: type) -> bool:
        """Whether no process died at that step so far."""
        return not self._path.exists() or step.__name__ not in self._path.read_text().split()

    def note(self, name: str) -> None:
        """Written through to the disk, for what comes next is death."""
        with self._path.open("a") as file:
            file.write(f"{name}\n")
            file.flush()
            os.fsync(file.fileno())


def step_named(name: str) -> type:
    """The command of that name."""
    return next(step for step in appliers.APPLIERS if step.__name__ == name)


def main() -> None:
    """Run the operator until the fault strikes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--each", type=Path)
    parser.add_argument("--each-before-status", type=Path)
    parser.add_argument("--steps", default="")
    parser.add_argument("--without-lease", action="store_true")
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--image", required=True)
    parser.add_argument("--probe-port", type=int, required=True)
    parser.add_argument("--metrics-port", type=int, required=True)
    options = parser.parse_args()
    # One step at a time: a step that is under way elsewhere when the process dies would have its effect unnoticed.
    appliers._PARALLEL = 1
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if options.each:
        diary = Diary(options.each)
        for step in [one for one in appliers.APPLIERS if diary.lacks(one)]:
            crash_after(step, functools.partial(diary.note, step.__name__))
    if options.each_before_status:
        diary = Diary(options.each_before_status)
        steps = [step_named(name) for name in options.steps.split(",")]
        crash_before_status([step for step in steps if diary.lacks(step)], diary.note)
    if options.without_lease:
        Lease.held = lambda self: True  # type: ignore[method-assign]
    asyncio.run(
        shell.run(options.kubeconfig, options.namespace, options.probe_port, options.metrics_port, options.image)
    )


if __name__ == "__main__":
    main()

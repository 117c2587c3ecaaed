"""`python -m e2e.scenarios.preemption_loop`: the loop of a plain Deployment, then the same load with Tidegate."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from rich.console import Console

from e2e.demo.site import parser, present
from e2e.operator import REPOSITORY
from e2e.scenarios.preemption_loop import report
from e2e.scenarios.preemption_loop.columns import play_both
from e2e.stage import Stage


def main() -> int:
    """Play both columns; the exit status. Not 0 if Tidegate broke a promise or recalled a claimed node twice."""
    words = parser("e2e.scenarios.preemption_loop", __doc__)
    words.add_argument("--seconds", type=float, default=300, help="how long each column lasts")
    words.add_argument("--seed", type=int, default=1, help="of the schedule")
    options = words.parse_args()
    return present(
        options.lab, options.keep, lambda console, stage: _show(console, stage, options.seconds, options.seed)
    )


def _show(console: Console, stage: Stage, seconds: float, seed: int) -> bool:
    def tell(words: str) -> None:
        console.print(f"[dim]{datetime.now(UTC).astimezone():%H:%M:%S}[/dim]  {words}", highlight=False)

    plain, tidegate, verdict = play_both(stage, seconds, seed, tell)
    report.write((plain, tidegate), REPOSITORY / "out", console)
    once = set(tidegate.recalls) == {1} and not tidegate.double_bindings
    console.print(f"witness of Tidegate's column: {verdict}", style="bold green" if verdict.ok else "bold red")
    return verdict.ok and once


if __name__ == "__main__":
    sys.exit(main())

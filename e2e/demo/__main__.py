"""`python -m e2e.demo`: the lab, the chart, the story, and the witness's verdict. Not 0 if anything differs."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from e2e.demo.picture import bars, svg
from e2e.demo.site import parser, present
from e2e.demo.story import LENDING, RECALL, play
from e2e.demo.view import View
from e2e.operator import REPOSITORY
from e2e.stage import Stage
from e2e.witness import Witness

STEPS = ("Fenced", "Vacated", "Joined", "Lent", "Recalled", "Drained", "Left", "Clean", "Returned")


def main() -> int:
    """Run the demo; the exit status."""
    words = parser("e2e.demo", __doc__)
    words.add_argument("--svg", type=Path, default=REPOSITORY / "out" / "demo.svg", help="where the picture goes")
    options = words.parse_args()
    return present(options.lab, options.keep, lambda console, stage: _show(console, stage, options.svg))


def _show(console: Console, stage: Stage, picture: Path) -> bool:
    lab = stage.lab
    with View(console) as view:
        stage.set_up(lending=LENDING, recall=RECALL)
        view.show(stage)
        with Witness(lab.kubeconfig, lab.rest_url, lab.token) as witness:
            play(stage, view)
            verdict = witness.verdict()
    nodes = {node: spans for node, spans in witness.timeline.nodes.items() if node in lab.workers}
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text(svg(nodes, view.told, "Who owned which node: Tidegate's demo"))
    console.rule("time line")
    console.print(bars(nodes, console.width))
    console.print(_durations(stage))
    console.print(f"picture: {picture}", highlight=False)
    console.print(f"witness: {verdict}", style="bold green" if verdict.ok else "bold red", highlight=False)
    return verdict.ok


def _durations(stage: Stage) -> Table:
    """How long each step of each loan took, from the loans' conditions; one column for each loan."""
    table = Table(title="seconds for each step (Recalled: how long Slurm had the node)", title_justify="left")
    table.add_column("step")
    columns = []
    for loan in sorted(stage.loans(open_only=False), key=lambda one: one["metadata"]["creationTimestamp"]):
        since = {c["type"]: _moment(c["lastTransitionTime"]) for c in loan["status"]["conditions"]}
        created = before = _moment(loan["metadata"]["creationTimestamp"])
        cells = []
        for step in STEPS:
            at = since.get(step, before)
            cells.append(f"{max((at - before).total_seconds(), 0):.2f}")
            before = at
        node = loan["spec"]["nodeName"].removeprefix(f"{stage.lab.name}-")
        table.add_column(f"{node}\n{created.astimezone():%H:%M:%S}", justify="right", overflow="fold")
        columns.append([*cells, loan["spec"].get("back", {}).get("reason", "")])
    for label, *row in zip((*STEPS, "back because"), *columns, strict=True):
        table.add_row(label, *row)
    return table


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m e2e.scenarios.burst`: a burst of requests, its picture, and the witness's verdict. Not 0 if any failed."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from e2e.demo.site import parser, present
from e2e.demo.view import View
from e2e.operator import REPOSITORY
from e2e.scenarios.burst.report import picture, show
from e2e.scenarios.burst.story import LENDING, RECALL, play
from e2e.stage import Stage
from e2e.witness import Witness


def main() -> int:
    """Run the demo; the exit status."""
    words = parser("e2e.scenarios.burst", __doc__)
    words.add_argument("--svg", type=Path, default=REPOSITORY / "out" / "burst.svg", help="where the picture goes")
    options = words.parse_args()
    return present(options.lab, options.keep, lambda console, stage: _show(console, stage, options.svg))


def _show(console: Console, stage: Stage, path: Path) -> bool:
    lab = stage.lab
    image = lab.load_model_server()
    with View(console) as view:
        stage.set_up(lending=LENDING, recall=RECALL)
        view.show(stage)
        with Witness(lab.kubeconfig, lab.rest_url, lab.token) as witness:
            played = play(stage, view.tell, image)
            verdict = witness.verdict()
    nodes = {node: spans for node, spans in witness.timeline.nodes.items() if node in lab.workers}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(picture(nodes, view.told, played))
    show(console, nodes, played)
    console.print(f"picture: {path}", highlight=False)
    console.print(f"witness: {verdict}", style="bold green" if verdict.ok else "bold red", highlight=False)
    return verdict.ok


if __name__ == "__main__":
    sys.exit(main())

"""`python -m e2e.demo`: the lab, the chart, the story, and the witness's verdict. Not 0 if anything differs."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from e2e.demo.picture import bars, svg
from e2e.demo.story import LENDING, RECALL, Differs, play
from e2e.demo.view import View
from e2e.lab import Lab, LabError
from e2e.operator import NAMESPACE, REPOSITORY
from e2e.stage import Stage
from e2e.witness import Witness

STEPS = ("Fenced", "Vacated", "Joined", "Lent", "Recalled", "Drained", "Left", "Clean", "Returned")


def main() -> int:
    """Run the demo; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m e2e.demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", default=os.environ.get("KEEP") == "1",
                        help="leave the lab and the chart as they are at the end (also KEEP=1)")  # fmt: skip
    parser.add_argument("--lab", default="tidegate", help="the lab's name")
    parser.add_argument("--svg", type=Path, default=REPOSITORY / "out" / "demo.svg", help="where the picture goes")
    options = parser.parse_args()
    console = Console()
    was_up = _is_up(options.lab)
    started = time.monotonic()
    try:
        return _show(console, options.lab, options.svg, options.keep)
    except (Differs, TimeoutError, LabError, AssertionError) as error:
        console.print(f"[bold red]The demo failed:[/bold red] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted.")
        return 130
    finally:
        if not options.keep:
            _tidy(console, options.lab, take_down=not was_up)
        console.print(f"{time.monotonic() - started:.0f} s in all")


def _show(console: Console, name: str, picture: Path, keep: bool) -> int:
    lab = Lab.up(name)
    stage = Stage(lab)
    with View(console) as view:
        _install(lab, view)
        stage.clear()
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
    if keep:
        console.print(f'look around: eval "$(.venv/bin/python -m e2e.lab env --name {name})"', highlight=False)
    return 0 if verdict.ok else 1


def _install(lab: Lab, view: View) -> None:
    repository, _, tag = lab.operator_image.rpartition(":")
    settings = {"image.repository": repository, "image.tag": tag, "image.pullPolicy": "Never"}
    chart = str(REPOSITORY / "helm" / "tidegate")
    command = [str(lab.tool("helm")), "upgrade", "--install", "tidegate", chart, "--namespace", NAMESPACE]
    command += ["--create-namespace", "--take-ownership", "--server-side=true", "--force-conflicts"]
    command += ["--wait", "--timeout", "120s"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    _helm(lab, command)
    view.tell("Tidegate is installed from its chart; the operator runs as a pod with the chart's rights")


def _helm(lab: Lab, command: list[str]) -> None:
    environment = {**os.environ, "KUBECONFIG": str(lab.kubeconfig)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise LabError(f"`helm {command[1]}` failed: {done.stderr.strip()}")


def _tidy(console: Console, name: str, take_down: bool) -> None:
    """What the demo made goes, also a lab that is half made; one that was up before stays up."""
    if take_down:
        with console.status("taking the lab away"):
            Lab.remove(name)
        return
    lab = Lab.attach(name)
    with console.status("taking the demo's objects away"):
        try:
            Stage(lab).clear()
            _helm(lab, [str(lab.tool("helm")), "uninstall", "tidegate", "--namespace", NAMESPACE, "--wait"])
        except (LabError, TimeoutError) as error:
            console.print(f"not all of the demo could be taken away: {error}", highlight=False)


def _is_up(name: str) -> bool:
    try:
        Lab.attach(name)
    except LabError:
        return False
    return True


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

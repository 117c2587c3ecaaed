"""Where a demo plays: a lab, brought up if need be, with Tidegate installed from its chart; tidied afterwards."""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from collections.abc import Callable

from rich.console import Console

from e2e.lab import Lab, LabError
from e2e.operator import NAMESPACE, REPOSITORY
from e2e.stage import Stage


class Differs(Exception):  # noqa: N818 - the demos' own word
    """Something is not as the story says; `str()` is one sentence."""


def parser(prog: str, words: str | None) -> argparse.ArgumentParser:
    """What all demos can be told."""
    options = argparse.ArgumentParser(prog=f"python -m {prog}", description=words)
    options.add_argument("--keep", action="store_true", default=os.environ.get("KEEP") == "1",
                         help="leave the lab and the chart as they are at the end (also KEEP=1)")  # fmt: skip
    options.add_argument("--lab", default="tidegate", help="the lab's name")
    return options


def present(name: str, keep: bool, show: Callable[[Console, Stage], bool]) -> int:
    """Let `show` play on a clean stage in a lab with Tidegate; the exit status. Not 0 if it says no or raises."""
    console, was_up, started = Console(), _is_up(name), time.monotonic()
    try:
        return 0 if show(console, _installed(console, name)) else 1
    except (Differs, TimeoutError, LabError, AssertionError) as error:
        console.print(f"[bold red]The demo failed:[/bold red] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted.")
        return 130
    finally:
        if keep:
            console.print(f'look around: eval "$(.venv/bin/python -m e2e.lab env --name {name})"', highlight=False)
        else:
            _tidy(console, name, take_down=not was_up)
        console.print(f"{time.monotonic() - started:.0f} s in all")


def _installed(console: Console, name: str) -> Stage:
    lab = Lab.up(name)
    repository, _, tag = lab.operator_image.rpartition(":")
    settings = {"image.repository": repository, "image.tag": tag, "image.pullPolicy": "Never"}
    chart = str(REPOSITORY / "helm" / "tidegate")
    command = [str(lab.tool("helm")), "upgrade", "--install", "tidegate", chart, "--namespace", NAMESPACE]
    command += ["--create-namespace", "--take-ownership", "--server-side=true", "--force-conflicts"]
    command += ["--wait", "--timeout", "120s"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    _helm(lab, command)
    console.print("Tidegate is installed from its chart; the operator runs as a pod with the chart's rights")
    stage = Stage(lab)
    stage.clear()
    return stage


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

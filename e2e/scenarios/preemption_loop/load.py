"""The load of both columns: notebooks that come and go by a schedule, and jobs that wait in Slurm all the time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from e2e.kube import Json
from e2e.scenarios.preemption_loop.second_scheduler import SCHEDULER
from e2e.stage import GPU, WORK, Stage

NOTEBOOK = "notebook"
"""PriorityClass of the notebooks, and how their names begin."""
GAP_SECONDS = (2.0, 6.0)
STAY_SECONDS = (15.0, 30.0)
JOB_SECONDS = (6, 20)


@dataclass(frozen=True)
class Visit:
    """One notebook: when it comes and when it goes, in seconds since the start."""

    name: str
    comes: float
    goes: float


def schedule(seed: int, seconds: float, nodes: int) -> list[Visit]:
    """Visits that begin early enough to be served; at each moment at least one node is nobody's notebook."""
    dice = random.Random(seed)  # noqa: S311 - the same load each time
    visits: list[Visit] = []
    at = dice.uniform(*GAP_SECONDS)
    while at < seconds - STAY_SECONDS[0] / 2:
        there = [visit for visit in visits if visit.goes > at]
        if len(there) < nodes - 1:
            goes = at + dice.uniform(*STAY_SECONDS)
            visits.append(Visit(f"{NOTEBOOK}-{len(visits) + 1}", at, goes))
        at += dice.uniform(*GAP_SECONDS)
    return visits


def submit_jobs(stage: Stage, seed: int, seconds: float) -> int:
    """An array of more jobs than the nodes can run in that time, each for a whole node; its id."""
    dice = random.Random(seed)  # noqa: S311 - the same load each time
    mean = sum(JOB_SECONDS) / 2
    count = round(2 * seconds * len(stage.lab.workers) / mean)
    # One array is one request, however many jobs it has; each sleeps for as long as its own number says.
    lengths = " ".join(str(dice.randint(*JOB_SECONDS)) for _ in range(count))
    script = f"#!/bin/bash\nlengths=({lengths})\nexec sleep ${{lengths[$SLURM_ARRAY_TASK_ID]}}\n"
    return stage.submit(script, "--job-name=batch", f"--array=0-{count - 1}", "--output=/dev/null")


def play(
    stage: Stage, visits: list[Visit], seconds: float, clock: Callable[[], float]
) -> dict[str, tuple[float, float]]:
    """Make and delete the notebooks at their times; returns when `seconds` are over. By `clock`, when each came and
    went."""
    start = time.monotonic()
    came: dict[str, float] = {}
    went: dict[str, float] = {}
    steps = [(visit.comes, visit, True) for visit in visits] + [(visit.goes, visit, False) for visit in visits]
    for moment, visit, comes in sorted(steps, key=lambda step: step[0]):
        if moment > seconds:
            break
        time.sleep(max(start + moment - time.monotonic(), 0))
        if comes:
            came[visit.name] = clock()
            stage.kube.create("deployments", _notebook(stage, visit.name), WORK)
        else:
            went[visit.name] = clock()
            stage.kube.delete("deployments", visit.name, WORK)
    time.sleep(max(start + seconds - time.monotonic(), 0))
    end = clock()
    return {name: (moment, went.get(name, end)) for name, moment in came.items()}


def _notebook(stage: Stage, name: str) -> Json:
    """Somebody's notebook with all GPUs of a node. Its controller makes it anew when it fails."""
    labels = {"app": name}
    gpus = str(stage.lab.gpus_per_node)
    container = {
        "name": "notebook",
        "image": stage.lab.slurmd_image,
        "imagePullPolicy": "Never",
        "command": ["sleep", "infinity"],
        "resources": {"limits": {GPU: gpus}},
    }
    spec = {
        "schedulerName": SCHEDULER,
        "priorityClassName": NOTEBOOK,
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
    }
    template = {"metadata": {"labels": labels}, "spec": spec}
    body = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": name}, "spec": body}

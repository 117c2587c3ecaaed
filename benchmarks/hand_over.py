"""Cycles of one node between Kubernetes and Slurm, and how long each way takes."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from benchmarks.audit import Audit
from benchmarks.figures import Figure, p50_p95
from e2e.operator import wait_for
from e2e.stage import WORK, Stage
from e2e.witness import sights

IDLE_SECONDS = 1
STEPS = ("Fenced", "Vacated", "Joined", "Lent", "Recalled", "Drained", "Left", "Clean", "Returned")
LENDING = {"idleSeconds": IDLE_SECONDS, "idleReturnSeconds": 3600}
RECALL = {"quick": {"drainSeconds": 0, "checkpointSeconds": 0, "requeueSeconds": 30}}
GRACE_SECONDS = 0
"""What RECALL grants to a job that declares no signal."""


@dataclass
class Measured:
    """Seconds of all cycles."""

    lend: list[float] = field(default_factory=list)
    recall_idle: list[float] = field(default_factory=list)
    recall_busy: list[float] = field(default_factory=list)
    reaction: list[float] = field(default_factory=list)
    steps: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def figures(self) -> list[Figure]:
        """The table's rows, with the aims."""
        return [
            *p50_p95("an idle node until Slurm may use it, beyond idleSeconds", self.lend, 4),
            *p50_p95("recall of a lent node without jobs until the claimant's pod is bound", self.recall_idle, 3),
            *p50_p95("recall of a busy node with requeue, beyond the grace granted", self.recall_busy, 6),
            *p50_p95("a claim's creation until the first loan is recalled for it", self.reaction, 1),
        ]


def measure(stage: Stage, cycles: int, tell: Callable[[str], None]) -> Measured:
    """That many cycles with a job and as many without. The operator must run."""
    measured = Measured()
    for busy in (False, True):
        stage.clear()
        stage.set_up(lending={**LENDING, "floor": 0 if busy else 1}, recall=RECALL, historyLimit=1000)
        stage.deployment("base", len(stage.lab.workers) - 1)
        stage.wait_running("base", len(stage.lab.workers) - 1, seconds=60)
        stage.deployment("web", 1)
        stage.wait_running("web", 1, seconds=60)
        for number in range(cycles):
            _cycle(stage, busy, measured)
            tell(f"cycle {number + 1} of {cycles} {'with a job' if busy else 'without jobs'}: {_last(measured, busy)}")
        _steps(stage, busy, measured)
    order = [f"{before} to {step}" for before, step in itertools.pairwise(STEPS)]
    measured.steps = dict(sorted(measured.steps.items(), key=lambda item: _place(item[0], order)))
    return measured


def _place(name: str, order: list[str]) -> int:
    return next(number for number, step in enumerate(order) if name.startswith(step))


def _cycle(stage: Stage, busy: bool, measured: Measured) -> None:
    job = stage.sleep_job(3600) if busy else 0
    (pod,) = stage.running_pods("web")
    node = pod["spec"]["nodeName"]
    stage.scale("web", 0)
    wait_for("the end of the pod", lambda: stage.kube.get("pods", pod["metadata"]["name"], WORK) is None, 30, 0.02)
    free = datetime.now(UTC)
    wait_for(f"{node} in Slurm", lambda: _is_open(stage, node), 90, 0.05)
    measured.lend.append((datetime.now(UTC) - free).total_seconds() - IDLE_SECONDS)
    if busy:
        stage.wait_job(job, "RUNNING", seconds=30)
    stage.wait_lent(1)
    asked = datetime.now(UTC)
    stage.scale("web", 1)
    (pod,) = stage.wait_running("web", 1, seconds=90)
    if busy:
        stage.lab.slurm("scancel", str(job), check=False)
    seen, name = Audit(stage.lab, asked), pod["metadata"]["name"]
    made = seen.times("create", "pods", lambda ref: ref.get("namespace") == WORK and not ref.get("subresource"))[0]
    bound = seen.times("create", "pods", lambda ref: ref.get("subresource") == "binding" and ref.get("name") == name)[0]
    waited = (bound - made).total_seconds()
    (measured.recall_busy if busy else measured.recall_idle).append(waited - (GRACE_SECONDS if busy else 0))
    claimed, recalled = seen.times("create", "capacityclaims")[0], seen.times("patch", "nodeloans")[0]
    measured.reaction.append((recalled - claimed).total_seconds())


def _is_open(stage: Stage, node: str) -> bool:
    record = stage.slurm_nodes().get(node)
    return record is not None and sights.slurm_node(record).is_open


def _steps(stage: Stage, busy: bool, measured: Measured) -> None:
    """Durations from the loans' conditions; `Recalled` follows `Lent` by the length of the loan, which is no step."""
    for loan in stage.loans(open_only=False):
        since = {c["type"]: datetime.fromisoformat(c["lastTransitionTime"]) for c in loan["status"]["conditions"]}
        for before, step in itertools.pairwise(STEPS):
            if step == "Recalled" or before not in since or step not in since:
                continue
            name = f"{before} to {step}"
            if step == "Drained":
                name += " with a job to requeue" if busy else " without jobs"
            measured.steps[name].append((since[step] - since[before]).total_seconds())


def _last(measured: Measured, busy: bool) -> str:
    recall = measured.recall_busy if busy else measured.recall_idle
    return f"lend {measured.lend[-1]:.2f} s, recall {recall[-1]:.2f} s, reaction {measured.reaction[-1]:.2f} s"

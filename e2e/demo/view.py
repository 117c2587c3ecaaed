"""What the person sees while the demo runs: on a terminal a live picture of both sides, else one line for each step."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from e2e.kube import Refused
from e2e.lab import LabError
from e2e.stage import GPU, WORK, Stage, condition

STYLES = {"Kubernetes": "bold blue", "Slurm": "bold green", "held for a claim": "blue", "changing hands": "yellow"}
REFRESH_SECONDS = 0.7


class View:
    """Tells the steps; use it as a context. `told` are the steps with their moments."""

    def __init__(self, console: Console) -> None:
        self.told: list[tuple[datetime, str]] = []
        self._console = console
        self._stage: Stage | None = None
        self._names: dict[int, str] = {}
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._end = threading.Event()
        self._painter = threading.Thread(target=self._paint, name="view", daemon=True)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
            self._painter.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        if self._live:
            self._painter.join(timeout=10)
            self._live.stop()

    def show(self, stage: Stage) -> None:
        """From now on there is a stage to look at."""
        self._stage = stage

    def name_job(self, job_id: int, name: str) -> None:
        """What the demo calls a job."""
        self._names[job_id] = name

    def tell(self, words: str) -> None:
        """One step of the story."""
        self.told.append((datetime.now(UTC), words))
        self._console.print(f"[dim]{datetime.now(UTC).astimezone():%H:%M:%S}[/dim]  {words}", highlight=False)

    def _paint(self) -> None:
        while not self._end.wait(REFRESH_SECONDS):
            if self._stage is None or self._live is None:
                continue
            try:
                self._live.update(self._picture(self._stage))
            except (Refused, LabError, AssertionError) as error:
                self._live.update(Text(f"(one side does not answer: {error})", style="dim"))

    def _picture(self, stage: Stage) -> Group:
        records = stage.slurm_nodes()
        pods = [pod for pod in stage.kube.list("pods", WORK) if pod["spec"].get("nodeName")]
        loans = {loan["spec"]["nodeName"]: loan for loan in stage.loans()}
        nodes = Table(title="nodes", title_justify="left", expand=True)
        for column in ("node", "owner", "in Slurm", "GPU pods", "loan"):
            nodes.add_column(column)
        for name in stage.lab.workers:
            fence, loan = stage.fence(name), loans.get(name)
            lent = loan is not None and condition(loan, "Lent") and not condition(loan, "Drained")
            owner = "Slurm" if lent else "Kubernetes" if fence is None else "changing hands"
            if fence and fence.startswith("claim_"):
                owner = "held for a claim"
            here = [pod["metadata"]["name"] for pod in pods if pod["spec"]["nodeName"] == name and _gpus(pod)]
            state = "+".join(s for s in records[name]["state"] if s != "DYNAMIC_NORM") if name in records else ""
            trip = loan["status"].get("message", "") or loan["status"].get("state", "") if loan else ""
            nodes.add_row(name, Text(owner, STYLES[owner]), state, ", ".join(here), trip)
        jobs = Table(title="Slurm jobs", title_justify="left", expand=True)
        for column in ("job", "state", "nodes", "restarts"):
            jobs.add_column(column)
        for job_id, name in self._names.items():
            job = stage.job(job_id)
            where = job["nodes"] if "RUNNING" in job["job_state"] else ""
            jobs.add_row(name, "+".join(job["job_state"]), where, str(job["restart_cnt"]))
        return Group(nodes, jobs)


def _gpus(pod: dict[str, object]) -> bool:
    spec = pod["spec"]
    assert isinstance(spec, dict)
    return any(GPU in (c.get("resources") or {}).get("limits", {}) for c in spec["containers"])

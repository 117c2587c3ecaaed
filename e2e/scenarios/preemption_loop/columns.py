"""The two columns: the same notebooks and jobs, once with a plain Deployment of slurmd pods and once with Tidegate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from e2e.operator import NAMESPACE
from e2e.scenarios.preemption_loop.load import NOTEBOOK, Visit, play, schedule, submit_jobs
from e2e.scenarios.preemption_loop.plain import PlainSlurmd
from e2e.scenarios.preemption_loop.record import Record, Recorder
from e2e.scenarios.preemption_loop.second_scheduler import SecondScheduler
from e2e.stage import PRIORITY, WORK, Stage
from e2e.witness import Verdict, Witness

SLURMD = "slurmd"
INTERRUPTED = ("NODE_FAIL", "REQUEUED", "PREEMPTED", "CANCELLED", "FAILED")
"""How `sacct` calls a run that did not get to its end."""


@dataclass(frozen=True)
class Wait:
    """One notebook's story, in seconds since the column began: it came, it ran (perhaps never), it went."""

    name: str
    came: float
    ran: float | None
    went: float


@dataclass(frozen=True)
class Column:
    """What happened in one of the two."""

    name: str
    seconds: float
    notebooks: tuple[Wait, ...]
    evictions: tuple[float, ...]
    """When a scheduler preempted a slurmd pod."""
    double_bindings: tuple[float, ...]
    refusals: dict[str, int]
    """Pods that a kubelet refused, by its reason."""
    slurmd_pods: int
    jobs_completed: int
    runs_interrupted: int
    seconds_lost: int
    """What interrupted runs had computed."""
    recalls: tuple[int, ...] = ()
    """For each claim that recalled anything, how many loans; each claim is for one node."""

    @property
    def waits(self) -> list[float]:
        """Seconds from coming to running of those that ran."""
        return sorted(one.ran - one.came for one in self.notebooks if one.ran is not None)

    @property
    def never_ran(self) -> int:
        """Notebooks that went without having run."""
        return sum(one.ran is None for one in self.notebooks)


def play_both(stage: Stage, seconds: float, seed: int, tell: Callable[[str], None]) -> tuple[Column, Column, Verdict]:
    """The plain column, Tidegate's, and what the witness saw of Tidegate. An operator must run, with a clean stage."""
    visits = schedule(seed, seconds, len(stage.lab.workers))
    tell(f"{len(visits)} notebooks come and go on {len(stage.lab.workers)} nodes within {seconds:.0f} s")
    with SecondScheduler(stage.lab):
        tell("a second kube-scheduler serves the notebooks")
        stage.ensure("namespaces", {"metadata": {"name": WORK}})
        stage.ensure("priorityclasses", {"metadata": {"name": NOTEBOOK}, "value": PRIORITY})
        plain = _plain(stage, visits, seconds, seed)
        tell(f"plain Deployment: {len(plain.evictions)} evictions, {len(plain.double_bindings)} double bindings")
        tidegate, verdict = _tidegate(stage, visits, seconds, seed)
        tell(f"Tidegate: {sum(tidegate.recalls)} recalls for {len(tidegate.recalls)} claimed nodes; {verdict}")
    stage.kube.delete("priorityclasses", NOTEBOOK)
    return plain, tidegate, verdict


def _plain(stage: Stage, visits: list[Visit], seconds: float, seed: int) -> Column:
    with _clean(stage), PlainSlurmd(stage):
        return _column("plain Deployment", stage, visits, seconds, seed, lambda: ())


def _tidegate(stage: Stage, visits: list[Visit], seconds: float, seed: int) -> tuple[Column, Verdict]:
    with _clean(stage):
        stage.set_up(historyLimit=1000)
        with Witness(stage.lab.kubeconfig, stage.lab.rest_url, stage.lab.token) as witness:
            column = _column("Tidegate", stage, visits, seconds, seed, lambda: _recalls(stage))
            verdict = witness.verdict()
    return column, verdict


@contextmanager
def _clean(stage: Stage) -> Iterator[None]:
    stage.clear()
    try:
        yield
    finally:
        stage.clear()


def _column(
    name: str, stage: Stage, visits: list[Visit], seconds: float, seed: int, recalls: Callable[[], tuple[int, ...]]
) -> Column:
    jobs = submit_jobs(stage, seed, seconds)
    nodes = len(stage.lab.workers)
    stage.wait_jobs_running(nodes)
    gpus = dict.fromkeys(stage.lab.workers, stage.lab.gpus_per_node)
    with Recorder(stage.kube, gpus, (WORK, NAMESPACE)) as recorder:
        stayed = play(stage, visits, seconds, recorder.clock)
    record = recorder.record
    completed, interrupted, lost = _jobs(stage, jobs)
    return Column(
        name=name,
        seconds=seconds,
        notebooks=tuple(_wait(visit, stayed[visit.name], record) for visit in visits if visit.name in stayed),
        evictions=record.evictions(SLURMD),
        double_bindings=tuple(one.at for one in record.doubled),
        refusals=dict(Counter(record.refused.values())),
        slurmd_pods=len(record.made.get(SLURMD, ())),
        jobs_completed=completed,
        runs_interrupted=interrupted,
        seconds_lost=lost,
        recalls=recalls(),
    )


def _wait(visit: Visit, stayed: tuple[float, float], record: Record) -> Wait:
    came, went = stayed
    ran = record.running.get(visit.name)
    return Wait(visit.name, came, ran if ran is not None and ran <= went else None, went)


def _recalls(stage: Stage) -> tuple[int, ...]:
    """How many loans were recalled for each claim that recalled any."""
    backs = [loan["spec"].get("back", {}) for loan in stage.loans(open_only=False)]
    counts = Counter(back["claim"]["uid"] for back in backs if "claim" in back)
    return tuple(counts.values())


def _jobs(stage: Stage, array: int) -> tuple[int, int, int]:
    """Jobs that completed, runs that did not get to their end, and the seconds that these had run."""
    fields = ("--noheader", "--allocations", "--duplicates", "--parsable2", "--format=State,ElapsedRaw")
    words = stage.lab.slurm("sacct", *fields, f"--jobs={array}")
    runs = [line.split("|") for line in words.split("\n") if line]
    ended = [int(seconds) for state, seconds in runs if state.split(" ")[0] in INTERRUPTED]
    return sum(state == "COMPLETED" for state, _ in runs), len(ended), sum(ended)

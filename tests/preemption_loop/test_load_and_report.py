"""The load is the same for the same seed and can be served; the report says what the columns say."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from e2e.scenarios.preemption_loop import report
from e2e.scenarios.preemption_loop.columns import Column, Wait
from e2e.scenarios.preemption_loop.load import schedule

PLAIN = Column(
    name="plain Deployment",
    seconds=60,
    notebooks=(Wait("notebook-1", 2, 12, 30), Wait("notebook-2", 5, None, 25)),
    evictions=(2.5, 5.5, 8.0),
    double_bindings=(6.0, 9.0),
    refusals={"OutOfnvidia.com/gpu": 2},
    slurmd_pods=9,
    jobs_completed=3,
    runs_interrupted=4,
    seconds_lost=70,
)
TIDEGATE = Column("Tidegate", 60, (Wait("notebook-1", 2, 6.5, 30),), (), (), {}, 5, 6, 1, 4, recalls=(1,))


@pytest.mark.parametrize("seed", range(20))
def test_a_schedule_leaves_a_node_to_slurm_and_every_notebook_time_to_run(seed: int) -> None:
    visits = schedule(seed, 300, nodes=3)
    assert visits == schedule(seed, 300, nodes=3)
    assert len(visits) > 10
    for visit in visits:
        assert sum(one.comes <= visit.comes < one.goes for one in visits) <= 2
        assert visit.goes - visit.comes >= 15


def test_the_table_has_both_columns(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=120)
    report.write((PLAIN, TIDEGATE), tmp_path, console)
    assert isinstance(console.file, io.StringIO)
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.file.getvalue().splitlines()]
    said = {cells[0]: cells[1:] for cells in lines if len(cells) == 3}
    assert said["slurmd pods that a scheduler evicted"] == ["3", "0"]
    assert said["loans recalled / nodes claimed"] == ["-", "1 / 1"]
    assert said["pods bound to GPUs that were taken"] == ["2", "0"]
    assert said["notebooks that never ran"] == ["1", "0"]
    assert said["seconds until a notebook runs, longest"] == ["10.0", "4.5"]


def test_the_figures_and_the_picture_are_files(tmp_path: Path) -> None:
    report.write((PLAIN, TIDEGATE), tmp_path, Console(file=io.StringIO()))
    figures = json.loads((tmp_path / "preemption-loop.json").read_text())
    assert figures["plain Deployment"]["evictions"] == [2.5, 5.5, 8.0]
    tips = re.findall("<title>(.*?)</title>", (tmp_path / "preemption-loop.svg").read_text())
    assert tips == [
        "notebook-1 waits 10.0 s",
        "notebook-1 runs 18.0 s",
        "notebook-2 waits 20.0 s",
        "notebook-2 runs 0.0 s",
        "notebook-1 waits 4.5 s",
        "notebook-1 runs 23.5 s",
    ]

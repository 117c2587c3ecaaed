"""`python -m benchmarks`: measure on the lab and write docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.cost import at_rest, with_many_nodes
from benchmarks.decision import measure_in_image
from benchmarks.figures import HEAD, Figure, steps_table
from benchmarks.hand_over import Measured, measure
from e2e.lab import Lab
from e2e.operator import REPOSITORY, Operator, install_rights, service_account_kubeconfig
from e2e.stage import Stage

PAGE = REPOSITORY / "docs" / "benchmarks.md"
CYCLES = 20


def main() -> int:
    """Measure, write the page, and return the exit status: 0 whether aims are met or not, for the page tells that."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--lab", default=os.environ.get("TIDEGATE_LAB", "tidegate"), help="the lab's name")
    parser.add_argument("--cycles", type=int, default=CYCLES, help="cycles with a job, and as many without")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the page goes")
    parser.add_argument("--no-scale", action="store_true", help="leave the simulated nodes out")
    options = parser.parse_args()
    lab = Lab.up(options.lab)
    # Before there is an operator, so that nothing but the lab's own daemons shares the cores.
    tell("decisions on worlds of up to 10,000 nodes")
    decisions = measure_in_image(lab.engine, lab.operator_image)
    sections = f"{decisions.section()}\n\n{_observation_rows()}"
    with tempfile.TemporaryDirectory() as folder:
        install_rights(lab)
        stage = Stage(lab)
        stage.kube.delete("leases", "tidegate", "tidegate-system")
        operator = Operator(service_account_kubeconfig(lab, Path(folder) / "kubeconfig"), Path(folder))
        operator.start()
        try:
            measured = measure(stage, options.cycles, tell)
            costs = at_rest(operator)
            if not options.no_scale:
                costs += with_many_nodes(stage, operator)
            options.page.parent.mkdir(exist_ok=True)
            stage.clear()
        finally:
            operator.stop()
    options.page.write_text(page(measured, [*costs, *decisions.figures()], sections, lab))
    tell(f"written: {options.page}")
    return 0


def tell(words: str) -> None:
    """One line to the person who waits."""
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def page(measured: Measured, costs: list[Figure], sections: str, lab: Lab) -> str:
    """The page, in Markdown."""
    figures = [*measured.figures(), *costs]
    return f"""\
# Benchmarks

Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}; do not edit. Everything is measured on the lab (a kind cluster
with a control plane and {len(lab.workers)} workers, Slurm {lab.slurm_release} in containers, the operator with the
chart's rights), all on one machine with {os.cpu_count()} cores and {_memory_gib()} GiB of memory. Both control planes,
the workers and the measurement itself share those cores; a site whose daemons have machines of their own has more of
them for each. The GPUs are only a number here, the image is on the workers already, and the busy job has nothing to
save: real pulls and real checkpoints come on top.

## Figures and aims

{HEAD}
{chr(10).join(figure.row for figure in figures)}

An idle node counts from the moment its last GPU pod was gone; `idleSeconds` is subtracted. A recall counts from the
creation of the claimant's pod to its binding, both as the API server's audit log has them. The busy node ran a job
that declares no signal, so that the ladder granted it nothing. The pool's times are short; Slurm is asked once a second
while nothing changes hands.

{_honest_word(figures)}

## Where the time goes

From the conditions of the loans of all these cycles.

{steps_table(measured.steps)}

{sections}
"""


def _honest_word(figures: list[Figure]) -> str:
    missed = [f"- {one.what}: {one.told} instead of {one.aim:g} {one.unit}" for one in figures if one.missed]
    close = [f"- {one.what}: {one.told}, aim {one.aim:g} {one.unit}" for one in figures if one.is_close]
    parts = ["All aims were met in this run."] if not missed else ["Missed in this run:", "", *missed]
    if close:
        parts += [
            "",
            "Met with less than a fifth to spare, so that another run or a slower machine may miss them:",
            "",
            *close,
        ]
    return "\n".join(parts)


def _memory_gib() -> int:
    line = Path("/proc/meminfo").read_text().splitlines()[0]
    return round(int(line.split()[1]) / 2**20)


def _observation_rows() -> str:
    from benchmarks.slurm_observation import section

    return section()


if __name__ == "__main__":
    sys.exit(main())

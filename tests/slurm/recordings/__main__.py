"""Records what real slurmrestds of the lab say of two nodes, each shape of pending job, and a few running ones."""

from __future__ import annotations

import json
import re
import time

from e2e.lab import SlurmSite
from tests.contract.shapes import SHAPES
from tests.slurm.recordings import FOLDER, LISTS, RELEASES

VERSIONS = {"24.11": "v0.0.42", "26.05": "v0.0.44"}
"""The versions that the client reads jobs with."""
SLEEPER = "#!/bin/sh\nsleep 600\n"


def record(release: str) -> None:
    """One release, on a site of its own that goes again."""
    site = SlurmSite.up(name=f"recording-{release.replace('.', '')}", slurm=release, workers=2)
    try:
        running = (
            ["--job-name=running-on-two-nodes", "-N2", "--gres=gpu:1", "--time=60"],
            ["--job-name=running-array", "--array=0-3", "--gres=gpu:1"],
        )
        for options in running:
            site.slurm("sbatch", "--output=/dev/null", *options, user="alice", input=SLEEPER)
        _wait_for(site, "RUNNING", 3)
        site.slurm("scontrol", "update", "NodeName=node[0-1]", "State=DRAIN", "Reason=recording")
        for shape in SHAPES:
            options = [f"--job-name={shape.name}", "--output=/dev/null", *shape.sbatch]
            site.slurm("sbatch", *options, user="alice", input=SLEEPER)
        _wait_for(site, "PENDING", len(SHAPES))
        (FOLDER / release).mkdir(exist_ok=True)
        for name, path in LISTS.items():
            answer = site.rest("GET", f"/slurm/{VERSIONS[release]}/{path}")
            text = json.dumps(answer, separators=(",", ":"))
            # the kernel of whoever records says nothing about Slurm
            text = re.sub(r'"operating_system":"[^"]+"', '"operating_system":"Linux"', text)
            (FOLDER / release / f"{name}.json").write_text(text + "\n")
    finally:
        site.down()


def _wait_for(site: SlurmSite, state: str, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(site.slurm("squeue", "--noheader", "--states", state).splitlines()) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"not {count} jobs are {state}: {site.slurm('squeue')}")
        time.sleep(0.5)


if __name__ == "__main__":
    for one in RELEASES:
        record(one)

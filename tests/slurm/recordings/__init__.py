"""Answers of real slurmrestds, `<release>/<list>.json`, made by `python -m tests.slurm.recordings`."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
RELEASES = ("24.11", "26.05")
LISTS = {"jobs": "jobs/", "states": "jobs/state/", "nodes": "nodes/", "partitions": "partitions/"}
"""File name by the path that it answers."""


def recording(release: str, name: str) -> bytes:
    """One recorded answer."""
    return (FOLDER / release / f"{name}.json").read_bytes()

"""The operator's image as it is on the lab's nodes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from e2e.lab import Lab

pytestmark = pytest.mark.lab

MOST_MEGABYTES = 400
Docker = Callable[..., str]


@pytest.fixture(scope="module")
def docker(lab: Lab) -> Docker:
    """Runs docker on the lab's engine; what it wrote, whether its program failed or not."""
    environment = {**os.environ, **{k: v for k, v in lab.environment().items() if k != "PATH"}}

    def run(*args: str) -> str:
        done = subprocess.run(
            ["docker", *args],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout

    return run


def inside(docker: Docker, lab: Lab, *program: str) -> str:
    """A program in the image, with no more rights than the chart gives it."""
    locked = ["--rm", "--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    return docker("run", *locked, f"--entrypoint={program[0]}", lab.operator_image, *program[1:])


def test_it_is_small_and_starts_the_operator_as_nobody_special(docker: Docker, lab: Lab) -> None:
    image: dict[str, Any] = json.loads(docker("image", "inspect", lab.operator_image))[0]
    assert image["Config"]["User"] == "10001:10001"
    assert (image["Config"]["Entrypoint"], image["Config"]["Cmd"]) == (["tidegate"], ["operator"])
    assert image["Size"] < MOST_MEGABYTES * 1_000_000


def test_the_command_runs_on_a_read_only_root(docker: Docker, lab: Lab) -> None:
    assert "Run the operator until it is told to end" in inside(docker, lab, "tidegate", "operator", "--help")
    assert inside(docker, lab, "id", "-u").strip() == "10001"


@pytest.mark.parametrize("program", ["gcc", "cc", "make", "pip"])
def test_nothing_to_build_with_is_left(docker: Docker, lab: Lab, program: str) -> None:
    assert "not found" in inside(docker, lab, program, "--version")

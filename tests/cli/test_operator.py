"""`tidegate operator` as a process, its log, and what help costs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.conftest import REPOSITORY
from tidegate.cli.app import app
from tidegate.cli.failures import Failed, sentence
from tidegate.cluster.errors import Unreachable

ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'operator'}:{REPOSITORY}", "COLUMNS": "100"}
KUBE_VARIABLES = ("KUBECONFIG", "KUBERNETES_SERVICE_HOST")

WORKS_UNTIL_TOLD = """
import asyncio, signal, sys
from tidegate.cli.operator import until_told

async def work():
    # as kopf does, after we began to listen
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, print, "stolen")
    print("working", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("cleaned up", flush=True)

asyncio.run(until_told(work()))
"""

CANCELLED = """
import asyncio
from tidegate.cli.operator import until_told

async def work():
    raise asyncio.CancelledError

asyncio.run(until_told(work()))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_whatever_kopf_does(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", WORKS_UNTIL_TOLD], env=ENVIRONMENT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"working\n"
        process.send_signal(number)
        assert process.stdout.read() == b"cleaned up\n"
        assert process.wait(10) == 0


def test_a_cancellation_by_somebody_else_is_passed_on() -> None:
    code = [sys.executable, "-c", CANCELLED]
    done = subprocess.run(code, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "CancelledError" in done.stderr


def test_a_cluster_that_cannot_be_found_is_one_sentence(tmp_path: Path) -> None:
    environment = {key: value for key, value in ENVIRONMENT.items() if key not in KUBE_VARIABLES}
    command = [sys.executable, "-m", "tidegate.cli", "operator", "--kubeconfig", str(tmp_path / "missing")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"Cannot connect to Kubernetes with {tmp_path / 'missing'}: ")
    assert done.stderr.count("\n") == 1


def test_failures_of_a_group_are_told_once_each() -> None:
    twice = Unreachable(0, "The API server does not answer.")
    group = ExceptionGroup("tasks", [twice, ExceptionGroup("more", [twice, RuntimeError("The watches ended.")])])
    assert sentence(group) == "The API server does not answer. The watches ended."


@pytest.mark.parametrize("bug", [KeyError("x"), NotImplementedError("x"), ModuleNotFoundError("x", name="tidegate.x")])
def test_bugs_are_not_told_as_sentences(bug: Exception) -> None:
    assert sentence(bug) is None
    assert sentence(ExceptionGroup("tasks", [Failed("A failure."), bug])) is None


def test_a_package_that_is_not_installed_is_named_with_its_extra() -> None:
    words = "This command needs the Python package kopf: install `tidegate[operator]`."
    assert sentence(ModuleNotFoundError("No module named 'kopf'", name="kopf")) == words


LOGS = """
import logging
from tidegate.cli.operator import log_lines

log_lines("info")
ours = logging.getLogger("tidegate.controllers.loop")
ours.debug("too much")
logging.getLogger("kubernetes.client.rest").info("response body: c2VjcmV0")
try:
    raise ValueError("two\\nlines")
except ValueError:
    ours.exception("a record")
ours.info("another")
"""


def test_a_record_is_one_line_and_libraries_do_not_tell_what_they_send() -> None:
    done = subprocess.run([sys.executable, "-c", LOGS], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    first, second = done.stderr.splitlines()
    assert " ERROR tidegate.controllers.loop: a record\\nTraceback (most recent call last):" in first
    assert first.endswith("ValueError: two\\nlines")
    assert second.endswith("+00:00 INFO tidegate.controllers.loop: another")


def test_its_options_have_the_defaults_of_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    from tidegate.controllers import shell

    seen: list[object] = []

    async def run(*args: object) -> None:
        seen.append(args)

    monkeypatch.setattr(shell, "run", run)
    levels: list[str] = []
    monkeypatch.setattr("tidegate.cli.operator.log_lines", levels.append)
    monkeypatch.setattr("tidegate.cli.operator.until_told", lambda work: work)
    ports = (shell.PROBE_PORT, shell.METRICS_PORT)
    monkeypatch.delenv("POD_NAMESPACE", raising=False)
    monkeypatch.delenv("TIDEGATE_IMAGE", raising=False)
    assert CliRunner().invoke(app, ["operator"]).exit_code == 0
    monkeypatch.setenv("POD_NAMESPACE", "lending")
    options = ["--kubeconfig", "some/file", "--probe-port", "1", "--metrics-port", "2", "--log-level", "debug"]
    options += ["--image", "tidegate:1"]
    assert CliRunner().invoke(app, ["operator", *options]).exit_code == 0
    assert seen == [(None, "tidegate", *ports, ""), (Path("some/file"), "lending", 1, 2, "tidegate:1")]
    assert levels == ["info", "debug"]


HELP = """
import sys
from tidegate.cli import main

sys.argv = ["kubectl-tidegate", *%r, "--help"]
try:
    main()
except SystemExit as end:
    print(end.code, sorted({"kopf", "kubernetes", "aiohttp", "prometheus_client"} & set(sys.modules)))
"""


@pytest.mark.parametrize("command", [[], ["status"], ["explain"], ["return-all"], ["operator"]])
def test_help_comes_without_what_commands_need(command: list[str]) -> None:
    code = HELP % command
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert f"Usage: kubectl tidegate {' '.join(command)}".rstrip() in done.stdout
    assert done.stdout.rstrip().endswith("0 []")

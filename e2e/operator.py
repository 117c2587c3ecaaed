"""The operator as a process of this machine, with no rights but those that the chart gives it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import yaml

from e2e.lab import Lab

NAMESPACE = "tidegate-system"
REPOSITORY = Path(__file__).resolve().parent.parent
PATIENCE = float(os.environ.get("TIDEGATE_PATIENCE", "2"))
"""Longer deadlines for a machine that has other things to do."""
Found = TypeVar("Found")
_RIGHTS = ("claimquota", "crds", "priorityclass", "rbac", "serviceaccount")


def install_rights(lab: Lab) -> None:
    """The chart without its Deployment: resource definitions, policy, PriorityClass, roles and the service account."""
    shown = [option for name in _RIGHTS for option in ("--show-only", f"templates/{name}.yaml")]
    command = [str(lab.tool("helm")), "template", "tidegate", str(REPOSITORY / "helm" / "tidegate")]
    manifests = subprocess.run([*command, "--namespace", NAMESPACE, *shown], check=True, capture_output=True, text=True)
    namespace = yaml.safe_dump({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    lab.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=namespace)
    # One that the demo left would act beside ours.
    lab.kubectl("delete", "deployment", "tidegate", "--namespace", NAMESPACE, "--ignore-not-found", "--wait")
    lab.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=manifests.stdout)
    lab.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "nodeloans.tidegate.dev")


def service_account_kubeconfig(lab: Lab, path: Path, hours: int = 12) -> Path:
    """A kubeconfig with a token of the operator's service account, as its pod has one."""
    token = lab.kubectl("create", "token", "tidegate", "--namespace", NAMESPACE, f"--duration={hours}h").strip()
    config = yaml.safe_load(lab.kubeconfig.read_text())
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    return path


class Operator:
    """At most one process at a time; each start has a log of its own."""

    def __init__(self, kubeconfig: Path, logs: Path, name: str = "operator") -> None:
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self.log = logs / f"{name}.log"
        self._kubeconfig = kubeconfig
        self._logs = logs
        self._starts = 0
        self._faulty = False
        self._seen = 0
        self.probe_port, self.metrics_port = free_port(), free_port()

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    @property
    def is_honest(self) -> bool:
        """Whether it lives, and is one without a fault."""
        return self.is_running and not self._faulty

    @property
    def pid(self) -> int:
        """The process's id. Raises `ValueError` when there is none."""
        if self.process is None:
            raise ValueError(f"{self.name} was not started")
        return self.process.pid

    @property
    def output(self) -> str:
        """What the present (or last) process said since `mark`, or since its start."""
        return self.log.read_text(errors="replace")[self._seen :] if self.log.exists() else ""

    def mark(self) -> None:
        """Forget what was said so far."""
        self._seen = 0
        self._seen = len(self.output)

    def start(self, wait: bool = True) -> None:
        """Start it; with `wait`, return when it has seen the whole cluster."""
        self._start(["-m", "tidegate.cli", "operator"])
        self._faulty = False
        if wait:
            self.wait_ready()

    def crash_at_each(self, done: Path) -> None:
        """Start one that kills itself after the first effect of each step that is not in the file yet, and notes it."""
        self._start(["-m", "e2e.crashing_operator", "--each", str(done)])

    def crash_before_each_status(self, done: Path, steps: Sequence[str]) -> None:
        """Start one that kills itself when a loan's status is due after a step that is not in the file yet."""
        self._start(["-m", "e2e.crashing_operator", "--each-before-status", str(done), "--steps", ",".join(steps)])

    def without_lease(self) -> None:
        """Start one that takes the Lease for its own whatever it says."""
        self._start(["-m", "e2e.crashing_operator", "--without-lease"])
        self.wait_ready()

    def stop(self) -> int:
        """End it as Kubernetes does, by SIGTERM. The exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def wait_dead(self, seconds: float) -> int:
        """Wait for the process's own end. The exit status, negative for a signal. Raises `TimeoutError`."""
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the operator did not end within {seconds:.0f} s:\n{self.output[-3000:]}") from None

    def wait_ready(self, seconds: float = 60) -> None:
        """Wait until it has seen the whole cluster."""
        deadline = time.monotonic() + seconds
        while not self._probe("readyz"):
            if not self.is_running:
                raise AssertionError(f"the operator ended:\n{self.output[-3000:]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the operator is not ready after {seconds:.0f} s:\n{self.output[-3000:]}")
            time.sleep(0.05)

    def metrics(self) -> str:
        """What it tells Prometheus."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
        return text

    def _probe(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.probe_port}/{path}", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _start(self, program: Sequence[str]) -> None:
        assert not self.is_running, "one process at a time"
        self._starts, self._faulty, self._seen = self._starts + 1, True, 0
        self.log = self._logs / f"{self.name}-{self._starts}.log"
        options = ["--kubeconfig", str(self._kubeconfig), "--namespace", NAMESPACE]
        options += [
            "--image",
            Lab.operator_image,
            "--probe-port",
            str(self.probe_port),
            "--metrics-port",
            str(self.metrics_port),
        ]
        environment = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
        paths = [str(REPOSITORY / "operator"), str(REPOSITORY), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self._end_left_over()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program, *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=REPOSITORY,
            )
        self._pid_file.write_text(str(self.process.pid))

    @property
    def _pid_file(self) -> Path:
        return self._logs / f"{self.name}.pid"

    def _end_left_over(self) -> None:
        """End the process of a test run that was itself killed; it would hold the Lease for ever."""
        if not self._pid_file.exists():
            return
        pid = self._pid_file.read_text()
        self._pid_file.unlink()
        command = Path(f"/proc/{pid}/cmdline")
        if command.exists() and str(self.probe_port) not in command.read_text() and NAMESPACE in command.read_text():
            os.kill(int(pid), signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        if self.process is None:
            return 0
        if self.is_running:
            self.process.send_signal(how)
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the operator ignored {how.name}:\n{self.output[-3000:]}") from None


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for(what: str, look: Callable[[], Found], seconds: float, pause: float = 0.1) -> Found:
    """Look until the answer is true-ish and return it. Raises `TimeoutError` that names what did not come."""
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {seconds:.0f} s")
        time.sleep(pause)

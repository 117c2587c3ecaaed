"""What tests of every room share: the lab, and kubectl on it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, settings

from tidegate.api.crds import RESOURCES
from tidegate.api.names import GROUP

if TYPE_CHECKING:
    from e2e.lab import Lab

REPOSITORY = Path(__file__).resolve().parent.parent

# `make test` tries the same cases on every machine; `make fuzz` tries many new ones. A case that it finds becomes a
# test of its own.
COMMON: dict[str, Any] = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("same", max_examples=140, derandomize=True, **COMMON)
settings.register_profile("fuzz", max_examples=1500, **COMMON)
settings.load_profile("same")


@pytest.fixture(scope="session")
def lab() -> Lab:
    """A real Kubernetes and a real Slurm. The first test that asks brings them up; they stay up for the next run."""
    from e2e.lab import Lab

    return Lab.up(os.environ.get("TIDEGATE_LAB", "tidegate"), slurm=os.environ.get("TIDEGATE_SLURM", "24.11"))


@dataclass(frozen=True)
class Kubectl:
    """Runs kubectl as the admin of a cluster."""

    program: Path
    kubeconfig: Path

    def __call__(self, *args: str, manifest: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        """What kubectl answered, whether it failed or not; `manifest` is its standard input, for `-f -`."""
        return subprocess.run(
            [self.program, *args],
            input=None if manifest is None else yaml.safe_dump(dict(manifest)),
            stdin=subprocess.DEVNULL if manifest is None else None,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def must(self, *args: str, manifest: Mapping[str, Any] | None = None) -> str:
        """What a kubectl that has to succeed wrote."""
        done = self(*args, manifest=manifest)
        assert done.returncode == 0, f"kubectl {' '.join(args)}: {done.stderr}"
        return done.stdout


@pytest.fixture(scope="session")
def kubectl(lab: Lab) -> Kubectl:
    return Kubectl(lab.tool("kubectl"), lab.kubeconfig)


@pytest.fixture(scope="module")
def crds(kubectl: Kubectl) -> Iterator[None]:
    """The API server knows Tidegate's resources as this checkout has them.

    Those that nobody had installed go again, so that a later `helm install` does not find what is not its own.
    """
    folder = str(REPOSITORY / "crds")
    names = [f"{resource.plural}.{GROUP}" for resource in RESOURCES]
    there = kubectl.must("get", "crd", "--output", "name")
    new = [name for name in names if name not in there]
    kubectl.must("apply", "--server-side", "--force-conflicts", "-f", folder)
    kubectl.must("wait", "--for=condition=Established", "--timeout=30s", "-f", folder)
    # what is established is published a moment later
    published, deadline = "", time.monotonic() + 60
    while not all(f'"kind":"{resource.model.__name__}"' in published for resource in RESOURCES):
        assert time.monotonic() < deadline, f"the API server does not publish all of Tidegate's resources: {published}"
        time.sleep(0.1)
        published = kubectl("get", "--raw", "/openapi/v3/apis/tidegate.dev/v1alpha1").stdout
    yield
    if new:
        kubectl.must("delete", "--timeout=30s", "crd", *new)

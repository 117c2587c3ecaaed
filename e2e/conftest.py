"""What every scenario gets: the lab, a clean stage, the operator, and the witness around it all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from e2e.suite import SUITE_BEGAN

if TYPE_CHECKING:
    from e2e.lab import Lab
    from e2e.operator import Operator
    from e2e.stage import Stage
    from e2e.witness import Witness

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder need the lab."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.lab)


@pytest.fixture(scope="session")
def lab() -> Lab:
    """A real Kubernetes and a real Slurm. The first test that asks brings them up; they stay up for the next run."""
    from e2e.lab import Lab

    return Lab.up(os.environ.get("TIDEGATE_LAB", "tidegate"), slurm=os.environ.get("TIDEGATE_SLURM", "24.11"))


@pytest.fixture(scope="session")
def rights(lab: Lab, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The kubeconfig of the operator's service account, which has what the chart gives it and nothing else."""
    from e2e.operator import install_rights, service_account_kubeconfig

    install_rights(lab)
    request.config.stash[SUITE_BEGAN] = datetime.now(UTC)
    return service_account_kubeconfig(lab, tmp_path_factory.mktemp("rights") / "kubeconfig")


@pytest.fixture(scope="session")
def operator_of_all(lab: Lab, rights: Path) -> Iterator[Operator]:
    """One operator for all tests; starting one takes longer than most scenarios."""
    from e2e.operator import Operator

    logs = lab.shared_dir.parent / "logs" / "e2e"
    logs.mkdir(parents=True, exist_ok=True)
    for old in logs.glob("*.log"):
        old.unlink()
    operator = Operator(rights, logs)
    yield operator
    operator.kill()


@pytest.fixture
def operator(operator_of_all: Operator, lab: Lab) -> Operator:
    """The operator, running and without a fault in it, whatever the test before did to it."""
    from e2e.operator import NAMESPACE

    if not operator_of_all.is_honest:
        operator_of_all.kill()
        lab.kubectl("delete", "lease", "tidegate", "--namespace", NAMESPACE, "--ignore-not-found")
        operator_of_all.start()
    operator_of_all.mark()
    return operator_of_all


@pytest.fixture
def bare_stage(lab: Lab, operator: Operator) -> Iterator[Stage]:
    """A clean stage without SlurmCluster and BatchPool, with the operator running."""
    from e2e.stage import Stage

    stage = Stage(lab)
    stage.clear()
    yield stage
    stage.kube.close()


@pytest.fixture
def stage(bare_stage: Stage) -> Stage:
    """A clean stage with a SlurmCluster and a BatchPool of short times."""
    bare_stage.set_up()
    return bare_stage


@pytest.fixture(autouse=True)
def witness(request: pytest.FixtureRequest) -> Iterator[Witness | None]:
    """Watches each test that has a stage, and fails it when a promise was broken."""
    if not {"stage", "bare_stage"} & set(request.fixturenames):
        yield None
        return
    from e2e.witness import Witness

    stage: Stage = request.getfixturevalue("bare_stage")
    with Witness(stage.lab.kubeconfig, stage.lab.rest_url, stage.lab.token) as witness:
        yield witness
        verdict = witness.verdict()
    assert verdict.ok, str(verdict)

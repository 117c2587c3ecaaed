"""The lab itself, for real: it starts twice without harm, labs do not meet, and `down` leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from e2e.lab import Lab, LabError, SlurmSite, engine, leftovers
from e2e.lab.paths import cache_dir
from tests.lab.footprint import Footprint, traces

pytestmark = pytest.mark.lab


@pytest.fixture
def names() -> Iterator[tuple[str, str]]:
    """Names of two labs, which are taken away whatever the test did."""
    both = ("lab-test-one", "lab-test-two")
    yield both
    for name in both:
        Lab.remove(name)


def containers(name: str) -> dict[str, str]:
    running = engine.connect()
    assert running is not None
    return {found.name: found.id for found in running.client.containers.list() if found.name.startswith(f"{name}-")}


def test_two_labs_side_by_side_and_gone(names: tuple[str, str]) -> None:
    one, two = names
    before, alone = Footprint.look(), engine.Record.load() is None
    for archive in (cache_dir() / "archives").glob("*.tar"):
        archive.unlink()  # so that both make it, into one cache
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda name: Lab.up(name, workers=1), names)

    made = containers(one)
    assert Lab.up(one, workers=1).workers == first.workers
    assert containers(one) == made, "a second `up` made something anew"
    with pytest.raises(LabError, match="take it down first"):
        Lab.up(one, slurm="26.05", workers=1)

    assert first.rest_url != second.rest_url
    assert first.kubeconfig != second.kubeconfig
    for lab in (first, second):
        assert set(lab.status().values()) == {"running"}
        assert lab.workers[0] in lab.kubectl("get", "nodes", "--output", "name")
        job = lab.slurm("sbatch", "--parsable", "--gres=gpu:1", "--wrap", "true", user="alice").strip()
        assert lab.slurm("squeue", "--noheader", "--job", job, "--format", "%T").strip() == "PENDING"

    links = {lab.name: lab.network.link for lab in (first, second)}
    second.down()
    assert traces(two, links[two]) == []
    assert first.answers()
    first.down()
    assert traces(one, links[one]) == []
    if alone:
        assert Footprint.look() == before


def test_nothing_is_left_after_everything_was_killed(names: tuple[str, str]) -> None:
    killed, neighbour = names
    before, alone = Footprint.look(), engine.Record.load() is None
    lab = Lab.up(killed, workers=1)
    record = engine.Record.load()
    if record is None or record.process is None:
        pytest.skip("the engine here is not the lab's to kill")
    site = SlurmSite.up(neighbour, workers=1)

    for part in lab.status():
        lab.kill(part)
    for process in leftovers.our_processes(engine.RUN):
        if process.program in ("dockerd", "containerd"):
            process.kill()
    with pytest.raises(LabError, match="is up"):
        Lab.attach(killed)

    link = lab.network.link
    Lab.remove(killed)
    assert traces(killed, link) == []
    # the neighbour's containers outlived their engine, and answer again now that there is one
    assert SlurmSite.attach(neighbour).slurm("srun", "--gres=gpu:1", "hostname", user="alice").strip() == "node0"
    site.down()
    assert traces(neighbour, site.network.link) == []
    if alone:
        assert Footprint.look() == before


def test_a_machine_that_started_anew_makes_the_lab_anew(names: tuple[str, str]) -> None:
    """A start of the machine ends all that runs, as `release` does; on disk it says still that a site is up."""
    name, _ = names
    if engine.Record.load() is not None or engine.connect() is not None:
        pytest.skip("the engine here is not this test's to end")
    before = Footprint.look()
    SlurmSite.up(name, workers=1)
    engine.release(name)

    with pytest.raises(LabError, match="is up"):
        SlurmSite.attach(name)
    again = SlurmSite.up(name, workers=1)
    assert again.slurm("srun", "--gres=gpu:1", "hostname", user="alice").strip() == "node0"
    again.down()
    assert traces(name, again.network.link) == []
    assert Footprint.look() == before

"""What the machine lacks is told in one sentence before anything is built."""

import shutil
import socket
from pathlib import Path

import pytest

from e2e.lab import LabError, preflight
from e2e.lab.machine import Machine, has_capability

ROOT = Machine(root=True, cgroup=2, resource_capability=True)
USER = Machine(root=False, cgroup=2, resource_capability=True)


def sentence(caught: pytest.ExceptionInfo[LabError]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_user_without_engine_is_told_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    with pytest.raises(LabError) as caught:
        preflight.check_engine(USER)
    assert "root" in sentence(caught)


def test_root_needs_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    preflight.check_engine(ROOT)


def test_missing_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(LabError, match=r"install Go 1\.26"):
        preflight.check_go()


@pytest.mark.parametrize("version", ["go1.25.3", "go1.9", "", "devel"])
def test_old_go(version: str) -> None:
    with pytest.raises(LabError, match=r"Go 1\.26 or newer"):
        preflight.check_go_version(version)


@pytest.mark.parametrize("version", ["go1.26.0", "go1.27rc1", "go2.0"])
def test_new_go(version: str) -> None:
    preflight.check_go_version(version)


def test_too_little_disk(tmp_path: Path) -> None:
    with pytest.raises(LabError) as caught:
        preflight.check_disk(tmp_path / "not" / "yet", 10**9)
    assert "XDG_CACHE_HOME" in sentence(caught)


def test_busy_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LabError, match=f"port {port} of 127.0.0.1 is in use"):
            preflight.check_port(port, "busy")
    preflight.check_port(port, "busy")


@pytest.mark.parametrize("name", ["", "Upper", "1st", "a_b", "a" * 31, "a;b", "../a"])
def test_names_that_cannot_be_host_names(name: str) -> None:
    with pytest.raises(LabError, match="cannot name a lab"):
        preflight.check_name(name)


def test_unknown_release() -> None:
    with pytest.raises(LabError, match=r"24\.11, 26\.05"):
        preflight.check_site("a", "23.02", ROOT)


def test_each_name_has_its_port() -> None:
    assert preflight.api_port("tidegate") == preflight.api_port("tidegate") != preflight.api_port("other")


def test_capabilities_are_read_from_the_bounding_set() -> None:
    status = "CapEff:\t0000000000000000\nCapBnd:\t000001fffeffffff\n"
    assert not has_capability(status, 24)
    assert has_capability(status, 21)


def test_each_specialty_of_the_machine_is_named() -> None:
    assert ROOT.findings() == []
    assert len(Machine(root=True, cgroup=1, resource_capability=False).findings()) == 2

"""A process is never taken for another one that got its number."""

import os
import time
from pathlib import Path

import pytest

from e2e.lab import LabError
from e2e.lab.leftovers import MARK, our_mounts, our_processes
from e2e.lab.processes import ProcessId, spawn
from e2e.lab.shell import run


def test_a_number_used_again_is_another_process() -> None:
    me = ProcessId.of(os.getpid())
    assert me is not None
    assert me.alive
    stranger = ProcessId(me.pid, me.started - 1)
    assert not stranger.alive
    stranger.kill()


def test_a_daemon_is_found_by_its_mark_and_ended(tmp_path: Path) -> None:
    daemon = spawn(["sleep", "60"], tmp_path / "log", {MARK: str(tmp_path)})
    # the mark is in the environment once the program runs
    deadline = time.monotonic() + 5
    while daemon not in our_processes(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert daemon in our_processes(tmp_path)
    daemon.end(patience=5)
    assert not daemon.alive
    assert daemon not in our_processes(tmp_path)


def test_a_program_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no-such-program is missing"):
        run(["no-such-program"])
    with pytest.raises(LabError, match="no-such-program is missing"):
        spawn(["no-such-program"], tmp_path / "log", {})


def test_a_failure_tells_the_last_words_and_where_the_rest_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(LabError, match=f"failed with 3: so it is .*{log}"):
        run(["sh", "-c", "echo so it is >&2; exit 3"], log=log)
    assert "so it is" in log.read_text()


def test_input_reaches_the_program_as_it_is() -> None:
    assert run(["cat"], input="$(true) `x` 'y'\n") == "$(true) `x` 'y'\n"


def test_mounts_below_our_directories_innermost_first() -> None:
    mountinfo = (
        "1 0 8:1 / / rw - ext4 /dev/a rw\n"
        "2 1 8:1 /d /data rw - ext4 /dev/a rw\n"
        "3 2 0:5 / /data/with\\040space rw - overlay o rw\n"
        "4 1 0:6 / /database rw - tmpfs t rw\n"
    )
    assert our_mounts(mountinfo, Path("/data"), Path("/run/x")) == ["/data/with space", "/data"]

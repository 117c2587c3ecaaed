"""Where the lab keeps things: a cache that stays, state that goes with the lab."""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent


def cache_dir() -> Path:
    """What is costly to make and the same for every lab: tools, images, the engine's layers."""
    return _xdg("XDG_CACHE_HOME", ".cache") / "tidegate-lab"


def state_dir(name: str) -> Path:
    """All that belongs to one lab; `down` removes it."""
    return _xdg("XDG_STATE_HOME", ".local/state") / "tidegate-lab" / name


@contextlib.contextmanager
def only_maker(target: Path) -> Iterator[None]:
    """One thread of one process at a time makes `target`: labs that start together share the cache.

    It does not count for the thread that has it: a second time around the first waits for ever.
    """
    lock = target.with_name(f"{target.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _xdg(variable: str, default: str) -> Path:
    value = os.environ.get(variable)
    return Path(value) if value else Path.home() / default


def content_key(*parts: str | bytes | Path) -> str:
    """A name that changes when any of the parts does; a directory stands for the files in it."""
    digest = hashlib.sha256()
    for part in parts:
        for piece in _pieces(part):
            digest.update(len(piece).to_bytes(8, "big"))
            digest.update(piece)
    return digest.hexdigest()[:16]


def _pieces(part: str | bytes | Path) -> list[bytes]:
    if isinstance(part, str):
        return [part.encode()]
    if isinstance(part, bytes):
        return [part]
    if part.is_dir():
        files = sorted(path for path in part.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return [piece for path in files for piece in (str(path.relative_to(part)).encode(), path.read_bytes())]
    return [part.read_bytes()]

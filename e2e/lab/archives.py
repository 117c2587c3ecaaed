"""Tar archives of named entries: what Docker takes as build contexts, as images, and as files for a container."""

import io
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

IN_MEMORY = 64 * 2**20


@dataclass(frozen=True)
class Entry:
    """A file in an archive, given as its bytes or as the path of a file that has them."""

    content: bytes | Path
    mode: int = 0o644
    uid: int = 0


def archive(entries: Mapping[str, Entry]) -> IO[bytes]:
    """An open archive, the same bytes for the same entries; a large one is on disk until it is closed."""
    buffer = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - the caller closes it
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, entry in sorted(entries.items()):
            info = tarfile.TarInfo(name)
            info.mode = entry.mode
            info.uid = info.gid = entry.uid
            if isinstance(entry.content, bytes):
                info.size = len(entry.content)
                tar.addfile(info, io.BytesIO(entry.content))
            else:
                info.size = entry.content.stat().st_size
                with entry.content.open("rb") as source:
                    tar.addfile(info, source)
    buffer.seek(0)
    return buffer


def packed(entries: Mapping[str, Entry]) -> bytes:
    """A small archive as bytes."""
    with archive(entries) as content:
        return content.read()


def folder_entries(folder: Path, prefix: str = "") -> dict[str, Entry]:
    """Every file below a directory, executable where the file is."""
    return {
        f"{prefix}{path.relative_to(folder)}": Entry(path, 0o755 if path.stat().st_mode & 0o100 else 0o644)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }

"""What a lab was asked to be and whether it became that, kept on disk so that `down` works after any crash."""

import contextlib
import json
import shutil
from dataclasses import asdict, dataclass

from e2e.lab.errors import LabError
from e2e.lab.paths import state_dir


@dataclass
class Record:
    """One lab or site. It is written before anything is made and completed when everything answers."""

    kind: str
    release: str
    workers: int
    slurmd_image: str = ""
    complete: bool = False

    @classmethod
    def load(cls, name: str) -> "Record | None":
        try:
            return cls(**json.loads((state_dir(name) / "lab.json").read_text()))
        except FileNotFoundError:
            return None

    @classmethod
    def load_complete(cls, name: str, wanted: "Record") -> "Record | None":
        """The record of a lab that is up; LabError if it is up as something else than `wanted`."""
        found = cls.load(name)
        if found is None or not found.complete:
            return None
        if (found.kind, found.release, found.workers) != (wanted.kind, wanted.release, wanted.workers):
            raise LabError(
                f"{name} is up already as a {found.kind} with Slurm {found.release} and {found.workers} nodes:"
                " take it down first or choose another name"
            )
        return found

    def save(self, name: str) -> None:
        folder = state_dir(name)
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / "lab.new"
        fresh.write_text(json.dumps(asdict(self), indent=1))
        fresh.replace(folder / "lab.json")

    @staticmethod
    def forget(name: str) -> None:
        """Removes all that is kept of a lab, and the directory above when it was the last."""
        folder = state_dir(name)
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()

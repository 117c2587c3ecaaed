"""What is special about this machine. Everything here is looked at, nothing is assumed."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

CAP_SYS_RESOURCE = 24


@dataclass(frozen=True)
class Machine:
    """The properties that change how the lab is built."""

    root: bool
    cgroup: int
    resource_capability: bool

    @classmethod
    def look(cls) -> "Machine":
        return cls(
            root=os.geteuid() == 0,
            cgroup=2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1,
            resource_capability=has_capability(Path("/proc/self/status").read_text(), CAP_SYS_RESOURCE),
        )

    def findings(self) -> list[str]:
        """One line for each specialty, with what the lab does about it."""
        found = []
        if self.cgroup == 1:
            found.append("cgroup v1: the kubelets are told to accept it")
        if self.root and not self.resource_capability:
            found.append("CAP_SYS_RESOURCE is missing: a runtime wrapper leaves it out of every container")
        return found


def has_capability(status: str, number: int) -> bool:
    """Whether /proc/PID/status allows the process's children that capability."""
    bounding = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return bool(bounding and int(bounding[1], 16) >> number & 1)

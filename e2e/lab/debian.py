"""Installs the host's missing programs from Debian packages."""

import shutil

from e2e.lab.errors import LabError
from e2e.lab.shell import run


def install(**packages: str) -> None:
    """Each name is a program that must be there, each value the package that brings it."""
    missing = {program.replace("_", "-"): package for program, package in packages.items()}
    missing = {program: package for program, package in missing.items() if not shutil.which(program)}
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise LabError(f"please install {', '.join(sorted(missing))}: this is no Debian, the lab cannot")
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "-qq", "update"], env=env)
    run(["apt-get", "-qq", "install", "--no-install-recommends", *sorted(set(missing.values()))], env=env)

"""How this machine reaches Debian and Python packages, in a form that an image can take over."""

import re
import shutil
from pathlib import Path

from e2e.lab.archives import Entry
from e2e.lab.shell import run

APT_OPTIONS = re.compile(r'^Acquire::(?:http|https|Check-|Retries)\S* ".+";$')
PIP_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout")
CERTIFICATES = "usr/local/share/host-certificates.pem"


def apt_options() -> list[str]:
    """Proxy, checks and the like that the host's apt was told."""
    if not shutil.which("apt-config"):
        return []
    return [line for line in run(["apt-config", "dump"]).splitlines() if APT_OPTIONS.match(line)]


def debian_mirror() -> str | None:
    """Where the host's apt gets Debian from, None where the host is no Debian."""
    if not shutil.which("apt-get"):
        return None
    uris = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"], check=False).split()
    return next((uri for uri in uris if re.search(r"/debian/?$", uri)), None)


def pip_options() -> dict[str, str]:
    """What `pip config list` knows, from files and from the environment."""
    if not shutil.which("pip"):
        return {}
    return parse_pip(run(["pip", "config", "list"], check=False))


def parse_pip(listed: str) -> dict[str, str]:
    """The last word on each option: `pip config list` prints the environment's values first, and those win."""
    found: dict[str, str] = {}
    for line in listed.splitlines():
        if match := re.match(r"^[^=]*?\.([\w-]+)='(.*)'$", line):
            found.setdefault(match[1], match[2])
    return found


def files() -> dict[str, Entry]:
    """Configuration files for an image; none on a machine without settings of its own."""
    found: dict[str, Entry] = {}
    if apt := apt_options():
        found["etc/apt/apt.conf.d/99host"] = Entry("".join(f"{line}\n" for line in apt).encode())
    options = pip_options()
    lines = [f"{name} = {options[name]}" for name in PIP_OPTIONS if name in options]
    if certificates := options.get("cert"):
        found[CERTIFICATES] = Entry(Path(certificates).read_bytes())
        lines.append(f"cert = /{CERTIFICATES}")
    if lines:
        found["etc/pip.conf"] = Entry("\n".join(["[global]", *lines, ""]).encode())
    return found

"""Settings of the host's kernel that engines and kubelets change, saved before and put back after."""

import contextlib
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from e2e.lab.shell import run

SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
)
"""What dockerd sets for routing, kubelets in privileged containers for themselves, and the lab for many kubelets."""

ROOM = {"fs/inotify/max_user_instances": 4096, "fs/inotify/max_user_watches": 524288}
"""All nodes of all labs share these limits; the kernel's defaults are good for half a dozen nodes."""

TABLES = ("iptables", "ip6tables")


def save_sysctls() -> dict[str, str]:
    values = {}
    for name in SYSCTLS:
        with contextlib.suppress(OSError):
            values[name] = (Path("/proc/sys") / name).read_text().strip()
    return values


def make_room() -> None:
    """Raises the limits that more than one lab would meet; a higher value stays."""
    for name, needed in ROOM.items():
        path = Path("/proc/sys") / name
        if int(path.read_text()) < needed:
            path.write_text(str(needed))


def restore_sysctls(values: dict[str, str]) -> None:
    for name, value in values.items():
        with contextlib.suppress(OSError):
            path = Path("/proc/sys") / name
            if path.read_text().strip() != value:
                path.write_text(value)


def save_rules() -> dict[str, str]:
    """The packet filter as `iptables-save` prints it; nothing where the program is missing."""
    return {name: run([f"{name}-save"], check=False) for name in TABLES if shutil.which(f"{name}-save")}


def restore_rules(before: dict[str, str], ours: Callable[[str], bool]) -> None:
    """Takes away the rules that came since `before` and are `ours`, and puts changed chain policies back."""
    for name, old in before.items():
        undo = undo_rules(old, run([f"{name}-save"], check=False), ours)
        if undo:
            run([f"{name}-restore", "--noflush"], input=undo)


def undo_rules(before: str, now: str, ours: Callable[[str], bool]) -> str:
    """An `iptables-restore --noflush` script that takes back those changes since `before` that are `ours`."""
    old = parse_rules(before)
    script = []
    for table, (policies, rules) in parse_rules(now).items():
        old_policies, old_rules = old.get(table, ({}, []))
        new = _less(rules, old_rules)
        chains = [chain for chain in policies if chain not in old_policies and policies[chain] == "-" and ours(chain)]
        lines = [
            f":{chain} {old_policies.get(chain, 'ACCEPT')} [0:0]"
            for chain, policy in policies.items()
            if policy not in ("-", old_policies.get(chain, "ACCEPT"))
        ]
        lines += [f"-D{rule[2:]}" for rule in new if ours(rule)]
        lines += [f"-F {chain}" for chain in chains] + [f"-X {chain}" for chain in chains]
        if lines:
            script += [f"*{table}", *lines, "COMMIT"]
    return "\n".join([*script, ""]) if script else ""


def parse_rules(saved: str) -> dict[str, tuple[dict[str, str], list[str]]]:
    """For each table its chains with their policies ("-" for a chain that somebody made) and its rules."""
    tables: dict[str, tuple[dict[str, str], list[str]]] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
            tables[table] = ({}, [])
        elif chain := re.match(r":(\S+) (\S+)", line):
            tables[table][0][chain[1]] = chain[2]
        elif line.startswith("-A"):
            tables[table][1].append(line.strip())
    return tables


def _less(rules: Iterable[str], known: Iterable[str]) -> list[str]:
    left = list(known)
    new = []
    for rule in rules:
        if rule in left:
            left.remove(rule)
        else:
            new.append(rule)
    return new

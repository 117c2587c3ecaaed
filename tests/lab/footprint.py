"""What labs leave visible on a machine."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from e2e.lab import engine, host_settings, leftovers
from e2e.lab.paths import state_dir
from e2e.lab.shell import run


@dataclass(frozen=True)
class Footprint:
    """Everything that a lab or its engine could have changed, in a form that can be compared."""

    processes: list[str]
    mounts: list[str]
    links: list[str]
    rules: dict[str, tuple[dict[str, str], list[str]]]
    sysctls: dict[str, str]
    cgroups: list[str]
    folders: list[str]

    @classmethod
    def look(cls) -> Footprint:
        mounts = Path("/proc/self/mountinfo").read_text()
        record = engine.Record.load()
        # a table that nobody asked for yet and an empty one are the same to packets
        rules = {
            f"{program} {table}": (
                {chain: policy for chain, policy in policies.items() if policy != "ACCEPT"},
                lines,
            )
            for program, saved in host_settings.save_rules().items()
            for table, (policies, lines) in host_settings.parse_rules(saved).items()
        }
        return cls(
            processes=sorted(str(process.pid) for process in leftovers.our_processes(engine.RUN)),
            mounts=leftovers.our_mounts(mounts, engine.RUN, *([Path(record.data)] if record else [])),
            links=sorted(name for _, name in socket.if_nameindex()),
            rules={table: content for table, content in rules.items() if content != ({}, [])},
            sysctls=host_settings.save_sysctls(),
            cgroups=[str(path) for path in Path("/sys/fs/cgroup").glob(f"*{leftovers.CGROUP}")],
            folders=[path for path in (*engine.SIDE_EFFECTS, str(engine.RUN)) if Path(path).exists()],
        )


def traces(name: str, link: str) -> list[str]:
    """What still names one lab, whoever else uses the engine."""
    found = [str(state_dir(name))] if state_dir(name).exists() else []
    found += [f"link {name}" for _, name in socket.if_nameindex() if name == link]
    found += [rule for saved in host_settings.save_rules().values() for rule in saved.splitlines() if link in rule]
    if running := engine.connect():
        for what in ("container", "network", "volume"):
            every = ["--all"] if what == "container" else []
            listed = run(["docker", what, "ls", "--quiet", *every, "--filter", f"name={name}"], env=running.environment)
            found += [f"{what} {line}" for line in listed.split()]
    return found

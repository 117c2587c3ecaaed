"""The sites that the contract of SlurmApi is held against: a fake and real ones, driven in the same words."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, Protocol

from tests.fakes.slurm import FakeSlurm
from tidegate.sharing.snapshot import SlurmState
from tidegate.slurm.api import SlurmApi
from tidegate.slurm.client import SlurmRestClient
from tidegate.slurm.token import TokenSource

if TYPE_CHECKING:
    from e2e.lab import SlurmSite

NODES = ("node0", "node1")
"""Two nodes with 2 GPUs each, which every test finds idle."""
WAIT_SECONDS = 40.0

_NOT_CLEAN = frozenset({"DRAIN", "DOWN", "COMPLETING", "NOT_RESPONDING"})

OnSignal = Literal["ignores", "checkpoints", "exits"]


class Site(Protocol):
    """A Slurm with two nodes, and the people who use it."""

    api: SlurmApi

    def submit(
        self,
        *,
        nodes: int = 1,
        gpus_per_node: int = 1,
        seconds: float = 600.0,
        requeueable: bool = True,
        on_signal: OnSignal = "ignores",
        array_tasks: int = 1,
        comment: str = "",
        partition: str = "lent",
        limit_minutes: int | None = None,
    ) -> int:
        """A user's batch job."""
        ...

    def admin_drains(self, node: str, reason: str) -> None:
        """Somebody else drains a node."""
        ...

    def add_node(self, name: str, extra: str, drained: str = "") -> None:
        """One more slurmd registers; for the first time drained if it gives a reason to be."""
        ...

    def got_signal(self, job_id: int) -> bool:
        """Whether the job noticed a signal."""
        ...

    def end_state(self, job_id: int) -> str:
        """How a job ended that is no longer in an observation."""
        ...

    def passes(self, seconds: float) -> None:
        """A fake's time goes on; a real one's does by itself."""
        ...

    async def until(self, what: str, holds: Callable[[SlurmState], bool]) -> SlurmState:
        """The first observation of which this holds. Fails after WAIT_SECONDS."""
        ...


class FakeSite:
    """The fake, whose time passes only while somebody waits."""

    def __init__(self, release: str) -> None:
        self._now = datetime(2026, 1, 1, tzinfo=UTC)
        self.fake = FakeSlurm(lambda: self._now, release=release, partitions={"lent": ("lent",), "urgent": ("lent",)})
        self.api: SlurmApi = self.fake
        for name in NODES:
            self.add_node(name, "")

    def submit(
        self,
        *,
        nodes: int = 1,
        gpus_per_node: int = 1,
        seconds: float = 600.0,
        requeueable: bool = True,
        on_signal: OnSignal = "ignores",
        array_tasks: int = 1,
        comment: str = "",
        partition: str = "lent",
        limit_minutes: int | None = None,
    ) -> int:
        return self.fake.submit(
            nodes=nodes,
            gpus_per_node=gpus_per_node,
            duration_seconds=seconds,
            requeueable=requeueable,
            on_signal=on_signal,
            array_tasks=array_tasks,
            comment=comment,
            partition=partition,
            time_limit_seconds=None if limit_minutes is None else limit_minutes * 60.0,
        )

    def admin_drains(self, node: str, reason: str) -> None:
        self.fake.admin_drains(node, reason)

    def add_node(self, name: str, extra: str, drained: str = "") -> None:
        self.fake.register(name, gpus=2, cpus=2, memory_mib=1000, features=("lent",), extra=extra, drained=drained)

    def got_signal(self, job_id: int) -> bool:
        return bool(self.fake.jobs[job_id].signals)

    def end_state(self, job_id: int) -> str:
        return self.fake.jobs[job_id].state

    def passes(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self.fake.tick()

    async def until(self, what: str, holds: Callable[[SlurmState], bool]) -> SlurmState:
        for _ in range(int(WAIT_SECONDS * 4)):
            self.passes(0.25)
            state = await self.api.observe()
            if holds(state):
                return state
        raise AssertionError(f"not within {WAIT_SECONDS:g} s: {what}; {state}")


class RealSite:
    """A real Slurm of the lab, seen through the real client."""

    def __init__(self, lab: SlurmSite) -> None:
        self.lab = lab
        self.client = make_client(lab)
        self.api: SlurmApi = self.client
        self._numbers = itertools.count()

    def submit(
        self,
        *,
        nodes: int = 1,
        gpus_per_node: int = 1,
        seconds: float = 600.0,
        requeueable: bool = True,
        on_signal: OnSignal = "ignores",
        array_tasks: int = 1,
        comment: str = "",
        partition: str = "lent",
        limit_minutes: int | None = None,
    ) -> int:
        options = [
            f"--nodes={nodes}",
            "--requeue" if requeueable else "--no-requeue",
            f"--partition={partition}",
            f"--comment={comment}",
            *([f"--gres=gpu:{gpus_per_node}"] if gpus_per_node else []),
            *([f"--array=1-{array_tasks}"] if array_tasks > 1 else []),
            *([f"--time={limit_minutes}"] if limit_minutes else []),
        ]
        notice = "touch /shared/signalled-$SLURM_JOB_ID"
        reaction = {"ignores": notice, "checkpoints": notice, "exits": f"{notice}; exit 0"}[on_signal]
        return self.sbatch(*options, script=_script(reaction, seconds))

    def sbatch(self, *options: str, script: str = "#!/bin/sh\nsleep 600\n") -> int:
        """A user's batch job in Slurm's own words."""
        words = self.lab.slurm("sbatch", "--parsable", "--output=/dev/null", *options, user="alice", input=script)
        return int(words.strip())

    def admin_drains(self, node: str, reason: str) -> None:
        self.lab.slurm("scontrol", "update", f"NodeName={node}", "State=DRAIN", f"Reason={reason}")

    def add_node(self, name: str, extra: str, drained: str = "") -> None:
        self.lab.add_node(name, gpus=2, cpus=2, memory_mb=1000, extra=extra, drained=drained)

    def got_signal(self, job_id: int) -> bool:
        return (self.lab.shared_dir / f"signalled-{job_id}").exists()

    def end_state(self, job_id: int) -> str:
        words = self.lab.slurm("scontrol", "show", "job", str(job_id), "--oneliner")
        return next(word.removeprefix("JobState=") for word in words.split() if word.startswith("JobState="))

    def passes(self, seconds: float) -> None:
        """Real time needs no help."""

    async def until(self, what: str, holds: Callable[[SlurmState], bool]) -> SlurmState:
        deadline = time.monotonic() + WAIT_SECONDS
        while not holds(state := await self.api.observe()):
            assert time.monotonic() < deadline, f"not within {WAIT_SECONDS:g} s: {what}; {state}"
            await asyncio.sleep(0.1)
        return state

    async def clean(self) -> None:
        """As every test is to find it: no job, and the two nodes idle."""

        def idle(state: SlurmState) -> bool:
            records = [state.nodes[name] for name in NODES]
            return all("IDLE" in node.states and not node.states & _NOT_CLEAN for node in records) and not state.jobs

        for name in self.lab.status():
            if name.startswith("extra"):
                self.lab.containers.remove(name)
        state = await self.api.observe()
        for name in state.reservations:
            await self.api.withdraw(name)
        for name in state.nodes:
            if name.startswith("extra"):
                await self.api.down(name, "removed")
                await self.api.delete_node(name)
        if not idle(state):
            self.lab.slurm("scancel", "--user=alice")
            self.lab.slurm("scontrol", "update", "NodeName=node[0-1]", "State=RESUME", check=False)
        await self.until("an idle site", idle)

    async def close(self) -> None:
        """Let go of the connections; the site stays."""
        await self.client.close()


def make_client(lab: SlurmSite, secret: dict[str, bytes] | None = None, user: str = "slurm") -> SlurmRestClient:
    """A client of a site of the lab, with its key or another Secret."""

    def clock() -> datetime:
        return datetime.now(UTC)

    tokens = TokenSource("tidegate-system/slurm", secret or {"jwt_hs256.key": lab.jwt_key}, user, clock)
    return SlurmRestClient(lab.name, lab.rest_url, user, tokens, None, clock)


def _script(reaction: str, seconds: float) -> str:
    """Sleeps in small parts, so that the shell gets to its trap although the signal hits only itself."""
    return f"""#!/bin/bash
trap '{reaction}' USR1
end=$(($(date +%s%N) + {int(seconds * 1000)}000000))
while [ "$(date +%s%N)" -lt "$end" ]; do sleep 0.2; done
"""

"""What one observation of a large Slurm cluster costs the operator, in seconds and MiB.

The answers are recorded ones of a real slurmrestd, multiplied and served by another process on this machine. So the figures
are the client's own; slurmrestd's are beside them in docs. `python -m benchmarks.slurm_observation` prints one row as JSON
for each kind of observation.
"""

from __future__ import annotations

import asyncio
import copy
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.slurm.recordings import RELEASES, recording
from tidegate.slurm.client import SlurmRestClient
from tidegate.slurm.token import TokenSource

NODES = 1000
JOBS = 10000
CHANGES = 20
"""Jobs that start between two observations."""
AIM_SECONDS = 2.0
AIM_MIB = 300


@dataclass(frozen=True)
class Row:
    """One kind of observation, beside the aims."""

    release: str
    observation: str
    nodes: int
    jobs: int
    requests: int
    received_mib: float
    seconds: float
    aim_seconds: float
    peak_mib: int
    aim_mib: int


class Cluster:
    """A cluster of NODES and JOBS made of a recording, which answers as slurmrestd does: indented, and by single job too."""

    def __init__(self, release: str) -> None:
        self.requests = 0
        self.bytes = 0
        jobs = json.loads(recording(release, "jobs"))
        running = [job for job in jobs["jobs"] if "RUNNING" in job["job_state"]]
        pending = [job for job in jobs["jobs"] if "PENDING" in job["job_state"]]
        self._jobs: dict[int, dict[str, Any]] = {}
        for number in range(JOBS):
            runs = number < NODES
            job = copy.copy((running if runs else pending)[number % len(running if runs else pending)])
            job["job_id"] = number + 1
            job["nodes"] = f"gpu{number + 1}" if runs else ""
            self._jobs[number + 1] = job
        self._next = NODES + 1
        nodes = json.loads(recording(release, "nodes"))
        model = next(node for node in nodes["nodes"] if node["name"] == "node0")
        nodes["nodes"] = [{**model, "name": f"gpu{number + 1}"} for number in range(NODES)]
        self._nodes = _dump(nodes)
        self._rest = {key: value for key, value in jobs.items() if key != "jobs"}
        self._partitions = recording(release, "partitions")

    def change(self) -> None:
        """CHANGES waiting jobs start in place of as many that end."""
        for _ in range(CHANGES):
            ended = self._jobs[self._next - NODES]
            started = {**self._jobs[self._next], "job_state": ["RUNNING"], "nodes": ended["nodes"]}
            self._jobs[self._next] = started
            self._jobs[self._next - NODES] = {**ended, "job_state": ["COMPLETED"]}
            self._next += 1

    async def answer(self, request: web.Request) -> web.Response:
        """One request."""
        path = request.path.rstrip("/")
        if path == "/cost":
            cost = {"requests": self.requests, "bytes": self.bytes}
            self.requests = self.bytes = 0
            return web.json_response(cost)
        if path == "/change":
            self.change()
            return web.Response()
        body = self._body(path)
        self.requests += 1
        self.bytes += len(body)
        return web.Response(body=body, content_type="application/json")

    def _body(self, path: str) -> bytes:
        name = path.rsplit("/", 1)[-1]
        if name == "ping":
            return _dump({**self._rest, "pings": []})
        if name == "partitions":
            return self._partitions
        if name == "nodes":
            return self._nodes
        if name == "state":
            light = [{"job_id": str(number), "state": job["job_state"]} for number, job in self._jobs.items()]
            return _dump({**self._rest, "jobs": light})
        wanted = list(self._jobs.values()) if name == "jobs" else [self._jobs[int(name)]]
        return _dump({**self._rest, "jobs": wanted})


def _dump(content: Any) -> bytes:
    return json.dumps(content, indent=2).encode()


def serve(release: str) -> None:
    """Serve a cluster on a port that is printed, until the process is ended."""

    async def run() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", Cluster(release).answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        sys.stdout.write(f"{runner.addresses[0][1]}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()

    asyncio.run(run())


async def observe(url: str, release: str) -> list[Row]:
    """A cold observation and later ones, as a fresh operator process makes them."""
    import aiohttp

    def clock() -> datetime:
        return datetime.now(UTC)

    tokens = TokenSource("benchmark", {"jwt_hs256.key": b"k" * 32}, "slurm", clock)
    client = SlurmRestClient("benchmark", url, "slurm", tokens, None, clock)
    rows = []
    async with aiohttp.ClientSession() as control:
        for kind in ("first", "nothing changed", f"{CHANGES} jobs started, {CHANGES} ended"):
            if kind[0].isdigit():
                await (await control.get(f"{url}/change")).read()
            start = time.perf_counter()
            state = await client.observe()
            seconds = time.perf_counter() - start
            cost = await (await control.get(f"{url}/cost")).json()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
            rows.append(
                Row(
                    release,
                    kind,
                    len(state.nodes),
                    len(state.jobs),
                    cost["requests"],
                    round(cost["bytes"] / 2**20, 1),
                    round(seconds, 2),
                    AIM_SECONDS,
                    peak,
                    AIM_MIB,
                )
            )
    await client.close()
    return rows


@contextmanager
def _server(release: str) -> Iterator[str]:
    """The cluster in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.slurm_observation", "serve", release]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()


def measure() -> list[Row]:
    """All rows. Each release is observed by a fresh process, so that its peak of memory is its own."""
    rows: list[Row] = []
    for release in RELEASES:
        with _server(release) as url:
            command = [sys.executable, "-m", "benchmarks.slurm_observation", "observe", url, release]
            output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        rows += [Row(**json.loads(line)) for line in output.splitlines()]
    return rows


def section() -> str:
    """The rows as a section of a report in Markdown."""
    lines = [
        f"## One observation of {NODES} Slurm nodes and {JOBS} jobs",
        "",
        f"Aims: at most {AIM_SECONDS:g} s and {AIM_MIB} MiB (of the whole process). Recorded answers of real slurmrestds, "
        "multiplied and served on loopback.",
        "",
        "| Slurm | observation | requests | received MiB | seconds | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.release} | {row.observation} | {row.requests} | {row.received_mib} | {row.seconds} | {row.peak_mib} |"
        for row in measure()
    ]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Print the rows, or be one of the processes that they need."""
    if arguments[:1] == ["serve"]:
        serve(arguments[1])
        return 0
    rows = asyncio.run(observe(arguments[1], arguments[2])) if arguments[:1] == ["observe"] else measure()
    for row in rows:
        sys.stdout.write(json.dumps(asdict(row)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

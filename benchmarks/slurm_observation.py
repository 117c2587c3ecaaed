"""What one observation of a large Slurm cluster costs the operator, in seconds and MiB.

The answers are recorded ones of real slurmrestds, multiplied and served by another process on this machine, so the
figures are the client's own: slurmrestd itself takes half a millisecond for each job of a full list.
`python -m benchmarks.slurm_observation` prints one row as JSON for each kind of observation.
"""

from __future__ import annotations

import asyncio
import json
import re
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
    cpu_seconds: float
    """CPU time of the operator alone: what is left of the figure on a busy machine."""
    peak_mib: int
    aim_mib: int


class Cluster:
    """A cluster of NODES and JOBS made of a recording, which answers as slurmrestd does: indented, single jobs too.

    All text is made before it is asked for, so that its making is not measured.
    """

    def __init__(self, release: str) -> None:
        self.requests = 0
        self.bytes = 0
        recorded = json.loads(recording(release, "jobs"))
        self._head, self._tail = _dump({**recorded, "jobs": ["@"]}).split(b'"@"')
        self._models = {
            state: [_dump(job) for job in recorded["jobs"] if job["job_state"] == [state]]
            for state in ("RUNNING", "PENDING", "COMPLETED")
        }
        self._models["COMPLETED"] = [job.replace(b'"RUNNING"', b'"COMPLETED"') for job in self._models["RUNNING"]]
        self._states = {number: "RUNNING" if number <= NODES else "PENDING" for number in range(1, JOBS + 1)}
        self._jobs = {number: self._job(number) for number in self._states}
        self._next = NODES + 1
        nodes = json.loads(recording(release, "nodes"))
        model = next(node for node in nodes["nodes"] if node["name"] == "node0")
        nodes["nodes"] = [{**model, "name": f"gpu{number}"} for number in range(1, NODES + 1)]
        self._nodes = _dump(nodes)
        self._partitions = recording(release, "partitions")
        self._light = self._light_list()

    def change(self) -> None:
        """CHANGES waiting jobs start in place of as many that end."""
        for _ in range(CHANGES):
            for number, state in ((self._next, "RUNNING"), (self._next - NODES, "COMPLETED")):
                self._states[number] = state
                self._jobs[number] = self._job(number)
            self._next += 1
        self._light = self._light_list()

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
        body = self._body(path.rsplit("/", 1)[-1])
        self.requests += 1
        self.bytes += len(body)
        return web.Response(body=body, content_type="application/json")

    def _body(self, name: str) -> bytes:
        bodies = {
            "ping": self._head + self._tail,
            "partitions": self._partitions,
            "reservations": _dump({**json.loads(self._head + self._tail), "reservations": []}),
            "nodes": self._nodes,
        }
        if name in bodies:
            return bodies[name]
        if name == "state":
            return self._light
        wanted = self._jobs.values() if name == "jobs" else [self._jobs[int(name)]]
        return self._head + b",\n".join(wanted) + self._tail

    def _job(self, number: int) -> bytes:
        models = self._models[self._states[number]]
        place = b"" if self._states[number] == "PENDING" else b"gpu%d" % ((number - 1) % NODES + 1)
        text = re.sub(rb'"job_id": \d+', b'"job_id": %d' % number, models[number % len(models)], count=1)
        return re.sub(rb'\n  "nodes": "[^"]*"', b'\n  "nodes": "%s"' % place, text, count=1)

    def _light_list(self) -> bytes:
        light = [{"job_id": str(number), "state": [state]} for number, state in self._states.items()]
        return self._head + _dump(light)[1:-1] + self._tail


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
            start, start_cpu = time.perf_counter(), time.process_time()
            state = await client.observe()
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
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
                    round(cpu_seconds, 2),
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
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ourselves
        try:
            if process.stdout is None:
                raise RuntimeError("the server has no output")
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def measure() -> list[Row]:
    """All rows. Each release is observed by a fresh process, so that its peak of memory is its own."""
    rows: list[Row] = []
    for release in RELEASES:
        with _server(release) as url:
            command = [sys.executable, "-m", "benchmarks.slurm_observation", "observe", url, release]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 - ourselves
        rows += [Row(**json.loads(line)) for line in done.stdout.splitlines()]
    return rows


def section() -> str:
    """The rows as a section of a report in Markdown."""
    lines = [
        f"## One observation of {NODES} Slurm nodes and {JOBS} jobs",
        "",
        f"Aims: at most {AIM_SECONDS:g} s and {AIM_MIB} MiB (of the whole process). The answers are those of real "
        "slurmrestds, recorded, multiplied and served on loopback.",
        "",
        "| Slurm | observation | requests | received MiB | seconds | CPU seconds | peak MiB |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row.release} | {row.observation} | {row.requests} | {row.received_mib} | {row.seconds} | "
        f"{row.cpu_seconds} | {row.peak_mib} |"
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

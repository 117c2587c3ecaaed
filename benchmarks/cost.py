"""What the operator costs in memory and CPU: at rest, and with a thousand simulated nodes."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.audit import Audit
from benchmarks.figures import Figure, p50_p95
from e2e.audit import ACCOUNT
from e2e.kube import Json
from e2e.operator import Operator, wait_for
from e2e.stage import GPU, WORK, Stage, slurmd_template

NODES = 1000
CLAIMS = 20
PODS = NODES - CLAIMS
WATCHED_SECONDS = 60
KWOK = {"type": "kwok"}
POOL = "many"


def at_rest(operator: Operator, seconds: float = WATCHED_SECONDS) -> list[Figure]:
    """The operator on the lab as it is."""
    memory, cores = _usage(operator, seconds)
    return [
        Figure("the operator's memory at rest", memory, "MiB"),
        Figure("the operator's CPU at rest", cores, "cores"),
    ]


def with_many_nodes(stage: Stage, operator: Operator) -> list[Figure]:
    """The operator with a pool of simulated nodes, and a pod with GPUs on nearly each; then claims for the others.

    They go away again.
    """
    stage.lab.add_kwok_nodes(NODES)
    try:
        # kwok's taint keeps nodes from claims, too, unless slurmd would tolerate it
        template = slurmd_template()
        template["spec"]["tolerations"] = [{"operator": "Exists"}]
        stage.put_pool(POOL, lending={"cap": 0}, template=template, nodeSelector=KWOK)
        stage.kube.create("deployments", _many_pods(), WORK)
        wait_for(f"{PODS} simulated pods", lambda: _count_pods(stage) >= PODS, 600, 2)
        memory, cores = _usage(operator, WATCHED_SECONDS)
        reaction = _claimed(stage)
    finally:
        for claim in stage.claims():
            stage.kube.delete("capacityclaims", claim["metadata"]["name"], WORK)
        stage.kube.delete("deployments", "many", WORK)
        stage.kube.delete("batchpools", POOL)
        stage.lab.kubectl("delete", "nodes", "-l", "type=kwok", "--wait=false")
        stage.lab.kubectl("delete", "pods", "-n", WORK, "-l", "app=many", "--force", "--grace-period=0", "--wait=false")
        wait_for("the end of the simulated pods", lambda: not _count_pods(stage), 300, 2)
    what = f"{NODES:,} simulated nodes and {PODS:,} GPU pods"
    return [
        Figure(f"the operator's memory with {what}", memory, "MiB", 260),
        Figure(f"the operator's CPU with {what}", cores, "cores", 0.5),
        *p50_p95("the same site: a claim's creation until a node is held for it", reaction, 1),
    ]


def _claimed(stage: Stage) -> list[float]:
    """Seconds from the creation of each claim, one after the other, until the fence of a free node names it."""
    asked = datetime.now(UTC)
    for number in range(CLAIMS):
        _claim_one(stage, f"many-{number}")
    seen = Audit(stage.lab, asked)
    made, held = seen.times("create", "capacityclaims"), seen.times("patch", "nodes", user=ACCOUNT)
    return [(min(one for one in held if one > claimed) - claimed).total_seconds() for claimed in made]


def _claim_one(stage: Stage, name: str) -> None:
    def held_nodes() -> int:
        found = stage.kube.get("capacityclaims", name, WORK) or {}
        return int(found.get("status", {}).get("heldNodes", 0))

    stage.claim(name, 1, poolName=POOL)
    wait_for(f"a node for {name}", held_nodes, 30, 0.05)


def _many_pods() -> Json:
    labels = {"app": "many"}
    container = {"name": "server", "image": "none", "resources": {"limits": {GPU: "2"}}}
    spec = {"containers": [container], "nodeSelector": KWOK, "tolerations": [{"operator": "Exists"}]}
    template = {"metadata": {"labels": labels}, "spec": spec}
    body: Json = {"replicas": PODS, "selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": "many"}, "spec": body}


def _count_pods(stage: Stage) -> int:
    return sum("nodeName" in pod["spec"] for pod in stage.kube.list("pods", WORK, labelSelector="app=many"))


def _usage(operator: Operator, seconds: float) -> tuple[float, float]:
    """The largest resident memory in MiB, and the cores used on average, over some time."""
    process = Path(f"/proc/{operator.pid}")
    started, before, most = time.monotonic(), _cpu_seconds(process), 0.0
    while time.monotonic() - started < seconds:
        most = max(most, _resident_mib(process))
        time.sleep(0.5)
    return most, (_cpu_seconds(process) - before) / (time.monotonic() - started)


def _cpu_seconds(process: Path) -> float:
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mib(process: Path) -> float:
    lines = (process / "status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) / 1024

"""The story that the demo tells, step by step; each step is checked."""

from __future__ import annotations

import itertools
from typing import Any

from e2e.demo.site import Differs
from e2e.demo.view import View
from e2e.operator import wait_for
from e2e.stage import PRIORITY, Stage, condition, reason, restarts_in

TRAINING_STEPS = 44
LENDING = {"idleSeconds": 2, "idleReturnSeconds": 4}
RECALL = {"quick": {"drainSeconds": 0, "checkpointSeconds": 5, "requeueSeconds": 15}}
REPORT = """#!/bin/bash
start=$(date +%s.%N)
sleep 3
echo "$SLURMD_NODENAME $CUDA_VISIBLE_DEVICES $start $(date +%s.%N)" > "/shared/sweep-$SLURM_ARRAY_TASK_ID.gpus"
"""
PAIR = "#!/bin/bash\nsrun hostname > /shared/pair.hosts\nsleep 3\n"


def play(stage: Stage, view: View) -> None:
    """The whole story. Raises `Differs` or `TimeoutError`."""
    service_holds_one_node(stage, view)
    jobs = people_submit_jobs(stage, view)
    idle_nodes_are_lent(stage, view)
    gpus_are_right(stage, view, jobs["sweep"])
    node = service_grows(stage, view, jobs["train"])
    service_shrinks(stage, view, node)
    every_job_completes(stage, view, jobs)
    nodes_come_home(stage, view)


def service_holds_one_node(stage: Stage, view: View) -> None:
    stage.deployment("chat", 1)
    (pod,) = stage.wait_running("chat", 1, seconds=60)
    view.tell(f"the service `chat` (priority {PRIORITY}) runs on {pod['spec']['nodeName']}; two nodes are idle")


def people_submit_jobs(stage: Stage, view: View) -> dict[str, int]:
    jobs = {
        "sweep": stage.submit(REPORT, "--job-name=sweep", "--array=1-4", gpus=1),
        "train": stage.checkpointing_job("train", TRAINING_STEPS),
        "fold": stage.sleep_job(30, "--job-name=fold"),
        "pair": stage.submit(PAIR, "--job-name=pair", "--nodes=2", "--ntasks-per-node=1"),
    }
    for name, job_id in jobs.items():
        view.name_job(job_id, name)
    view.tell("alice submits an array, a training that saves on a signal, a fold that cannot, and a job of two nodes")
    return jobs


def idle_nodes_are_lent(stage: Stage, view: View) -> None:
    loans = stage.wait_lent(2, seconds=60)
    view.tell(f"Slurm owns {' and '.join(sorted(loan['spec']['nodeName'] for loan in loans))}")


def gpus_are_right(stage: Stage, view: View, array: int) -> None:
    def reports() -> list[list[str]]:
        found = sorted(stage.lab.shared_dir.glob("sweep-*.gpus"))
        lines = [path.read_text().split() for path in found]
        return lines if sum(len(line) == 4 for line in lines) == 4 else []

    seen = wait_for("four tasks of the array", reports, 60)
    _check({gpu for _, gpu, _, _ in seen} <= {"0", "1"}, f"the array's tasks saw {seen}")
    for one, two in itertools.combinations(seen, 2):
        together = float(one[2]) < float(two[3]) and float(two[2]) < float(one[3])
        _check(not together or one[:2] != two[:2], f"two tasks had GPU {one[1]} of {one[0]} at the same time")
    view.tell("the array's four tasks ran, each with a GPU of its own (CUDA_VISIBLE_DEVICES)")


def service_grows(stage: Stage, view: View, train: int) -> str:
    started = stage.wait_job(train, "RUNNING", seconds=60)
    node = str(started["nodes"])
    # From then on recalling the training loses less than recalling anything else.
    wait_for("a training of some seconds", lambda: _age(stage, train) > 7, 60)
    stage.scale("chat", 2)
    view.tell("`chat` is scaled to two replicas; no GPU is free")
    loan = wait_for("a recall", lambda: next(iter(_recalled(stage)), None), 20)
    assert loan is not None
    _check(loan["spec"]["nodeName"] == node, f"{loan['spec']['nodeName']} is recalled, the cheapest loan is {node}")
    view.tell(f"{node} is recalled: its job saves its work and loses least")
    stage.wait_running("chat", 2, seconds=60)
    nodes = {pod["spec"]["nodeName"] for pod in stage.running_pods("chat")}
    _check(node in nodes, f"the new replica runs on {sorted(nodes)} and not on {node}")
    _check("saved" in stage.log_of("train"), "the training did not save its work")
    _check(stage.job(train)["restart_cnt"] == 1, "the training was not requeued")
    view.tell(f"the training saved its work and was requeued; the new replica runs on {node}")
    return node


def service_shrinks(stage: Stage, view: View, node: str) -> None:
    stage.scale("chat", 1)
    view.tell("`chat` is scaled down to one replica")
    loans = stage.wait_lent(2, seconds=60)
    view.tell(f"Slurm owns {' and '.join(sorted(loan['spec']['nodeName'] for loan in loans))} again")


def every_job_completes(stage: Stage, view: View, jobs: dict[str, int]) -> None:
    for name, job_id in jobs.items():
        wait_for(f"the end of {name}", lambda job_id=job_id: _states(stage, job_id) == {"COMPLETED"}, 120)  # type: ignore[misc]
    counts = restarts_in(stage.log_of("train"))
    _check(len(counts) == 2 and counts[0] == 0, f"the training started at {counts}")
    _check(counts[1] > 0, "the training began anew instead of going on")
    _check(f"done at {TRAINING_STEPS}" in stage.log_of("train"), "the training did not get to its end")
    view.tell(f"every job is COMPLETED; the training went on at step {counts[1]} of {TRAINING_STEPS}, not at 0")


def nodes_come_home(stage: Stage, view: View) -> None:
    stage.wait_home(60)
    bad = [one["metadata"]["name"] for one in stage.loans(open_only=False) if not condition(one, "Clean")]
    _check(not bad, f"loans {bad} did not end clean")
    view.tell("Slurm has no more work, and all nodes are home")


def _states(stage: Stage, job_id: int) -> set[str]:
    """States of a job; of an array those of all its tasks."""
    words = stage.lab.slurm("sacct", "--noheader", "--allocations", "--parsable2", "--format=State", f"--jobs={job_id}")
    return set(words.split())


def _age(stage: Stage, job_id: int) -> float:
    job: dict[str, Any] = stage.job(job_id)
    clock = float(stage.lab.slurm("date", "+%s"))
    return clock - float(job["start_time"]["number"])


def _recalled(stage: Stage) -> list[dict[str, Any]]:
    return [loan for loan in stage.loans() if reason(loan, "Recalled") == "Claimed"]


def _check(so: bool, otherwise: str) -> None:
    if not so:
        raise Differs(otherwise)

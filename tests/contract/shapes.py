"""Ways to ask Slurm for nodes, and what decisions have to understand by each; for nodes of 2 GPUs and 2 CPUs."""

from __future__ import annotations

from typing import Any, NamedTuple


class Shape(NamedTuple):
    """What a user writes, and the fields of the SlurmJob that comes of it."""

    name: str
    sbatch: tuple[str, ...]
    expected: dict[str, Any]


SHAPES = (
    Shape("plain", (), {"gpus": 0, "node_count": 1, "cpus": 1, "requeueable": True, "qos": "normal", "restarts": 0}),
    Shape("gres", ("--gres=gpu:2",), {"gpus": 2, "node_count": 1}),
    Shape("gres-on-nodes", ("--gres=gpu:1", "-N2"), {"gpus": 2, "node_count": 2, "cpus": 2}),
    Shape("gpus", ("--gpus=4",), {"gpus": 4}),  # on how many nodes is up to those that Slurm knows
    Shape("gpus-per-node", ("--gpus-per-node=2", "-N2"), {"gpus": 4, "node_count": 2}),
    Shape("gpus-per-task", ("--gpus-per-task=1", "-n2"), {"gpus": 2, "node_count": 1, "cpus": 2}),
    Shape(
        "gpus-per-task-on-nodes",
        ("--gpus-per-task=1", "-N2", "--ntasks-per-node=2"),
        {"gpus": 4, "node_count": 2, "cpus": 4},
    ),
    Shape("tasks", ("-n2",), {"gpus": 0, "node_count": 1, "cpus": 2, "time_limit_seconds": None}),
    Shape("tasks-over-nodes", ("-n4", "-c1"), {"cpus": 4}),
    Shape("cpus-per-task", ("-n2", "-c2", "-N2"), {"node_count": 2, "cpus": 4}),
    Shape("mem", ("--mem=500", "-N2"), {"node_count": 2, "memory_mib_per_node": 500}),
    Shape("mem-per-cpu", ("--mem-per-cpu=100", "-n2"), {"memory_mib_per_node": 200}),
    Shape("mem-per-gpu", ("--mem-per-gpu=100", "--gpus=2"), {"gpus": 2, "memory_mib_per_node": 200}),
    Shape("exclusive", ("--exclusive", "-N1"), {"node_count": 1, "exclusive": True}),
    Shape("constraint", ("--constraint=lent",), {"constraints": "lent", "exclusive": False}),
    Shape("constraints", ("--constraint=lent&lent",), {"constraints": "lent&lent"}),
    Shape("partitions", ("--partition=lent,urgent",), {"partitions": ("lent", "urgent")}),
    Shape("comment", ("--comment=mine tidegate:signal=USR1",), {"comment": "mine tidegate:signal=USR1"}),
    Shape("no-requeue", ("--no-requeue",), {"requeueable": False}),
    Shape("named-nodes", ("--nodelist=node[0-1]",), {"required_nodes": ("node0", "node1"), "node_count": 2}),
    Shape("array", ("--array=1-9%2", "--gres=gpu:1"), {"array_tasks": 9, "gpus": 1, "node_count": 1}),
    Shape("sparse-array", ("--array=" + ",".join(map(str, range(1, 200, 3))),), {"array_tasks": 67}),
    Shape("held", ("--hold",), {"reason": "JobHeldUser"}),
    Shape("limited", ("--time=10",), {"start_time": None, "end_time": None, "time_limit_seconds": 600}),
)
"""All of them wait on nodes that are drained."""


def difference(shape: Shape, job: Any) -> dict[str, tuple[Any, Any]]:
    """Fields of the job that are not as expected: expected and actual."""
    actual = {field: getattr(job, field) for field in shape.expected}
    return {field: (shape.expected[field], actual[field]) for field in actual if actual[field] != shape.expected[field]}

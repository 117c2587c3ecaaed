"""What pools and Slurm clusters say of themselves."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sharing.build import (
    RECALLED,
    VACATED,
    ago,
    claimed_node,
    cluster,
    decided,
    job,
    lent_node,
    loan,
    names,
    node,
    one,
    only,
    pool,
    slurm,
    slurmd,
)
from tidegate.api import BatchPoolStatus, NodeCounts, SlurmCluster
from tidegate.sharing.commands import CreateLoan, WriteClusterStatus, WritePoolStatus
from tidegate.sharing.snapshot import SlurmState


def status(*things: Any, name: str = "batch") -> BatchPoolStatus:
    (write,) = [c for c in only(decided(*things), WritePoolStatus) if c.pool.metadata.name == name]
    return write.status


def ready(*things: Any) -> tuple[str, str, str]:
    condition = status(*things).condition("Ready")
    assert condition is not None
    return condition.status, condition.reason, condition.message


@pytest.mark.parametrize(
    ("things", "reason", "sentence"),
    [
        (
            [node(), pool(slurmClusterName="nosuch")],
            "SlurmClusterNotFound",
            "SlurmCluster nosuch does not exist; set slurmClusterName to one of slurm",
        ),
        ([node(), slurm(error="no route to host", reason="Unreachable")], "SlurmNotReady", "no route to host"),
        ([node(), slurm(observed=None)], "SlurmNotReady", "SlurmCluster slurm has not answered lately"),
        ([node(), slurm(observed=ago(26))], "SlurmNotReady", "SlurmCluster slurm has not answered lately"),
        (
            [node(), slurm(partitions=["gpu", "cpu"])],
            "PartitionNotFound",
            "Slurm slurm has no partition lent; it has cpu, gpu",
        ),
        (
            [],
            "NoNodes",
            "no node has the labels tidegate.dev/lendable=true; label nodes or change nodeSelector",
        ),
        (
            [node(gpus=0)],
            "NoGpus",
            "no node of the pool has any of nvidia.com/gpu; check the device plugin or gpuResourceNames",
        ),
    ],
)
def test_what_keeps_a_pool_from_working_is_said_in_one_sentence(things: list[Any], reason: str, sentence: str) -> None:
    assert ready(*things) == ("False", reason, sentence)


def test_a_pool_whose_template_makes_no_pod_says_so_and_lends_nothing() -> None:
    things, problems = (
        [node(), slurm(job())],
        {"batch": "BatchPool batch: spec.slurmd.template.spec must be an object."},
    )
    assert only(decided(*things), CreateLoan)
    commands = decided(*things, template_problems=problems)
    (write,) = only(commands, WritePoolStatus)
    condition = write.status.condition("Ready")
    assert condition is not None
    assert (condition.status, condition.reason, condition.message) == ("False", "TemplateUnusable", problems["batch"])
    assert only(commands, CreateLoan) == []


def test_a_pool_that_works_and_one_that_people_stopped_are_ready() -> None:
    assert ready(node()) == ("True", "Working", "")
    assert ready(node(), pool(stopPolicy="Hold")) == ("True", "Stopped", "stopPolicy is Hold")


def test_nodes_are_counted_by_who_has_them() -> None:
    things = [
        node("free-1"),
        node("free-2", unschedulable=True),
        node("plain", gpus=0),
        claimed_node("claimed"),
        lent_node("joining"),
        loan("joining", done=VACATED),
        lent_node("lent"),
        loan("lent"),
        slurmd("lent-1", on="lent"),
        lent_node("back"),
        loan("back", done=RECALLED),
    ]
    assert status(*things).nodes == NodeCounts(kubernetes=2, joining=1, lent=1, returning=1, claimed=1)


def test_demand_is_told_and_unknown_demand_is_none() -> None:
    assert status(node("a"), node("b"), slurm(job(1), job(2))).demand_nodes == 2
    assert status(node("a"), slurm(job(1), error="silent")).demand_nodes == 0


def test_of_two_pools_with_one_node_the_younger_says_so() -> None:
    old, young = pool("old", created=ago(9)), pool("young", created=ago(5))
    exclusive = status(node(), old, young, name="young").condition("Exclusive")
    assert exclusive is not None
    assert (exclusive.status, exclusive.reason) == ("False", "NodesOfOtherPool")
    assert exclusive.message == "older pools have these nodes: gpu-1 (old); make the nodeSelectors differ"
    fine = status(node(), old, young, name="old").condition("Exclusive")
    assert fine is not None
    assert fine.status == "True"


def test_a_status_that_is_as_it_should_read_is_not_written_again() -> None:
    said = pool().model_copy(update={"status": status(node())})
    assert "WritePoolStatus" not in names(decided(node(), said))


def cluster_says(state: Any, **more: Any) -> Any:
    return one(decided(state, **more), WriteClusterStatus).status


def test_a_slurm_that_answers_is_ready_and_says_what_it_can_do() -> None:
    said = cluster_says(slurm(capabilities=["requeue", "delete"]))
    assert (said.release, said.data_parser, said.capabilities) == ("24.11.5", "v0.0.41", ("delete", "requeue"))
    assert said.condition("Ready").message == "Slurm 24.11.5 answers by v0.0.41"


def test_a_slurm_that_fails_says_why() -> None:
    condition = cluster_says(slurm(error="the token expired", reason="TokenExpired")).condition("Ready")
    assert (condition.status, condition.reason, condition.message) == ("False", "TokenExpired", "the token expired")


def test_a_slurm_that_was_never_asked_is_not_called_ready() -> None:
    assert "WriteClusterStatus" not in names(decided(slurm(observed=None)))


def test_what_was_known_of_a_silent_slurm_is_kept() -> None:
    known: SlurmCluster = cluster().model_copy(update={"status": cluster_says(slurm())})
    silent = SlurmState(error="no answer", reason="Unreachable")
    said = one(decided(known, silent), WriteClusterStatus).status
    assert (said.release, said.capabilities) == ("24.11.5", ("requeue",))

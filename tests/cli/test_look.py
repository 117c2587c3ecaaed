"""`tidegate status` and `tidegate explain` on a cluster with a node in every state."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from tests.cli.commands import Commands
from tests.sharing.build import LENT, NOW, RECALLED, VACATED, ago, loan, pool
from tests.sharing.test_explain import waiting, working
from tidegate.api import ClaimReference, LoanReturn, TouchedJob
from tidegate.cluster.errors import Unreachable, refused
from tidegate.cluster.kinds import BATCH_POOLS, NODE_LOANS, NODES, SLURM_CLUSTERS

STATUS = """\
Pools

  Pool    Ready   Kubernetes   Joining   Slurm   Returning   Claim   Demand   Why
 ────────────────────────────────────────────────────────────────────────────────────────────
  batch   True             2         1       1           1       1        0   Working: words

Nodes of pool batch (Slurm slurm, partition lent)

  Node    Owner           GPUs   Loan      Since   Why or next
 ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
  gpu-1   Kubernetes         8                     NoDemand: no pending job of partition lent could use one more node
  gpu-2   Slurm              8   gpu-2-1     50m   pool batch lends it to partition lent of Slurm, where it is node
                                                   gpu-2
  gpu-3   joining            8   gpu-3-1     50m   slurmd starts and registers with Slurm (Joined): starting slurmd
  gpu-4   returning          8   gpu-4-1     12s   job 17 was signalled and saves its work
  gpu-5   claim team/c1      8                     waiting for gpu-4 to come back from Slurm
  gpu-6   Kubernetes         8                     Cordoned: node gpu-6 is cordoned; `kubectl uncordon gpu-6` allows
                                                   lending

Waiting claims

  Claim     Pool    Priority   Held   Why
 ──────────────────────────────────────────────────────────────────────────────────────────
  team/c1   batch          0    1/2   Recalling: waiting for gpu-4 to come back from Slurm
"""

NODE = """\
node gpu-4
Owner         returning
Since         2026-11-21T11:59:48Z (12s ago)
Why           Claimed: claim team/c1 needs the node
Next          its jobs end, save their work or are requeued (Drained): job 17 was signalled and saves its work
Blocked by    job 17 was signalled and saves its work

node          gpu-4
pool          batch
loan          gpu-4-1
GPUs          8 nvidia.com/gpu
priority      -100
for claim     team/c1
recall class  quick
deadline      2026-11-21T12:00:48Z (in 48s)
Fenced        2026-11-21T11:59:48Z after 49m48s, Done
Vacated       2026-11-21T11:59:48Z after 0.0s, Done
Joined        2026-11-21T11:59:48Z after 0.0s, Done
Lent          2026-11-21T11:59:48Z after 0.0s, Done
Recalled      2026-11-21T11:59:48Z after 0.0s, Done
job 17        Signalled 2026-11-21T11:59:48Z
"""


@pytest.fixture
def tidegate() -> Commands:
    """One node at home, lent, joining, returning, held and cordoned, and a claim that waits."""
    site = Commands()
    site.put(working(pool(), demand=0))
    site.node("gpu-1")
    site.node("gpu-2", fence="gpu-2-1")
    site.put(loan("gpu-2", done=LENT, since=ago(3000)))
    site.node("gpu-3", fence="gpu-3-1")
    site.put(loan("gpu-3", done=VACATED, since=ago(4), message="starting slurmd"))
    claim_uid = site.put(
        waiting(nodes=2, priority_class_name=None, message="waiting for gpu-4 to come back from Slurm")
    )
    claim = ClaimReference(namespace="team", name="c1", uid=claim_uid)
    back = LoanReturn(reason="Claimed", message="claim team/c1 needs the node", recall_class="quick", claim=claim)
    job = TouchedJob(job_id=17, action="Signalled", time=ago(12), requeueable=True, gpus=8)
    words = "job 17 was signalled and saves its work"
    deadline = NOW + timedelta(seconds=48)
    site.node("gpu-4", fence="gpu-4-1")
    site.put(loan("gpu-4", done=RECALLED, since=ago(12), back=back, message=words, deadline=deadline, jobs=(job,)))
    site.node("gpu-5", fence=f"claim_{claim_uid}")
    site.node("gpu-6", unschedulable=True)
    return site


def shown(output: str) -> str:
    """Without the spaces that fill lines up, and the empty line at the end."""
    return "\n".join(line.rstrip() for line in output.rstrip().splitlines()) + "\n"


def test_status_shows_pools_nodes_and_waiting_claims(tidegate: Commands) -> None:
    result = tidegate("status")
    assert (result.exit_code, result.stderr) == (0, "")
    assert shown(result.stdout) == STATUS


def test_status_for_programs_says_the_same(tidegate: Commands) -> None:
    content = json.loads(tidegate("status", "-o", "json").stdout)
    assert content["pools"] == [
        {
            "name": "batch",
            "ready": True,
            "reason": "Working",
            "message": "words",
            "demandNodes": 0,
            "nodesByOwner": {"Kubernetes": 2, "joining": 1, "Slurm": 1, "returning": 1, "claim": 1},
        }
    ]
    assert [(node["name"], node["owner"], node["loan"]) for node in content["nodes"]] == [
        ("gpu-1", "Kubernetes", None),
        ("gpu-2", "Slurm", "gpu-2-1"),
        ("gpu-3", "joining", "gpu-3-1"),
        ("gpu-4", "returning", "gpu-4-1"),
        ("gpu-5", "claim team/c1", None),
        ("gpu-6", "Kubernetes", None),
    ]
    assert content["nodes"][3]["since"] == "2026-11-21T11:59:48Z"
    assert content["claims"] == [
        {
            "namespace": "team",
            "name": "c1",
            "pool": "batch",
            "priority": 0,
            "heldNodes": 1,
            "nodes": 2,
            "reason": "Recalling",
            "message": "waiting for gpu-4 to come back from Slurm",
        }
    ]


def test_status_shows_loans_whose_pool_or_node_is_gone() -> None:
    site = Commands()
    site.put(loan("gpu-1", pool_name="old", done=RECALLED))
    output = site("status").stdout
    assert "Nodes of pool old (this pool does not exist)" in output
    assert "gpu-1-1" in output


def test_status_of_a_cluster_without_pools_says_so() -> None:
    assert Commands()("status").stdout == "There is no BatchPool yet.\n"


def test_words_in_brackets_are_shown_as_they_are() -> None:
    site = Commands()
    site.put(working())
    site.node("gpu-1", fence="gpu-1-1")
    site.put(loan(message="drained: [bold]fan[/bold] :warning:"))
    assert "[bold]fan[/bold] :warning:" in site("status").stdout
    assert "[bold]fan[/bold] :warning:" in site("explain", "node", "gpu-1").stdout


def test_explain_answers_first_and_then_gives_facts(tidegate: Commands) -> None:
    result = tidegate("explain", "node", "gpu-4")
    assert (result.exit_code, result.stderr) == (0, "")
    assert shown(result.stdout) == NODE


def test_explain_for_programs_says_the_same(tidegate: Commands) -> None:
    content = json.loads(tidegate("explain", "node", "gpu-6", "--output", "json").stdout)
    assert content == {
        "subject": "node gpu-6",
        "owner": "Kubernetes",
        "since": None,
        "because": "no GPU pod is on it, and it is not lent",
        "nextStep": "it can be lent when that is over",
        "blockedBy": "Cordoned: node gpu-6 is cordoned; `kubectl uncordon gpu-6` allows lending",
        "facts": {"pool": "batch", "GPUs": "8 nvidia.com/gpu", "loans": "0 within 3600 s, flapBudget allows 6"},
    }


@pytest.mark.parametrize(
    "args",
    [("loan", "gpu-2-1"), ("pool", "batch"), ("claim", "c1"), ("claim", "team/c1"), ("claim", "c1", "-n", "team")],
)
def test_explain_knows_loans_pools_and_claims(tidegate: Commands, args: tuple[str, ...]) -> None:
    result = tidegate("explain", *args)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{args[0]} ")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("node", "x"), "There is no node x; those there are: gpu-1, gpu-2, gpu-3, gpu-4, gpu-5, gpu-6.\n"),
        (("claim", "c1", "-n", "lab"), "There is no claim lab/c1; those there are: team/c1.\n"),
    ],
)
def test_an_unknown_name_is_one_sentence_and_exit_code_1(tidegate: Commands, args: tuple[str, ...], words: str) -> None:
    result = tidegate("explain", *args)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", words)


@pytest.mark.parametrize("command", [("status",), ("explain", "node", "gpu-1")])
def test_without_crds_one_sentence_says_how_to_install_them(tidegate: Commands, command: tuple[str, ...]) -> None:
    missing = refused(404, "NotFound", "the server could not find the requested resource", "list", SLURM_CLUSTERS)
    tidegate.kube.fail_next("list", SLURM_CLUSTERS, missing)
    result = tidegate(*command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("The cluster does not know tidegate.dev/v1alpha1: install the CRDs of release ")
    assert result.stderr.count("\n") == 1


def test_a_cluster_that_does_not_answer_is_one_sentence(tidegate: Commands) -> None:
    tidegate.kube.fail_next("list", NODES, Unreachable(0, "Cannot list nodes: the API server does not answer."))
    result = tidegate("status")
    assert (result.exit_code, result.stderr) == (1, "Cannot list nodes: the API server does not answer.\n")


def test_a_missing_right_names_the_verb_and_the_resource(tidegate: Commands) -> None:
    tidegate.kube.fail_next("list", NODE_LOANS, refused(403, "Forbidden", "ada may not", "list", NODE_LOANS))
    result = tidegate("status")
    assert result.exit_code == 1
    assert "the verb `list` on `nodeloans.tidegate.dev`" in result.stderr


def test_a_bug_keeps_its_stack_trace(tidegate: Commands) -> None:
    tidegate.kube.fail_next("list", BATCH_POOLS, KeyError("metadata"))
    assert isinstance(tidegate("status").exception, KeyError)


def test_the_kubeconfig_of_the_option_is_used(tidegate: Commands) -> None:
    tidegate("status", "--kubeconfig", "some/file")
    tidegate("explain", "node", "gpu-1")
    assert tidegate.asked == [Path("some/file"), None]


@pytest.mark.parametrize(
    "args",
    [
        ("explain", "nodes", "x"),
        ("explain", "node"),
        ("status", "-o", "yaml"),
        ("return-all", "--timeout-seconds", "0"),
        ("lend",),
    ],
)
def test_wrong_usage_is_exit_code_2(tidegate: Commands, args: tuple[str, ...]) -> None:
    result = tidegate(*args)
    assert result.exit_code == 2
    assert "Usage: tidegate" in result.stderr

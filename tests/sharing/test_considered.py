"""What a claim is told about the nodes that it does not have yet."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.sharing.build import (
    NOW,
    RECALLED,
    ago,
    back_for,
    claim,
    claimed_node,
    decided,
    index,
    job,
    lent_node,
    loan,
    node,
    one,
    only,
    pod,
    pool,
    slurm,
    slurm_node,
    slurmd,
)
from tidegate.api import CapacityClaim
from tidegate.sharing.commands import RecallLoan, WriteClaimStatus
from tidegate.sharing.considered import consider
from tidegate.sharing.lead_time import lead

WISH = claim("c1", nodes=1, priority_class_name="high")


def on_loan(*jobs: Any, **terms: Any) -> list[Any]:
    return [lent_node(), loan(since=ago(30), **terms), slurmd(), slurm(slurm_node("gpu-1"), *jobs)]


def answer(*things: Any, wish: CapacityClaim = WISH) -> tuple[str, str]:
    """What the claim is told about gpu-1."""
    world = [*things] if any(hasattr(thing, "observed") for thing in things) else [*things, slurm()]
    nodes, _ = consider(wish, index(pool(), wish, *world))
    (found,) = [one for one in nodes if one.node_name == "gpu-1"]
    return found.answer, found.message


@pytest.mark.parametrize(
    ("things", "word", "words"),
    [
        (on_loan(), "Recallable", "its recall costs no work: nothing runs there"),
        (
            on_loan(job(7, on="gpu-1", gpus=8, started=ago(100), restarts=2)),
            "Recallable",
            "its recall ends 1 job, which had 2 restarts before, and loses at most 800 GPU-seconds",
        ),
        (on_loan(job(7, on="gpu-1", requeueable=False)), "Protected", "protected: job 7 may not be requeued"),
        (on_loan(priority=1000), "AsImportant", "its loan has priority 1000, which is not below 1000"),
        ([lent_node(), loan(done=RECALLED, back=back_for("c1"))], "Coming", "loan gpu-1-1 returns for it"),
        ([lent_node(), loan(done=RECALLED, back=back_for(""))], "Coming", "returns for nobody yet"),
        (
            [lent_node(), loan(done=RECALLED, back=back_for("c2")), claim("c2")],
            "Promised",
            "it returns for claim team/c2",
        ),
        ([claimed_node(claim="c2"), claim("c2")], "Held", "held for claim team/c2, which has priority 1000"),
        ([node(), pod(on="gpu-1")], "InUse", "pod team/web-1 holds GPUs"),
        ([node(unschedulable=True)], "Cordoned", "node gpu-1 is cordoned"),
        ([node()], "Free", "nobody uses it"),
    ],
)
def test_each_node_has_one_answer(things: list[Any], word: str, words: str) -> None:
    found, message = answer(*things)
    assert found == word
    assert words in message


def test_an_automatic_claim_hears_which_nodes_its_pods_may_not_use() -> None:
    wish = claim("auto", holder="web", automatic=True, priority_class_name="high")
    picky = pod(owner="web", node_selector={"gpu": "h100"})
    assert answer(*on_loan(), picky, wish=wish)[0] == "DoesNotFit"


def test_it_is_expected_when_the_slowest_node_that_it_needs_is_there() -> None:
    back = loan(done=RECALLED, back=back_for("c1"), since=ago(10))
    lent = [lent_node("gpu-2"), loan("gpu-2", since=ago(30)), slurmd("gpu-2-1", on="gpu-2")]
    records = slurm(slurm_node("gpu-1"), slurm_node("gpu-2"))
    world = index(pool(), lent_node(), back, *lent, records, WISH)
    takes = lead(pool(), "quick", world)
    assert consider(WISH, world)[1] == ago(10) + takes
    two = claim("c1", nodes=2, priority_class_name="high")
    assert consider(two, world)[1] == NOW + takes
    assert consider(claim("c1", nodes=3, priority_class_name="high"), world)[1] is None


def test_a_protected_node_is_expected_when_its_protection_ends() -> None:
    terms = {"protection": {"minimumRunSeconds": 300}}
    world = index(pool(recall=terms), *on_loan(job(7, on="gpu-1", started=ago(100))), WISH)
    assert consider(WISH, world)[1] == NOW + timedelta(seconds=200) + lead(pool(), "quick", world)


def test_the_nearest_nodes_are_named_and_not_more_than_people_read() -> None:
    lent = [thing for n in range(20) for thing in (lent_node(f"gpu-{n:02}"), loan(f"gpu-{n:02}", priority=1000))]
    world = index(pool(), *lent, node("zz-free"), slurm(), WISH)
    nodes, _ = consider(WISH, world)
    assert len(nodes) == 8
    assert nodes[0].answer == "Free"


def test_it_is_written_with_the_news_and_then_left_alone_until_there_is_more() -> None:
    world = on_loan(job(7, on="gpu-1", requeueable=False))
    first = one(decided(*world, WISH), WriteClaimStatus).status
    assert [found.answer for found in first.considered] == ["Protected"]
    told = WISH.model_copy(update={"status": first})
    later = NOW + timedelta(seconds=5)
    later_world = [*world[:-1], slurm(slurm_node("gpu-1"), job(7, on="gpu-1", requeueable=False), observed=later)]
    assert only(decided(*later_world, told, now=later), WriteClaimStatus) == []
    served = one(decided(claimed_node(), told), WriteClaimStatus).status
    assert served.considered == ()
    assert served.expected is None


def test_the_recall_itself_says_what_it_costs() -> None:
    running = on_loan(job(7, on="gpu-1", gpus=8, started=ago(100)))
    back = one(decided(*running, WISH), RecallLoan).back
    assert back.message == ("claim team/c1 needs the node; its recall ends 1 job, and loses at most 800 GPU-seconds")

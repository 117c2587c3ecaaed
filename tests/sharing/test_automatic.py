"""For whom Tidegate makes claims by itself: the top controller, who opted in or out, and who waits after a failure."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sharing.build import (
    CLEAN,
    ago,
    back_for,
    claim,
    claimed_node,
    decided,
    lent_node,
    loan,
    node,
    one,
    only,
    pod,
    pool,
)
from tests.sharing.test_claims import AUTO, LENT_NODE, made, over, satisfied, two_lent
from tidegate.api.names import AUTOMATIC_LABEL
from tidegate.sharing.commands import FreeNode, ResizeClaim, TolerateFence
from tidegate.sharing.snapshot import Owner, Pod

DEPLOYMENT = Owner("apps/v1", "Deployment", "site", "uid-site")
REVISIONS = {"uid-web": (DEPLOYMENT,), "uid-api": (DEPLOYMENT,)}
"""ReplicaSets web and api are two revisions of one Deployment."""


# --- the top controller


def test_the_top_controller_is_the_holder_and_gives_the_claim_its_name() -> None:
    (command,) = made(*LENT_NODE, pod(owner="web"), owners=REVISIONS)
    assert command.name == "deployment-site-1"
    assert command.owner == DEPLOYMENT
    assert command.spec.holder_ref is not None
    assert (command.spec.holder_ref.kind, command.spec.holder_ref.uid) == ("Deployment", "uid-site")


def test_two_revisions_of_one_deployment_make_one_claim_as_large_as_both_need() -> None:
    pods = [pod("old", owner="web", gpus=8), pod("new", owner="api", gpus=8)]
    (command,) = made(*two_lent(), *pods, owners=REVISIONS)
    assert command.spec.nodes == 2


def test_no_claim_is_made_before_the_controllers_were_read() -> None:
    assert made(*LENT_NODE, pod(owner="web"), owners={}) == []
    assert [c.name for c in made(*LENT_NODE, pod("solo"), owners={})] == ["pod-solo-1"]


def test_a_claim_for_a_lower_controller_covers_its_pods_and_no_others() -> None:
    pods = [pod("old", owner="web", gpus=8), pod("new", owner="api", gpus=8)]
    (command,) = made(*two_lent(), *pods, AUTO, owners=REVISIONS)
    assert (command.name, command.spec.nodes) == ("deployment-site-1", 1)
    assert made(*two_lent(), pods[0], AUTO, owners=REVISIONS) == []


def test_each_pod_is_one_claims() -> None:
    upper = claim("upper", holder="site", automatic=True)
    pods = [pod("old", owner="web"), pod("new", owner="api")]
    commands = decided(*two_lent(), *pods, AUTO, upper, owners=REVISIONS)
    given = {(c.pod.name, c.claim_uid) for c in only(commands, TolerateFence)}
    assert given == {("old", "uid-auto"), ("new", "uid-upper")}


def test_of_two_claims_for_one_controller_the_older_has_the_pods_and_the_other_ends() -> None:
    old = claim("old", holder="web", automatic=True, created=ago(40))
    things = [*LENT_NODE, pod(owner="web"), old, AUTO]
    assert [c.claim_uid for c in only(decided(*things), TolerateFence)] == ["uid-old"]
    assert satisfied(*things, name="auto")[0] == "Served"


# --- who opted in or out


def labelled(said: str, **more: Any) -> Pod:
    return pod(owner="web", labels={AUTOMATIC_LABEL: said}, **more)


@pytest.mark.parametrize("default", ["OptOut", "OptIn"])
@pytest.mark.parametrize(
    ("of_pod", "of_namespace", "served"),
    [
        ("", "", None),
        ("true", "", True),
        ("false", "", False),
        ("", "true", True),
        ("", "false", False),
        ("true", "false", True),
        ("false", "true", False),
        ("perhaps", "true", True),
        ("perhaps", "perhaps", None),
    ],
)
def test_the_pod_says_it_first_then_its_namespace_then_the_pool(
    default: str, of_pod: str, of_namespace: str, served: bool | None
) -> None:
    namespaces = {"team": {AUTOMATIC_LABEL: of_namespace} if of_namespace else {}}
    terms = pool(claims={"automatic": default})
    found = made(*LENT_NODE, terms, labelled(of_pod) if of_pod else pod(owner="web"), namespaces=namespaces)
    assert bool(found) is ((default == "OptOut") if served is None else served)


def test_a_pool_that_is_opted_in_to_is_passed_over_for_one_that_is_not() -> None:
    shy = pool("shy", nodeSelector={"side": "a"}, claims={"automatic": "OptIn"}, created=ago(999_999))
    shown = pool("shown", nodeSelector={"side": "b"})
    nodes = [lent_node(f"gpu-{n}", labels={"side": side}) for n, side in enumerate("ab")]
    loans = [loan(f"gpu-{n}", pool_name=name) for n, name in enumerate(("shy", "shown"))]
    (command,) = made(shy, shown, *nodes, *loans, pod(owner="web"))
    assert command.spec.pool_name == "shown"


def test_only_pods_that_did_not_opt_out_count() -> None:
    pods = [pod("a", owner="web", gpus=8), pod("b", owner="web", gpus=8, labels={AUTOMATIC_LABEL: "false"})]
    assert [c.spec.nodes for c in made(*two_lent(), *pods)] == [1]
    assert [c.pod.name for c in only(decided(*two_lent(), *pods, AUTO), TolerateFence)] == ["a"]
    assert not only(decided(*two_lent(), *pods, AUTO), ResizeClaim)


def test_a_claim_all_of_whose_pods_opted_out_ends_and_lets_go() -> None:
    things = [*LENT_NODE, claimed_node("gpu-8", claim="auto"), labelled("false")]
    assert satisfied(*things, AUTO, name="auto")[0] == "Served"
    served = claim("auto", holder="web", automatic=True, status=over("Served"))
    assert one(decided(*things, served), FreeNode).claim_uid == "uid-auto"


def test_opting_out_does_not_keep_a_pod_from_a_claim_that_somebody_made() -> None:
    wanted = pod("mine", claim="c1", labels={AUTOMATIC_LABEL: "false"})
    assert [c.pod.name for c in only(decided(*LENT_NODE, wanted, claim()), TolerateFence)] == ["mine"]


# --- after a claim that ended without serving its pods


@pytest.mark.parametrize("reason", ["TimeToLive", "GangIncomplete", "Ended"])
def test_after_an_expired_claim_the_next_one_waits_until_it_is_forgotten(reason: str) -> None:
    expired = claim("web-1", holder="web", automatic=True, status=over(reason, 5, "Expired"))
    assert made(*LENT_NODE, pod(owner="web"), expired) == []
    assert len(made(*LENT_NODE, pod(owner="web"))) == 1, "once it is gone"


def test_a_claim_that_expires_in_this_moment_is_not_replaced_at_once() -> None:
    expiring = claim("web-1", holder="web", automatic=True, ttl_seconds=30, created=ago(30))
    assert made(*LENT_NODE, pod(owner="web"), expiring) == []


def test_the_wait_is_for_one_controller_and_not_for_others() -> None:
    expired = claim("web-1", holder="web", automatic=True, status=over("TimeToLive", 5, "Expired"))
    assert [c.name for c in made(*LENT_NODE, pod(owner="api"), expired)] == ["replicaset-api-1"]


# --- gangs


@pytest.mark.parametrize("kind", ["JobSet", "LeaderWorkerSet"])
def test_kinds_whose_pods_are_of_use_only_together_get_a_gang(kind: str) -> None:
    top = Owner("example.com/v1", kind, "train", "uid-train")
    pods = [pod("a", owner="web", gpus=8), pod("b", owner="api", gpus=8)]
    (command,) = made(*two_lent(), *pods, owners={"uid-web": (top,), "uid-api": (top,)})
    assert (command.name, command.spec.gang, command.spec.nodes) == (f"{kind.lower()}-train-1", True, 2)


def test_others_get_what_there_is() -> None:
    assert not made(*LENT_NODE, pod(owner="web"))[0].spec.gang


def test_a_gang_that_could_not_be_whole_gets_no_claim() -> None:
    top = {"uid-web": (Owner("example.com/v1", "JobSet", "train", "uid-train"),)}
    pods = [pod(f"w{number}", owner="web", gpus=8) for number in range(3)]
    assert made(*two_lent(), *pods, owners=top) == []
    (command,) = made(*two_lent(), node("free", unschedulable=False), *pods, owners=top)
    assert command.spec.nodes == 3, "free nodes are gathered, too"


def test_a_gang_for_which_open_nodes_will_do_gets_no_claim() -> None:
    top = {"uid-web": (Owner("example.com/v1", "JobSet", "train", "uid-train"),)}
    wish = pod(owner="web")
    assert made(*LENT_NODE, node("free"), wish, owners=top, waiting_since={wish.uid: ago(1)}) == []


def test_a_node_that_was_just_handed_to_the_claim_counts_once() -> None:
    handed = [claimed_node("gpu-1", claim="auto"), loan(done=CLEAN, back=back_for("auto"))]
    assert not only(decided(*handed, pod(owner="web"), AUTO), ResizeClaim)

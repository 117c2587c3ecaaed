"""What is made for InferenceServices, when it is made again, and what they say of themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.sharing.build import ago, claim, claimed_node, decided, node, only, pool
from tests.sharing.services import made, replica, service, warm_claim
from tidegate.api import CapacityClaimStatus, InferenceService
from tidegate.sharing.commands import ApplyPart, ForgetClaim, WriteServiceStatus
from tidegate.sharing.inference import PARTS, fingerprint, wanted_replicas
from tidegate.sharing.snapshot import Refusal


def applied(*things: Any, **more: Any) -> list[tuple[str, int]]:
    return [(command.kind, command.amount) for command in only(decided(*things, **more), ApplyPart)]


def condition(type_: str, *things: Any, **more: Any) -> tuple[str, str, str]:
    (write,) = only(decided(*things, **more), WriteServiceStatus)
    found = write.status.condition(type_)
    assert found is not None
    return found.status, found.reason, found.message


# --- what is made


@pytest.mark.parametrize(
    ("replicas", "least", "most", "wanted"),
    [(1, 1, 4, 1), (0, 1, 4, 1), (9, 1, 4, 4), (0, 0, 4, 0), (3, 1, 4, 3)],
)
def test_the_replicas_wanted_stay_within_the_bounds(replicas: int, least: int, most: int, wanted: int) -> None:
    assert wanted_replicas(service(replicas=replicas, minReplicas=least, maxReplicas=most)) == wanted


def test_a_new_service_gets_all_its_parts_the_replicas_last() -> None:
    assert applied(service(replicas=2)) == [(kind, 2) for kind in PARTS]
    assert PARTS[-1] == "Deployment"


def test_what_is_as_it_should_be_is_left_alone() -> None:
    assert applied(service(), parts=made(service())) == []


def test_a_part_that_is_gone_is_made_again() -> None:
    parts = made(service())
    del parts["Service team/chat"]
    assert applied(service(), parts=parts) == [("Service", 1)]


def test_a_part_that_somebody_changed_is_applied_again() -> None:
    parts = made(service())
    parts["Deployment team/chat"] = replace(parts["Deployment team/chat"], as_applied=False)
    assert applied(service(), parts=parts) == [("Deployment", 1)]


def test_a_part_of_an_older_service_of_that_name_does_not_count() -> None:
    old = {key: replace(part, owner_uid="uid-of-the-old") for key, part in made(service()).items()}
    assert len(applied(service(), parts=old)) == len(PARTS)


def test_another_number_of_replicas_changes_the_deployment_alone() -> None:
    assert applied(service(replicas=3), parts=made(service())) == [("Deployment", 3)]


def test_another_spec_changes_every_part() -> None:
    other = service(server={"image": "server:2"})
    assert len(applied(other, parts=made(service()))) == len(PARTS)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"replicas": 3}, True),
        ({"maxReplicas": 9}, True),
        ({"warmReplicas": 0, "poolName": "other"}, True),
        ({"warmReplicas": 1, "poolName": "batch"}, False),
        ({"drainSeconds": 60}, False),
        ({"template": {"spec": {"nodeSelector": {"a": "b"}}}}, False),
    ],
)
def test_only_what_replicas_are_made_from_is_in_the_fingerprint(change: dict[str, Any], same: bool) -> None:
    assert (fingerprint(service(**change), "i") == fingerprint(service(), "i")) == same


def test_another_gate_makes_other_replicas() -> None:
    assert fingerprint(service(), "tidegate:1") != fingerprint(service(), "tidegate:2")


def test_what_the_api_server_refuses_is_tried_again_after_a_minute_or_with_another_spec() -> None:
    one = service(generation=3)
    fresh = {"uid-chat": Refusal(3, "no such field", ago(10))}
    assert applied(one, refusals=fresh) == []
    assert condition("Progressing", one, refusals=fresh) == ("False", "Refused", "no such field")
    for old in (Refusal(3, "no such field", ago(61)), Refusal(2, "no such field", ago(10))):
        assert len(applied(one, refusals={"uid-chat": old})) == len(PARTS)


def test_a_service_that_is_deleted_gets_nothing_more() -> None:
    assert only(decided(service(deleted=ago(1))), ApplyPart) == []


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"service_problems": {"team/chat": "InferenceService team/chat: spec.template is bad."}}, "TemplateUnusable"),
        ({"gate_image": ""}, "NoGateImage"),
    ],
)
def test_a_service_of_which_no_replica_can_be_made_says_why(more: dict[str, Any], reason: str) -> None:
    assert applied(service(), **more) == []
    assert condition("Progressing", service(), **more)[:2] == ("False", reason)


# --- warm replicas


def warm(replicas: int = 1, count: int = 1, **spec: Any) -> InferenceService:
    return service(replicas=replicas, warmReplicas=count, poolName="batch", **spec)


TWO = [node(f"gpu-{n}", gpus=2) for n in range(4)]


def claims_of(one: InferenceService, *things: Any) -> list[tuple[str, int]]:
    parts = made(one, wanted_replicas(one))
    return applied(one, *things, parts=parts)


def test_room_for_warm_replicas_is_claimed() -> None:
    assert claims_of(warm(), *TWO, replica("a", on="gpu-0", warm=True)) == [("CapacityClaim", 1)]


def test_as_many_nodes_as_the_warm_replicas_take() -> None:
    eights = [node(f"gpu-{n}", gpus=8) for n in range(4)]
    assert claims_of(warm(count=6, maxReplicas=20), *eights, replica("a", on="gpu-0")) == [("CapacityClaim", 2)]


def test_the_claim_grows_with_the_replicas_that_wait() -> None:
    there = [replica("a", on="gpu-0", warm=True), replica("b", warm=True), warm_claim(nodes=1)]
    assert claims_of(warm(2), *TWO[:3], claimed_node("gpu-3", claim="chat-warm", gpus=2), *there) == [
        ("CapacityClaim", 2)
    ]


def test_a_warm_node_that_a_replica_uses_stays_in_the_claim_beside_the_next() -> None:
    there = [replica("a", on="gpu-0", warm=True), replica("b", on="gpu-3", warm=True), warm_claim(nodes=2)]
    nodes = [
        *TWO[:2],
        claimed_node("gpu-2", claim="chat-warm", gpus=2),
        claimed_node("gpu-3", claim="chat-warm", gpus=2),
    ]
    assert claims_of(warm(2), *nodes, *there) == []


def test_room_shrinks_as_the_replicas_come_near_their_limit() -> None:
    full = warm(2, count=2, maxReplicas=2)
    there = [replica("a", on="gpu-0", warm=True), replica("b", on="gpu-1", warm=True), warm_claim(nodes=2)]
    commands = decided(full, *TWO, *there, parts=made(full, 2))
    assert [command.claim.metadata.name for command in only(commands, ForgetClaim)] == ["chat-warm"]


def test_the_claim_goes_when_no_replica_is_to_be_warm() -> None:
    commands = decided(service(), *TWO, warm_claim(), parts=made(service()))
    assert len(only(commands, ForgetClaim)) == 1


def test_a_claim_for_another_pool_is_made_anew() -> None:
    commands = decided(warm(), *TWO, warm_claim(pool_name="old"), parts=made(warm()))
    assert len(only(commands, ForgetClaim)) == 1
    assert only(commands, ApplyPart) == []


def test_a_claim_of_that_name_that_somebody_else_made_is_left_alone() -> None:
    commands = decided(warm(), *TWO, claim("chat-warm", nodes=3), parts=made(warm()))
    assert only(commands, ApplyPart) == []
    assert only(commands, ForgetClaim) == []


def test_replicas_that_fit_on_no_node_of_the_pool_claim_nothing() -> None:
    assert claims_of(warm(gpusPerReplica=4), *TWO) == []


# --- how it stands


@pytest.mark.parametrize(
    ("replicas", "ready", "says"),
    [
        (2, 1, ("True", "Serving", "1 of 2 replicas are ready")),
        (1, 0, ("False", "NoReplicaReady", "none of 1 replicas is ready")),
        (0, 0, ("False", "ScaledToZero", "no replica is wanted")),
    ],
)
def test_a_service_is_available_as_long_as_a_replica_answers(
    replicas: int, ready: int, says: tuple[str, str, str]
) -> None:
    one = service(replicas=replicas, minReplicas=0)
    assert condition("Available", one, parts=made(one, replicas, ready=ready)) == says


def test_a_service_that_has_all_it_wants_does_not_progress() -> None:
    assert condition("Progressing", service(), parts=made(service())) == (
        "False",
        "AsWanted",
        "1 of 1 replicas are ready",
    )


def test_a_service_names_the_claim_that_its_replicas_wait_for() -> None:
    satisfied = CapacityClaimStatus().with_condition(
        ago(1), "Satisfied", False, "Recalling", "waiting for gpu-1 to come back from Slurm"
    )
    waits = claim("replicaset-chat-1", holder="rs-chat", automatic=True, status=satisfied)
    one = service(replicas=2)
    words = condition(
        "Progressing", one, pool(), *TWO, replica("a", on="gpu-0"), replica("b"), waits, parts=made(one, 2, ready=1)
    )
    assert words[:2] == ("True", "WaitingForNodes")
    assert words[2].startswith("1 of 2 replicas are ready; claim replicaset-chat-1: ")


@pytest.mark.parametrize(
    ("pod", "deployment", "says"),
    [
        (replace(replica("a", on="gpu-0"), waiting_reason="ErrImagePull: no such image"), {},
         ("ReplicaDoesNotStart", "0 of 1 replicas are ready; pod a: ErrImagePull: no such image")),
        (replace(replica("a"), scheduler_message="0/3 nodes are available"), {},
         ("Unschedulable", "0 of 1 replicas are ready; pod a: 0/3 nodes are available")),
        (replica("a", on="gpu-0"), {}, ("Starting", "0 of 1 replicas are ready; the others start")),
        (replica("a"), {"problem": "no quota"}, ("ReplicasRefused", "0 of 1 replicas are ready: no quota")),
    ],
)  # fmt: skip
def test_a_service_says_why_a_replica_is_not_ready(pod: Any, deployment: dict[str, Any], says: tuple[str, str]) -> None:
    one = service()
    words = condition("Progressing", one, *TWO, pod, parts=made(one, 1, ready=0, **deployment))
    assert words == ("True", *says)


@pytest.mark.parametrize(
    ("more", "reason"),
    [({"updated": 0}, "Replacing"), ({"settled": False}, "Replacing"), ({"existing": 2}, "Draining")],
)
def test_a_service_says_that_replicas_are_replaced_or_drained(more: dict[str, Any], reason: str) -> None:
    assert condition("Progressing", service(), parts=made(service(), **more))[:2] == ("True", reason)


def test_replicas_that_answer_their_last_requests_are_counted() -> None:
    ending = replica("b", on="gpu-1", deleting=True)
    words = condition("Progressing", service(), *TWO, replica("a", on="gpu-0"), ending, parts=made(service()))
    assert words == ("True", "Draining", "replicas that answer their last requests: 1")


def test_autoscalers_find_the_pods() -> None:
    (write,) = only(decided(service(replicas=2), parts=made(service(), 2)), WriteServiceStatus)
    assert (write.status.replicas, write.status.ready_replicas) == (2, 2)
    assert write.status.selector == "tidegate.dev/inference-service=chat"


def test_a_status_that_is_right_is_not_written_again() -> None:
    one = service()
    (write,) = only(decided(one, parts=made(one)), WriteServiceStatus)
    assert only(decided(one.model_copy(update={"status": write.status}), parts=made(one)), WriteServiceStatus) == []

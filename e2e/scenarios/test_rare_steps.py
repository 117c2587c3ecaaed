"""Steps that a trip of a few minutes cannot come to, taken alone, on a real API server and with the chart's rights."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from e2e.operator import NAMESPACE, Operator, wait_for
from e2e.stage import POOL, WORK, Stage
from tidegate.api import CapacityClaim, CapacityClaimSpec, HolderReference
from tidegate.cluster.client import KubeClient
from tidegate.controllers.appliers import apply
from tidegate.controllers.hands import Hands
from tidegate.sharing.commands import CreateClaim, ForgetClaim
from tidegate.sharing.snapshot import Owner


def no_slurm(name: str) -> NoReturn:
    """These steps ask no Slurm."""
    raise AssertionError(f"Slurm {name} was asked")


async def test_an_automatic_claim_is_made_once_and_forgotten_at_the_end(
    stage: Stage, operator: Operator, rights: Path
) -> None:
    operator.stop()
    stage.deployment("web", 0)
    (replicas,) = wait_for("a ReplicaSet", lambda: stage.kube.list("replicasets", WORK), 20)
    owner = Owner("apps/v1", "ReplicaSet", replicas["metadata"]["name"], replicas["metadata"]["uid"])
    holder = HolderReference(api_version=owner.api_version, kind=owner.kind, name=owner.name, uid=owner.uid)
    create = CreateClaim(WORK, "replicaset-web-1", owner, CapacityClaimSpec(pool_name=POOL, holder_ref=holder))
    kube = await KubeClient.connect(rights, "tidegate-operator/e2e")
    hands = Hands(
        kube,
        no_slurm,
        NAMESPACE,
        clock=lambda: datetime.now(UTC),
        remember=lambda kind, raw: None,
        applied=lambda kind, raw: None,
        refused=lambda service, words, moment: None,
        gate_image="",
        may_act=lambda: True,
    )
    try:
        assert await apply(create, hands)
        assert await apply(create, hands), "a second try, as after a lost answer, must find the claim and be content"
        (raw,) = stage.claims()
        assert await apply(ForgetClaim(CapacityClaim.model_validate(raw)), hands)
    finally:
        await kube.close()
    assert stage.claims() == []

"""A site of any size as a decision sees it, in the moment in which it has the most to decide.

The same number of nodes always gives the same world, down to the last name.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from tests.sharing.build import (
    LENT,
    NOW,
    RETURNED,
    VACATED,
    ago,
    claim,
    job,
    lent_node,
    loan,
    node,
    pod,
    pool,
    slurm,
    slurm_node,
    slurmd,
    snapshot,
)
from tidegate.api import NodeLoan
from tidegate.api.names import FENCE_TAINT, claim_fence
from tidegate.sharing.commands import (
    Command,
    HoldNode,
    RecallLoan,
    ResizeClaim,
    TolerateFence,
    WriteClaimStatus,
    WriteClusterStatus,
    WriteLoanStatus,
    WritePoolStatus,
)
from tidegate.sharing.snapshot import Snapshot, Taint, Toleration

GPUS = 8
JOBS_PER_NODE = 10
USERS = 200
LATER = NOW + timedelta(seconds=1)
"""The moment to look at the world again, once the first decision has been carried out."""


def big_world(nodes: int) -> Snapshot:
    """A world of that many nodes, with as many claims and ten times as many jobs.

    Half of the nodes are lent and nearly all of them busy, a third with jobs of two to sixteen nodes. Of the others a
    fifth is free. All claims are new and none has a node: half were made by people, for one or two nodes, half for the
    pending pods of a controller. Together they want more than there is to recall.
    """
    return _Builder(nodes, random.Random(nodes)).world()  # noqa: S311 - a world, not a secret


def all_busy(nodes: int, jobs: int) -> tuple[Snapshot, list[NodeLoan]]:
    """Lent nodes only, that many jobs running on them, each tenth on two to sixteen nodes; and their loans."""
    builder = _Builder(nodes, random.Random(jobs))  # noqa: S311 - a world, not a secret
    names = [f"gpu-{number:05}" for number in range(nodes)]
    for name in names:
        builder.lent(name)
    builder.share(names, jobs)
    world = snapshot(*builder.things, pool("batch"), slurm(*builder.records))
    return world, [one for one in world.loans if not one.is_over]


def after(world: Snapshot, commands: Iterable[Command]) -> Snapshot:
    """The world once the API server has recorded what was decided, and before anything has moved."""
    nodes = dict(world.nodes)
    pods = {one.key: one for one in world.pods}
    pools = {one.metadata.name: one for one in world.pools}
    clusters = dict(world.clusters)
    loans = {one.metadata.name: one for one in world.loans}
    claims = {one.metadata.uid: one for one in world.claims}
    for command in commands:
        match command:
            case HoldNode(held, uid):
                fence = Taint(FENCE_TAINT, claim_fence(uid), "NoSchedule")
                nodes[held.name] = replace(held, taints=(*held.taints, fence))
            case TolerateFence(waiting, uid):
                more = Toleration(FENCE_TAINT, "Equal", claim_fence(uid), "NoSchedule")
                pods[waiting.key] = replace(waiting, tolerations=(*waiting.tolerations, more))
            case RecallLoan(turned, back):
                spec = turned.spec.model_copy(update={"wanted": "Returned", "back": back})
                loans[turned.metadata.name] = loans[turned.metadata.name].model_copy(update={"spec": spec})
            case WriteLoanStatus(written, loan_status):
                loans[written.metadata.name] = written.model_copy(update={"status": loan_status})
            case ResizeClaim(sized, count):
                larger = sized.spec.model_copy(update={"nodes": count})
                claims[sized.metadata.uid] = claims[sized.metadata.uid].model_copy(update={"spec": larger})
            case WriteClaimStatus(told, claim_status):
                known = claims[told.metadata.uid]
                claims[told.metadata.uid] = known.model_copy(update={"status": claim_status})
            case WritePoolStatus(one, pool_status):
                pools[one.metadata.name] = one.model_copy(update={"status": pool_status})
            case WriteClusterStatus(cluster, cluster_status):
                clusters[cluster.metadata.name] = cluster.model_copy(update={"status": cluster_status})
            case _:
                pass
    return replace(
        world,
        nodes=nodes,
        pods=tuple(pods.values()),
        pools=tuple(pools.values()),
        clusters=clusters,
        loans=tuple(loans.values()),
        claims=tuple(claims.values()),
    )


@dataclass
class _Builder:
    size: int
    chance: random.Random
    things: list[Any] = field(default_factory=list)
    records: list[Any] = field(default_factory=list)
    jobs: int = 0

    def world(self) -> Snapshot:
        """Everything together."""
        names = [f"gpu-{number:05}" for number in range(self.size)]
        lent, home = names[: self.size // 2], names[self.size // 2 :]
        for name in lent:
            self.lent(name)
        self._running(lent)
        for number, name in enumerate(home):
            self._at_home(name, number)
        while self.jobs < JOBS_PER_NODE * self.size:
            self._pending_job()
        for number in range(self.size // 2):
            self._claimed_by_people(number)
            self._wanted_by_pods(number)
        terms = {"policy": "DemandDriven", "headroom": {"low": 0, "high": 1}, "maxJoining": 10}
        return snapshot(
            *self.things, pool("batch", lending=terms), slurm(*self.records), priority_classes={"higher": 2000}
        )

    def lent(self, name: str) -> None:
        """A node with its loan, an ended one, and slurmd; one in fifty is still joining."""
        joining = self.chance.random() < 0.02
        self.things += [
            lent_node(name, loan=f"{name}-2", labels=self._zone()),
            loan(name, done=RETURNED, since=ago(9000), created=ago(20_000), finalizers=()),
            loan(name, name=f"{name}-2", done=VACATED if joining else LENT, since=ago(self.chance.randint(1, 8000))),
            slurmd(f"{name}-2", on=name),
        ]
        if not joining:
            self.records.append(slurm_node(name, "MIXED", "DYNAMIC_NORM", loan=f"{name}-2", gpus_used=GPUS - 1))

    def share(self, names: list[str], jobs: int) -> None:
        """That many running jobs, each tenth on several nodes."""
        for number in range(jobs):
            wide = self.chance.choice((2, 2, 2, 4, 4, 8, 16)) if number % 10 == 0 else 1
            self._job(tuple(self.chance.sample(names, wide)), wide)

    def _zone(self) -> dict[str, str]:
        return {"zone": self.chance.choice("abc")}

    def _running(self, lent: list[str]) -> None:
        """A third of the nodes with jobs of several whole nodes, a tenth idle, one to eight jobs on each other one."""
        left = self.chance.sample(lent, len(lent))
        large = len(lent) // 3
        while large > 0:
            size = min(self.chance.choice((2, 2, 2, 4, 4, 8, 16)), len(left))
            self._job(tuple(left[:size]), GPUS * size)
            left, large = left[size:], large - size
        for name in left[len(lent) // 10 :]:
            for _ in range(self.chance.randint(1, 8)):
                self._job((name,), 1)

    def _job(self, on: tuple[str, ...], gpus: int) -> None:
        self.jobs += 1
        comments = ("", "", "", "tidegate:signal=USR1")
        self.records.append(
            job(
                self.jobs,
                on=on,
                gpus=gpus,
                started=ago(self.chance.randint(10, 80_000)),
                user=f"user-{self.chance.randrange(USERS)}",
                comment=self.chance.choice(comments),
                restarts=self.chance.choice((0, 0, 0, 1, 2)),
                requeueable=self.chance.random() > 0.05,
            )
        )

    def _pending_job(self) -> None:
        self.jobs += 1
        nodes, gpus = self.chance.choice((1, 1, 1, 1, 2, 4, 8)), self.chance.choice((1, 2, 4, 8))
        self.records.append(
            job(
                self.jobs,
                gpus=nodes * gpus,
                cpus=nodes * gpus * self.chance.choice((1, 4, 6)),
                memory_mib_per_node=gpus * self.chance.choice((4096, 16_384, 32_768)),
                node_count=nodes,
                user=f"user-{self.chance.randrange(USERS)}",
                priority=self.chance.randint(1, 100_000),
                reason=self.chance.choice(("Priority", "Priority", "Resources", "Dependency")),
                array_tasks=self.chance.choice((1, 1, 1, 20)),
            )
        )

    def _at_home(self, name: str, number: int) -> None:
        self.things.append(node(name, labels=self._zone(), unschedulable=number % 25 == 0))
        if number % 5:
            for half in range(2):
                self.things.append(pod(f"busy-{name}-{half}", on=name, gpus=GPUS // 2, owner=f"busy-{number // 8}"))

    def _claimed_by_people(self, number: int) -> None:
        self.things.append(
            claim(
                f"mine-{number}",
                nodes=self.chance.randint(1, 2),
                priority_class_name=self.chance.choice(("high", "high", "higher", "low")),
                created=ago(self.chance.randint(1, 600)),
            )
        )
        if number % 2:
            self.things.append(pod(f"mine-{number}", gpus=GPUS, claim=f"mine-{number}"))

    def _wanted_by_pods(self, number: int) -> None:
        owner = f"web-{number}"
        selector = self.chance.choice(({}, {}, self._zone()))
        for replica in range(self.chance.randint(1, 3)):
            gpus = self.chance.choice((4, GPUS))
            waiting = pod(f"{owner}-{replica}", gpus=gpus, owner=owner, node_selector=selector)
            self.things.append(replace(waiting, priority=1000, priority_class_name="high"))
        if number % 10:
            made = claim(f"replicaset-{owner}-1", holder=owner, automatic=True, created=ago(self.chance.randint(1, 9)))
            self.things.append(made)

"""A whole site in memory for tests of the real decide and the real appliers: two operators, Kubernetes and Slurm.

Nothing happens by itself: a test says who acts next, what an operator gets to see, and where it is killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, TypeVar

from tests.fakes.deployments import control
from tests.fakes.kube import FakeKube
from tests.fakes.slurm import FakeSlurm
from tidegate.api import BatchPool, CapacityClaim, InferenceService, NodeLoan
from tidegate.api.names import API_VERSION, CLAIM_LABEL, JOINING_REASON
from tidegate.cluster import views
from tidegate.cluster.client import Json
from tidegate.cluster.errors import AlreadyExists
from tidegate.cluster.errors import Unreachable as KubeUnreachable
from tidegate.cluster.kinds import (
    BATCH_POOLS,
    CAPACITY_CLAIMS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    INFERENCE_SERVICES,
    NAMESPACES,
    NODE_LOANS,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    REPLICA_SETS,
    SLURM_CLUSTERS,
    Kind,
)
from tidegate.controllers.appliers import apply
from tidegate.controllers.hands import Hands
from tidegate.controllers.owners import Owners
from tidegate.controllers.world import SELECTORS, WATCHED, World
from tidegate.sharing.commands import Command, RecallLoan
from tidegate.sharing.decide import decide
from tidegate.sharing.evictions import SAFE_TO_EVICT
from tidegate.sharing.idleness import DO_NOT_DISRUPT, track_idle
from tidegate.sharing.snapshot import Node, Pod, SlurmJob, SlurmState
from tidegate.sharing.waiting import is_stuck, track_told, track_waiting
from tidegate.slurm.errors import SlurmError
from tidegate.slurm.errors import Unreachable as SlurmUnreachable

NAMESPACE = "tidegate-system"
USERS = "team"
IMAGE = "tidegate:test"
GPU = "nvidia.com/gpu"
T = TypeVar("T")
URGENT = 1500
"""What jobs of the partition `urgent` are worth: more than pods of class inference, less than those of class urgent."""
START = datetime(2026, 1, 1, tzinfo=UTC)


class Killed(BaseException):
    """The operator's process is killed with -9 at this very line."""


class Recalled(NamedTuple):
    """A loan that an operator turned around, and the jobs that it had seen there."""

    command: RecallLoan
    jobs: tuple[SlurmJob, ...]
    time: datetime


class Fuse:
    """Ends the operator's n-th call to the outside with an exception, before or after the call has its effect."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.after = False
        self.kills = True

    def set(self, calls: int, after_effect: bool, kills: bool) -> None:
        """Let `calls` calls pass; the next one kills the process, or gets no answer."""
        self.left, self.after, self.kills = calls, after_effect, kills

    def wrap(self, target: Any, no_answer: Exception) -> Any:
        """The target, each of whose coroutine methods burns the fuse."""
        return _Burning(target, self, no_answer)

    async def burn(self, name: str, call: Callable[[], Awaitable[Any]], no_answer: Exception) -> Any:
        """Make the call, if it comes to that."""
        if self.left is None:
            return await call()
        self.left -= 1
        spent = self.left < 0
        if spent:
            self.left = None
        if not spent or self.after:
            answer = await call()
        if spent:
            raise Killed(name) if self.kills else no_answer
        return answer


class _Burning:
    def __init__(self, target: Any, fuse: Fuse, no_answer: Exception) -> None:
        self._target = target
        self._fuse = fuse
        self._no_answer = no_answer

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._fuse.burn(name, lambda: method(*args, **kwargs), self._no_answer)

        return call


class _Hand:
    """An operator's hand on the API server. What it does to pods of others that it must not is noted in the site."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def __getattr__(self, name: str) -> Any:
        return getattr(self._site.kube, name)

    async def delete(self, kind: Kind, name: str, namespace: str = "", **options: Any) -> None:
        pod = views.pod(await self._site.kube.get(kind, name, namespace)) if kind == PODS else None
        if pod and pod.loan is None:
            self._site.wrongs.append(f"pod {pod.key} of others was deleted, not evicted")
        await self._site.kube.delete(kind, name, namespace, **options)

    async def evict(self, name: str, namespace: str, uid: str, dry_run: bool = False) -> None:
        pod = views.pod(await self._site.kube.get(PODS, name, namespace))
        await self._site.kube.evict(name, namespace, uid, dry_run)
        if pod and not pod.deleting and not dry_run:
            self._site.judge_eviction(pod)


class Operator:
    """One operator process: its memory, which a kill empties, and how far it has read the watch."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.fuse = Fuse()
        self.start()

    def start(self) -> None:
        """A fresh process: everything is listed anew, nothing is remembered."""
        self.world = World(IMAGE)
        self.slurm = SlurmState()
        self.idle_since: dict[str, datetime] = {}
        self.waiting_since: dict[str, datetime] = {}
        self.told: frozenset[str] = frozenset()
        self.owners = Owners(self.hands.kube, self._site.now)
        self.position = self._site.kube.resource_version
        for kind in WATCHED:
            for raw in self._site.run(self._site.kube.list(kind, label_selector=SELECTORS.get(kind, ""))):
                self.world.put(kind, raw)

    def read_watch(self, count: int | None = None) -> None:
        """Take in the next events of the watch, all of them when no count is given."""
        changes = self._site.kube.changes_since(self.position)
        for change in changes[: len(changes) if count is None else count]:
            if change.kind in WATCHED:
                labels = change.object["metadata"].get("labels") or {}
                unlabelled = change.kind in SELECTORS and SELECTORS[change.kind] not in labels
                if change.type == "DELETED" or unlabelled:
                    self.world.drop(change.kind, change.object)
                else:
                    self.world.put(change.kind, change.object)
            self.position = str(change.resource_version)

    def read_again(self, count: int) -> None:
        """The watch broke and tells its last events a second time."""
        self.position = str(max(int(self.position) - count, 0))
        self.read_watch()

    def ask_slurm(self) -> None:
        """One observation, complete or failed."""
        try:
            self.slurm = self._site.run(self._site.slurm.observe())
        except SlurmError as error:
            self.slurm = SlurmState(
                observed=self.slurm.observed, error=str(error), reason=error.reason,
                nodes=self.slurm.nodes, jobs=self.slurm.jobs, partitions=self.slurm.partitions,
                capabilities=self.slurm.capabilities, reservations=self.slurm.reservations,
            )  # fmt: skip

    def decide(self) -> list[Command]:
        """What this operator would do now, on what it has seen."""
        slurm = {"site": self.slurm}
        now = self._site.now()
        self._site.run(self.owners.look(filter(is_stuck, self.world.all(PODS).values())))
        snapshot = self.world.snapshot(slurm, {})
        self.idle_since = track_idle(self.idle_since, snapshot, now)
        self.waiting_since = track_waiting(self.waiting_since, snapshot, now)
        seen = replace(snapshot, idle_since=self.idle_since, waiting_since=self.waiting_since, told=self.told)
        commands = decide(replace(seen, owners=self.owners.above), now)
        self.told = track_told(self.told, commands, snapshot)
        return commands

    def _seen_on(self, loan: NodeLoan) -> tuple[SlurmJob, ...]:
        """The jobs on the loan's node, without those of an earlier loan that an old answer still tells of."""
        jobs = self.slurm.jobs.values() if loan.status.is_true("Vacated") else ()
        return tuple(job for job in jobs if loan.spec.slurm_node_name in job.nodes)

    @property
    def hands(self) -> Hands:
        """What its appliers act with."""
        return Hands(
            kube=self.fuse.wrap(_Hand(self._site), KubeUnreachable(0, "the API server did not answer")),
            slurm=lambda _: self.fuse.wrap(self._site.slurm, SlurmUnreachable("Slurm did not answer")),
            namespace=NAMESPACE,
            clock=self._site.now,
            remember=self.world.put,
            applied=self.world.applied,
            refused=self.world.refused,
            gate_image=IMAGE,
            may_act=lambda: True,
        )

    def apply(self, command: Command) -> bool:
        """Apply one command, however old. Whether it had its effect."""
        return bool(self._site.run(apply(command, self.hands)))

    def round(self) -> list[Command]:
        """Decide and apply. Returns the commands that had their effect; a fuse that burns down starts a new process."""
        hands = self.hands
        done: list[Command] = []
        broken: set[str] = set()
        try:
            for command in self.decide():
                if command.key in broken:
                    continue
                if self._site.run(apply(command, hands)):
                    done.append(command)
                    if isinstance(command, RecallLoan) and not command.loan.is_wanted_back:
                        self._site.recalls.append(Recalled(command, self._seen_on(command.loan), self._site.now()))
                else:
                    broken.add(command.key)
        except Killed:
            self.start()
        self.fuse.left = None
        return done


class Site:
    """Kubernetes, Slurm and the clock, with what happens between them: slurmd pods that register and go."""

    def __init__(self, release: str = "26.05", nodes: int = 3, terms: Json | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._now = START
        self._owners: dict[str, Json] = {}
        self._views: dict[str, tuple[str, Any]] = {}
        self.foreign_drains: dict[str, str] = {}
        """Reasons of drains that somebody else set and that nobody lifted."""
        self.recalls: list[Recalled] = []
        """All loans that were turned around."""
        self.killed_under: list[str] = []
        """Nodes whose slurmd was ended while jobs ran there."""
        self.mute: set[str] = set()
        """Nodes whose slurmd runs but never registers."""
        self.wrongs: list[str] = []
        """What operators did to pods of others that nobody may do, each in one sentence."""
        self.replaces_pods = True
        """Whether the controllers of pods that were evicted make new ones."""
        self._replaced = 0
        self.kube = FakeKube(self.now)
        self.slurm = FakeSlurm(clock=self.now, release=release, partitions={"lent": ("lent",), "urgent": ("lent",)})
        self.make(NAMESPACES, {"metadata": {"name": USERS}})
        for name, value in (("low", 500), ("inference", 1000), ("urgent", 2000), ("tidegate-slurmd", 10**9)):
            self.make(PRIORITY_CLASSES, {"metadata": {"name": name}, "value": value})
        for number in range(nodes):
            self.run(self.kube.add_node(f"gpu-{number}", gpus=2, labels={"pool": "gpu"}, cpus=8, memory="64Gi"))
        spec = {
            "endpoint": "http://slurm:6820",
            "credentialsSecretName": "slurm",
            "controllerAddress": "slurm:6817",
            "priorities": [{"partition": "urgent", "priority": URGENT}],
        }
        self.make(SLURM_CLUSTERS, {"metadata": {"name": "site"}, "spec": spec})
        self.make(BATCH_POOLS, {"metadata": {"name": "batch"}, "spec": {**_TERMS, **(terms or {})}})

    def now(self) -> datetime:
        """The time of everybody."""
        return self._now

    def pass_time(self, seconds: float) -> None:
        """Let time pass; jobs end and start."""
        self._now += timedelta(seconds=seconds)
        self.slurm.tick()

    def run(self, coroutine: Any) -> Any:
        """The result of a coroutine; nothing in here really waits."""
        return self._loop.run_until_complete(coroutine)

    def close(self) -> None:
        """Close the event loop."""
        self._loop.close()

    def make(self, kind: Any, body: Json, namespace: str = "") -> Json:
        """Create an object as a person would."""
        created: Json = self.run(self.kube.create(kind, body, namespace))
        return created

    def turn(self) -> None:
        """One turn of Kubernetes' controllers, its scheduler and all kubelets, of slurmds and Slurm."""
        self.kube.collect_garbage()
        self.run(control(self.kube))
        self.replace_evicted()
        self.kube.count_budgets()
        self.kube.schedule()
        for name in self.nodes():
            self.kube.kubelet(name)
        self.sync_slurmds()
        self.slurm.tick()

    def replace_evicted(self) -> None:
        """The controllers of pods that were evicted make new ones."""
        for number, raw in enumerate(self.kube.evicted[self._replaced :], self._replaced):
            pod = views.pod(raw)
            owner = pod.labels.get("app", "") if pod else ""
            if pod and self.replaces_pods and owner in self._owners:
                claim = pod.labels.get(CLAIM_LABEL, "")
                self.gpu_pod(f"{owner}-new-{number}", owner, pod.gpus[GPU], pod.priority_class_name, claim=claim)
        self._replaced = len(self.kube.evicted)

    def judge_eviction(self, pod: Pod) -> None:
        """Note what is wrong with an eviction that was granted just now. Budgets are the API server's own business."""
        node = self.nodes()[pod.node]
        loans = {loan.metadata.name: loan for loan in self.loans()}
        loan = loans.get(node.fence or "")
        job = loan.spec.taken_for if loan else None
        if job is None:
            self.wrongs.append(f"pod {pod.key} was evicted from node {node.name}, which was taken for no job")
            return
        gang = [one for one in loans.values() if one.spec.taken_for and one.spec.taken_for.job_id == job.job_id]
        gang = [one for one in gang if not one.is_over and not one.is_wanted_back]
        nodes = self.nodes()
        fenced = sum(nodes[one.spec.node_name].fence == one.metadata.name for one in gang)
        if fenced < job.nodes:
            self.wrongs.append(f"pod {pod.key} was evicted while {fenced} of {job.nodes} nodes were fenced for the job")
        if pod.priority >= job.priority:
            self.wrongs.append(f"pod {pod.key} was evicted for a job that is no more important")
        if pod.annotations.get(DO_NOT_DISRUPT) == "true" or node.annotations.get(DO_NOT_DISRUPT) == "true":
            self.wrongs.append(f"pod {pod.key} was evicted although it is not to be disrupted")
        if pod.annotations.get(SAFE_TO_EVICT) == "false" or pod.owner.kind == "DaemonSet":
            self.wrongs.append(f"pod {pod.key} was evicted although it must stay")
        asked = self.slurm.jobs[job.job_id]
        if asked.state != "PENDING" and (asked.start is None or self.now() - asked.start > timedelta(seconds=60)):
            self.wrongs.append(f"pod {pod.key} was evicted for job {job.job_id}, which is {asked.state}")

    def sync_slurmds(self) -> None:
        """A running slurmd pod registers its node; one that is gone takes slurmd with it.

        One that is being ended does not register any more: its slurmd has the signal as soon as there is a kubelet.
        """
        running: dict[str, Pod] = {}
        for pod in self.pods():
            if pod.loan and pod.phase == "Running":
                running[self.loan(pod.loan).spec.slurm_node_name if self.has_loan(pod.loan) else pod.node] = pod
        for name in self.slurm.alive() - set(running):
            there = [job.job_id for job in self.slurm.jobs.values() if name in job.nodes and job.state == "RUNNING"]
            self.killed_under += [f"slurmd of {name} ended under jobs {there}"] if there else []
            self.slurm.slurmd_dies(name)
        for name, pod in running.items():
            extra = f"tidegate={pod.loan}"
            if name not in self.slurm.alive() | self.mute and not pod.deleting and not self.kube_is_dead(pod.node):
                drained = JOINING_REASON if f'State=DRAIN Reason="{JOINING_REASON}"' in self._offer(pod) else ""
                self.slurm.register(name, features=("lent",), extra=extra, drained=drained)

    def _offer(self, pod: Pod) -> str:
        """What the slurmd of the pod says of its node."""
        raw = self.run(self.kube.get(PODS, pod.name, pod.namespace))
        args: list[str] = raw["spec"]["containers"][0]["args"]
        return args[args.index("--conf") + 1]

    def drain_by_admin(self, name: str, reason: str) -> None:
        """An admin takes a node out of service in Slurm."""
        self.slurm.admin_drains(name, reason)
        self.foreign_drains[name] = reason

    def resumable(self) -> list[str]:
        """Nodes that an admin drained and may put back: not while slurmd ends there, which would end the jobs, too."""
        ending = {pod.node for pod in self.pods() if pod.loan and pod.deleting}
        return sorted(name for name in self.foreign_drains if name not in ending)

    def resume_by_admin(self, name: str) -> None:
        """The admin puts it back; a record without slurmd behind it is deleted, as admins do.

        A slurmd that is being ended is gone before the admin has typed the command. On a node without kubelet it is
        not, and there an admin resumes nothing.
        """
        for node in self.nodes():
            self.kube.kubelet(node)
        self.sync_slurmds()
        if name not in self.slurm.nodes or any(pod.deleting and pod.node == name for pod in self.pods() if pod.loan):
            return
        del self.foreign_drains[name]
        self.slurm.admin_resumes(name)
        if not self.slurm.nodes[name].alive:
            del self.slurm.nodes[name]

    def kube_is_dead(self, node: str) -> bool:
        """Whether the node's kubelet is silent."""
        return not self.nodes()[node].ready

    def nodes(self) -> dict[str, Node]:
        """The nodes as they are."""
        return {node.name: node for node in self._all(NODES, views.node)}

    def pods(self) -> list[Pod]:
        """The pods as they are, without the finished ones."""
        return [pod for pod in self._all(PODS, views.pod) if pod]

    def loans(self) -> list[NodeLoan]:
        """The loans as they are."""
        return self._all(NODE_LOANS, partial(views.resource, NodeLoan))

    def has_loan(self, name: str) -> bool:
        """Whether there is such a loan."""
        return any(loan.metadata.name == name for loan in self.loans())

    def loan(self, name: str) -> NodeLoan:
        """The loan of that name."""
        return next(loan for loan in self.loans() if loan.metadata.name == name)

    def claims(self) -> list[CapacityClaim]:
        """The claims as they are."""
        return self._all(CAPACITY_CLAIMS, partial(views.resource, CapacityClaim))

    def _all(self, kind: Kind, view: Callable[[Json], T]) -> list[T]:
        """All of a kind. Promises look at everything after each step, so each version of an object is read once."""
        found = []
        for raw in self.kube.peek(kind):
            meta = raw["metadata"]
            known = self._views.get(meta["uid"])
            if known is None or known[0] != meta["resourceVersion"]:
                known = self._views[meta["uid"]] = (meta["resourceVersion"], view(raw))
            found.append(known[1])
        return found

    def priority_of(self, claim: CapacityClaim) -> int:
        """What the claim's PriorityClass is worth."""
        name = claim.spec.priority_class_name
        return int(self.run(self.kube.get(PRIORITY_CLASSES, name))["value"]) if name else 0

    def pool(self) -> BatchPool:
        """The pool as it is."""
        return views.resource(BatchPool, self.run(self.kube.get(BATCH_POOLS, "batch")))

    def holder(self, name: str) -> Json:
        """A reference to the Deployment of that name, which is made when it is first asked for."""
        if name not in self._owners:
            self._owners[name] = self.make(DEPLOYMENTS, {"metadata": {"name": name}, "spec": {}}, USERS)
        reference = _controlled_by(self._owners[name])
        del reference["controller"]
        return reference

    def delete_holder(self, name: str) -> None:
        """The Deployment goes, and with it what it owns."""
        if self._owners.pop(name, None):
            self._owners = {one: raw for one, raw in self._owners.items() if not one.startswith(f"{name}-")}
            self.run(self.kube.delete(DEPLOYMENTS, name, USERS))

    def gpu_pod(
        self,
        name: str,
        owner: str,
        gpus: int = 2,
        priority_class: str = "inference",
        revision: int = 1,
        claim: str = "",
        annotations: Mapping[str, str] | None = None,
        kind: str = "ReplicaSet",
        **spec: Any,
    ) -> Json:
        """A pod of a Deployment that asks for GPUs; each revision has a ReplicaSet of its own.

        With `claim` it is for that explicit claim. It may say that its controller is of another kind.
        """
        replicas = f"{owner}-{revision}"
        self.holder(owner)
        if replicas not in self._owners:
            # Like the hash in a real one's name: that of a Deployment which is gone may still be there.
            name_of_set = f"{replicas}-{self._owners[owner]['metadata']['uid']}"
            metadata = {"name": name_of_set, "ownerReferences": [_controlled_by(self._owners[owner])]}
            self._owners[replicas] = self.make(REPLICA_SETS, {"metadata": metadata, "spec": {}}, USERS)
        reference = {**_controlled_by(self._owners[replicas]), "kind": kind}
        container = {"name": "main", "resources": {"requests": {GPU: str(gpus)}, "limits": {GPU: str(gpus)}}}
        return self.make(
            PODS,
            {
                "metadata": {
                    "name": name,
                    "ownerReferences": [reference],
                    "labels": {"app": owner, **({CLAIM_LABEL: claim} if claim else {})},
                    "annotations": dict(annotations or {}),
                },
                "spec": {"priorityClassName": priority_class, "containers": [container], **spec},
            },
            USERS,
        )

    def budget(self, owner: str, **spec: Any) -> None:
        """Make or change the PodDisruptionBudget over the pods of a controller, and let it be counted."""
        body = {"metadata": {"name": owner}, "spec": {"selector": {"matchLabels": {"app": owner}}, **spec}}
        try:
            self.make(DISRUPTION_BUDGETS, body, USERS)
        except AlreadyExists:
            kept = {"minAvailable": None, "maxUnavailable": None, **spec}
            self.run(self.kube.patch(DISRUPTION_BUDGETS, owner, {"spec": kept}, USERS))
        self.kube.count_budgets()

    def claim(self, name: str, nodes: int | None = 1, priority_class: str = "inference", **spec: Any) -> Json:
        """An explicit claim; fields that are None are left out."""
        given = {name: value for name, value in (spec | {"nodes": nodes}).items() if value is not None}
        body = {
            "apiVersion": API_VERSION,
            "kind": "CapacityClaim",
            "metadata": {"name": name},
            "spec": {"poolName": "batch", "priorityClassName": priority_class, **given},
        }
        return self.make(CAPACITY_CLAIMS, body, USERS)

    def service(self, name: str, **spec: Any) -> Json:
        """An InferenceService whose replicas take whole nodes."""
        given = {"server": {"image": "server:1"}, "gpusPerReplica": 2, "maxReplicas": 3, **spec}
        return self.make(INFERENCE_SERVICES, {"metadata": {"name": name}, "spec": given}, USERS)

    def services(self) -> dict[str, InferenceService]:
        """The InferenceServices as they are."""
        listed = self.run(self.kube.list(INFERENCE_SERVICES))
        return {raw["metadata"]["name"]: views.resource(InferenceService, raw) for raw in listed}

    def settle(self, operator: Operator, turns: int = 60, seconds: float = 1.0) -> None:
        """Let a healthy operator and the world take turns."""
        for _ in range(turns):
            operator.read_watch()
            operator.ask_slurm()
            operator.round()
            self.turn()
            self.pass_time(seconds)


def _controlled_by(owner: Json) -> Json:
    named = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "controller": True}
    return named | {key: owner["metadata"][key] for key in ("name", "uid")}


_TERMS: Json = {
    "nodeSelector": {"pool": "gpu"},
    "slurmClusterName": "site",
    "partition": "lent",
    "slurmd": {"image": "slurmd:test"},
    "lending": {
        "idleSeconds": 5,
        "idleReturnSeconds": 10,
        "joinSeconds": 60,
        "flapBudget": {"loans": 50, "windowSeconds": 3600},
    },
    "recall": {
        "graceful": {"drainSeconds": 20, "checkpointSeconds": 10, "requeueSeconds": 10},
        "quick": {"drainSeconds": 0, "checkpointSeconds": 10, "requeueSeconds": 10},
        "fast": {"drainSeconds": 0, "checkpointSeconds": 2, "requeueSeconds": 5},
        "nonRequeueableJobs": "Protect",
        "nonRequeueableSeconds": 60,
    },
}

"""A Snapshot, looked up from every side: which pods are on a node, which pool a node is of, which loan it has."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from tidegate.api import BatchPool, CapacityClaim, Lending, NodeLoan, OpenWindow
from tidegate.api.names import (
    CLAIM_LABEL,
    DRAIN_REASON_PREFIX,
    JOINING_REASON,
    claim_fence,
    claim_of_fence,
    slurm_node_name,
)
from tidegate.sharing.lead_time import overheads
from tidegate.sharing.lifetime import ends_at
from tidegate.sharing.snapshot import (
    Node,
    Owner,
    Pod,
    PodsNearby,
    SeenInSlurm,
    SlurmJob,
    SlurmNode,
    SlurmState,
    Snapshot,
)
from tidegate.sharing.windows import open_window, terms_in

if TYPE_CHECKING:
    from tidegate.sharing.sides import Sides

T = TypeVar("T")
STALE_SECONDS = 20
"""An observation of Slurm older than this (plus the poll period) proves nothing any more."""

_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def created(thing: BatchPool | NodeLoan | CapacityClaim) -> datetime:
    """When the object was created; the beginning of time for one that has not been written yet."""
    return thing.metadata.creation_timestamp or _EPOCH


def extra_of(loan_name: str) -> str:
    """What slurmd registers as the node's `extra`, so that a record can be told from somebody else's."""
    return f"tidegate={loan_name}"


@dataclass(frozen=True)
class Index:
    """One Snapshot and the moment of the decision, with the look-ups that decisions share.

    What is asked for each claim, loan or node is looked up here, so that no decision goes through the whole world for
    each of them.
    """

    snapshot: Snapshot
    now: datetime

    @cached_property
    def _answers(self) -> dict[tuple[object, ...], Any]:
        return {}

    def once(self, question: Callable[..., T], *about: Hashable) -> T:
        """What `question(*about, index)` says, asked only once in a decision."""
        answers, key = self._answers, (question, *about)
        if key not in answers:
            answers[key] = question(*about, self)
        answer: T = answers[key]
        return answer

    @cached_property
    def pods_by_node(self) -> dict[str, list[Pod]]:
        found: dict[str, list[Pod]] = defaultdict(list)
        for pod in self.snapshot.pods:
            if pod.node:
                found[pod.node].append(pod)
        return found

    @cached_property
    def bound_gpu_pods(self) -> list[Pod]:
        """Pods of others on nodes, with GPUs: those whose labels are known."""
        return [p for p in self.snapshot.pods if p.node and p.gpus and p.loan is None and not p.deleting]

    @cached_property
    def bound_by_label(self) -> dict[tuple[str, str], list[Pod]]:
        """The same by key and value of each of their labels."""
        found: dict[tuple[str, str], list[Pod]] = defaultdict(list)
        for pod in self.bound_gpu_pods:
            for label in pod.labels.items():
                found[label].append(pod)
        return found

    @cached_property
    def keep_off(self) -> dict[PodsNearby, Counter[str]]:
        """What pods on nodes want none of beside them: the places (values of the topology key) where they are."""
        found: dict[PodsNearby, Counter[str]] = defaultdict(Counter)
        for pod in self.bound_gpu_pods:
            for term in pod.apart if pod.node in self.snapshot.nodes else ():
                place = self.snapshot.nodes[pod.node].labels.get(term.topology_key)
                if place is not None:
                    found[term][place] += 1
        return found

    def controllers_of(self, pod: Pod) -> tuple[Owner, ...]:
        """The pod's controllers, the nearest first, the top last; a bare pod is its own. None if not all are known."""
        if pod.owner.uid == pod.uid:
            return (pod.owner,)
        above = self.snapshot.owners.get(pod.owner.uid)
        return () if above is None else (pod.owner, *above)

    @cached_property
    def claim_of_holder(self) -> dict[tuple[str, str], str]:
        """UID of the live claim for a controller's pods, by namespace and the controller's UID; of two the older."""
        found: dict[tuple[str, str], str] = {}
        for claim in sorted(self.live_claims.values(), key=lambda c: (created(c), c.metadata.uid)):
            if claim.spec.holder_ref:
                found.setdefault((claim.metadata.namespace or "", claim.spec.holder_ref.uid), claim.metadata.uid)
        return found

    @cached_property
    def pods_by_owner(self) -> dict[tuple[str, str], list[Pod]]:
        """By namespace and UID of the nearest controller that a claim is for, else of the top one (a bare pod's own).

        Without pods that are being deleted. So each pod is one claim's at most.
        """
        keys: dict[tuple[str, str], str] = {}
        found: dict[tuple[str, str], list[Pod]] = defaultdict(list)
        for pod in self.snapshot.pods:
            if pod.deleting:
                continue
            direct = (pod.namespace, pod.owner.uid)
            if direct not in keys:
                uids = [owner.uid for owner in self.controllers_of(pod)] or [pod.owner.uid]
                keys[direct] = next((u for u in uids if (pod.namespace, u) in self.claim_of_holder), uids[-1])
            found[pod.namespace, keys[direct]].append(pod)
        return found

    @cached_property
    def pods_by_claim_label(self) -> dict[tuple[str, str], list[Pod]]:
        """By namespace and the name of the explicit claim that they carry, without those that are being deleted."""
        found: dict[tuple[str, str], list[Pod]] = defaultdict(list)
        for pod in self.snapshot.pods:
            if not pod.deleting and (name := pod.labels.get(CLAIM_LABEL)) is not None:
                found[pod.namespace, name].append(pod)
        return found

    @cached_property
    def waiting_pods(self) -> list[Pod]:
        """Pods of others that the scheduler may bind."""
        waits = (p for p in self.snapshot.pods if not p.node and not p.deleting and not p.gated)
        return [pod for pod in waits if pod.loan is None]

    @cached_property
    def slurmd_pods(self) -> dict[str, list[Pod]]:
        """By loan."""
        found: dict[str, list[Pod]] = defaultdict(list)
        for pod in self.snapshot.pods:
            if pod.loan:
                found[pod.loan].append(pod)
        return found

    @cached_property
    def pools(self) -> dict[str, BatchPool]:
        """By name, the oldest first."""
        ordered = sorted(self.snapshot.pools, key=lambda p: (created(p), p.metadata.name))
        return {p.metadata.name: p for p in ordered}

    def terms(self, pool: BatchPool) -> Lending:
        """The lending terms in force. All decisions read them here."""
        return self._terms[pool.metadata.name]

    @cached_property
    def _terms(self) -> dict[str, Lending]:
        return {name: terms_in(pool.spec.lending, self.open_windows[name]) for name, pool in self.pools.items()}

    @cached_property
    def open_windows(self) -> dict[str, OpenWindow | None]:
        """By pool name."""
        return {name: open_window(pool.spec.lending.windows, self.now) for name, pool in self.pools.items()}

    @cached_property
    def pool_of_node(self) -> dict[str, str]:
        """Node name to pool name; of two pools that select a node the older has it."""
        owner: dict[str, str] = {}
        for name, pool in self.pools.items():
            for node in self.snapshot.nodes.values():
                if _selects(pool, node):
                    owner.setdefault(node.name, name)
        return owner

    @cached_property
    def nodes_of_pool(self) -> dict[str, list[Node]]:
        """Nodes with GPUs by pool name."""
        found: dict[str, list[Node]] = {name: [] for name in self.pools}
        for node_name, pool_name in sorted(self.pool_of_node.items()):
            node = self.snapshot.nodes[node_name]
            if gpus_of(node, self.pools[pool_name]):
                found[pool_name].append(node)
        return found

    @cached_property
    def nodes_by_fence(self) -> dict[str, list[Node]]:
        """By the loan or claim that our taint names, by node name."""
        found: dict[str, list[Node]] = defaultdict(list)
        for _, node in sorted(self.snapshot.nodes.items()):
            if node.fence is not None:
                found[node.fence].append(node)
        return found

    @cached_property
    def nodes_by_slurm_name(self) -> dict[tuple[str, str], list[str]]:
        """Names of the nodes of all pools by SlurmCluster and what they are called there."""
        found: dict[tuple[str, str], list[str]] = defaultdict(list)
        for node_name, pool_name in sorted(self.pool_of_node.items()):
            found[self.pools[pool_name].spec.slurm_cluster_name, slurm_node_name(node_name)].append(node_name)
        return found

    def overlap(self, pool: BatchPool) -> dict[str, str]:
        """Nodes that the pool selects but an older pool has, with that pool's name."""
        return {
            node.name: self.pool_of_node[node.name]
            for node in self.snapshot.nodes.values()
            if _selects(pool, node) and self.pool_of_node[node.name] != pool.metadata.name
        }

    @cached_property
    def loans_by_node(self) -> dict[str, list[NodeLoan]]:
        """All loans that are kept, also the ended ones."""
        found: dict[str, list[NodeLoan]] = defaultdict(list)
        for loan in self.snapshot.loans:
            found[loan.spec.node_name].append(loan)
        return found

    @property
    def ended_loans(self) -> list[NodeLoan]:
        """Loans that are over, the oldest first."""
        return self._ended_and_open[0]

    @property
    def open_loans(self) -> list[NodeLoan]:
        """All others, the oldest first."""
        return self._ended_and_open[1]

    @cached_property
    def _ended_and_open(self) -> tuple[list[NodeLoan], list[NodeLoan]]:
        halves: tuple[list[NodeLoan], list[NodeLoan]] = [], []
        for loan in sorted(self.snapshot.loans, key=lambda loan: (created(loan), loan.metadata.name)):
            halves[0 if loan.is_over else 1].append(loan)
        return halves

    @cached_property
    def active_loans(self) -> dict[str, NodeLoan]:
        """Loans that are not over, by node; of two for one node the one that holds it (or the older) counts."""
        found: dict[str, NodeLoan] = {}
        for loan in self.open_loans:
            node = self.snapshot.nodes.get(loan.spec.node_name)
            holds = node is not None and node.fence == loan.metadata.name
            if holds or loan.spec.node_name not in found:
                found[loan.spec.node_name] = loan
        return found

    @cached_property
    def _loans_by_pool(self) -> dict[str, list[NodeLoan]]:
        found: dict[str, list[NodeLoan]] = defaultdict(list)
        for _, loan in sorted(self.active_loans.items()):
            found[loan.spec.pool_name].append(loan)
        return found

    def loans_of(self, pool_name: str) -> Sequence[NodeLoan]:
        """Active loans of the pool, by node name."""
        return self._loans_by_pool.get(pool_name, ())

    @cached_property
    def coming_by_claim(self) -> dict[str, list[NodeLoan]]:
        """Active loans that are on their way back for a claim, by its UID and by node name.

        Without those that just gave it the node and are on their last step: that one is held by now.
        """
        found: dict[str, list[NodeLoan]] = defaultdict(list)
        for node_name, loan in sorted(self.active_loans.items()):
            if loan.is_wanted_back and loan.spec.back and loan.spec.back.claim:
                uid, node = loan.spec.back.claim.uid, self.snapshot.nodes.get(node_name)
                if node is None or node.fence != claim_fence(uid):
                    found[uid].append(loan)
        return found

    @cached_property
    def claims(self) -> dict[str, CapacityClaim]:
        """All claims by UID."""
        return {claim.metadata.uid: claim for claim in self.snapshot.claims}

    @cached_property
    def loans_by_taker(self) -> dict[tuple[str, int], list[NodeLoan]]:
        """Loans of nodes that were taken for a job, over or not, by SlurmCluster and job id."""
        found: dict[tuple[str, int], list[NodeLoan]] = defaultdict(list)
        for loan in sorted(self.snapshot.loans, key=lambda one: (created(one), one.metadata.name)):
            pool = self.pools.get(loan.spec.pool_name)
            if pool and loan.spec.taken_for:
                found[pool.spec.slurm_cluster_name, loan.spec.taken_for.job_id].append(loan)
        return found

    @cached_property
    def open_claims(self) -> list[CapacityClaim]:
        """Claims that nothing was written of by which they would be over."""
        return [claim for claim in self.snapshot.claims if not claim.is_over]

    @cached_property
    def live_claims(self) -> dict[str, CapacityClaim]:
        """Claims that are not over, by UID."""
        return {claim.metadata.uid: claim for claim in self.open_claims if not self.is_expired(claim)}

    def left_behind(self, node: Node) -> str | None:
        """The UID of a claim that is over (or gone) and whose fence the node carries still; None without one."""
        uid = claim_of_fence(node.fence) if node.fence else None
        return uid if uid and uid not in self.live_claims else None

    @cached_property
    def _selections(self) -> dict[tuple[str, frozenset[tuple[str, str]]], tuple[list[Node], int]]:
        return {}

    def selected(self, pool_name: str, labels: frozenset[tuple[str, str]]) -> tuple[list[Node], int]:
        """Nodes of the pool that have all these labels, by name, and how many GPUs they have."""
        key = (pool_name, labels)
        if key not in self._selections:
            nodes = [n for n in self.nodes_of_pool[pool_name] if labels <= n.labels.items()]
            self._selections[key] = nodes, sum(gpus_of(n, self.pools[pool_name]) for n in nodes)
        return self._selections[key]

    @cached_property
    def reservations(self) -> dict[str, list[CapacityClaim]]:
        """Live claims that have a start of their own, by pool name."""
        found: dict[str, list[CapacityClaim]] = defaultdict(list)
        for _, claim in sorted(self.live_claims.items()):
            if claim.spec.start_time is not None:
                found[claim.spec.pool_name].append(claim)
        return found

    @cached_property
    def recall_overheads(self) -> dict[str, float]:
        """How many seconds recalls lately needed beyond their ladder, by name of the pools that have ended any."""
        return overheads(self.snapshot.loans, self.pools)

    def is_promised(self, loan: NodeLoan) -> bool:
        """Whether the node of a loan comes back for a claim that still waits for it."""
        return bool(loan.spec.back and loan.spec.back.claim and loan.spec.back.claim.uid in self.live_claims)

    def claimant(self, node: Node) -> CapacityClaim | None:
        """The live claim that the node is held for, or that it comes back for."""
        uid = claim_of_fence(node.fence) if node.fence else None
        loan = self.active_loans.get(node.name)
        if uid is None and loan and loan.spec.back and loan.spec.back.claim:
            uid = loan.spec.back.claim.uid
        return self.live_claims.get(uid) if uid else None

    def is_expired(self, claim: CapacityClaim) -> bool:
        """Whether the claim's time is over."""
        end = ends_at(claim, self)
        return end is not None and self.now >= end.time

    def priority_of(self, claim: CapacityClaim) -> int | None:
        """What the claim's PriorityClass stands for; None when there is no such class."""
        name = claim.spec.priority_class_name or self.snapshot.default_priority_class
        return self.snapshot.priority_classes.get(name) if name else 0

    def slurm_of(self, pool_name: str) -> SlurmState | None:
        """The Slurm that the pool lends to, only if what was seen of it is complete and fresh."""
        return self._slurm_of.get(pool_name)

    @cached_property
    def _slurm_of(self) -> dict[str, SlurmState]:
        found: dict[str, SlurmState] = {}
        for name, pool in self.pools.items():
            cluster = self.snapshot.clusters.get(pool.spec.slurm_cluster_name)
            state = self.snapshot.slurm.get(pool.spec.slurm_cluster_name)
            if cluster is None or state is None or state.observed is None or state.error:
                continue
            if self.now - state.observed <= timedelta(seconds=STALE_SECONDS + cluster.spec.poll_seconds):
                found[name] = state
        return found

    @cached_property
    def running(self) -> dict[str, list[SlurmJob]]:
        """Jobs that hold nodes, by SlurmCluster and by id."""
        found = {}
        for cluster, state in self.snapshot.slurm.items():
            found[cluster] = [job for job in state.jobs.values() if job.holds_nodes]
            found[cluster].sort(key=attrgetter("job_id"))
        return found

    @cached_property
    def _jobs_by_node(self) -> dict[tuple[str, str], list[SlurmJob]]:
        found: dict[tuple[str, str], list[SlurmJob]] = defaultdict(list)
        for cluster, running in self.running.items():
            for job in running:
                for name in job.nodes:
                    found[cluster, name].append(job)
        return found

    def jobs_on(self, loan: NodeLoan) -> Sequence[SlurmJob]:
        """Jobs that run or are being cleaned up on the loan's node, by id; none while Slurm cannot be seen."""
        if self.slurm_of(loan.spec.pool_name) is None:
            return ()
        cluster = self.pools[loan.spec.pool_name].spec.slurm_cluster_name
        return self._jobs_by_node.get((cluster, loan.spec.slurm_node_name), ())

    def jobs_of(self, pool_name: str) -> Sequence[SlurmJob]:
        """Jobs that run or are being cleaned up on any of the pool's loans, each once, by id."""
        return self.once(_jobs_of, pool_name)

    @cached_property
    def sides(self) -> dict[str, Sides]:
        """What `sides.sides` has counted already, by pool."""
        return {}

    @cached_property
    def loan_priorities(self) -> dict[str, int]:
        """What `priorities.of_loan` has found already, by loan: every claim is compared with every loan."""
        return {}

    def record_of(self, loan: NodeLoan, slurm: SlurmState) -> SlurmNode | None:
        """The Slurm record that this very loan registered."""
        record = slurm.nodes.get(loan.spec.slurm_node_name)
        return record if record and record.extra == extra_of(loan.metadata.name) else None

    def seen(self, loan: NodeLoan) -> SeenInSlurm | None:
        """The same by the last answer of the pool's Slurm; None where nothing can run, or Slurm does not answer."""
        slurm = self.slurm_of(loan.spec.pool_name)
        if slurm is None or not loan.status.is_true("Vacated"):
            return None
        return SeenInSlurm(self.pools[loan.spec.pool_name].spec.slurm_cluster_name, self.record_of(loan, slurm))

    def foreign_gpu_pods(self, node: str, pool: BatchPool) -> list[Pod]:
        """Pods of others on the node that hold GPUs of it."""
        return [p for p in self.pods_by_node.get(node, ()) if p.loan is None and wants_gpu(p, pool)]


def _jobs_of(pool_name: str, index: Index) -> list[SlurmJob]:
    if index.slurm_of(pool_name) is None:
        return []
    names = {loan.spec.slurm_node_name for loan in index.loans_of(pool_name)}
    running = index.running[index.pools[pool_name].spec.slurm_cluster_name]
    return [job for job in running if not names.isdisjoint(job.nodes)]


def _selects(pool: BatchPool, node: Node) -> bool:
    return all(node.labels.get(key) == value for key, value in pool.spec.node_selector.items())


def gpu_resource(node: Node, pool: BatchPool) -> str | None:
    """The first GPU resource of the pool that the node has."""
    return next((name for name in pool.spec.gpu_resource_names if node.gpus.get(name, 0) > 0), None)


def gpus_of(node: Node, pool: BatchPool) -> int:
    """How many GPUs the node has."""
    name = gpu_resource(node, pool)
    return node.gpus[name] if name else 0


def wants_gpu(pod: Pod, pool: BatchPool) -> bool:
    """Whether the pod asks for a GPU resource of the pool."""
    return any(pod.gpus.get(name, 0) > 0 for name in pool.spec.gpu_resource_names)


def is_drained_by_others(record: SlurmNode) -> bool:
    """Whether somebody else than us (an admin, a health check) took the node out of service in Slurm."""
    return "DRAIN" in record.states and not record.reason.startswith(DRAIN_REASON_PREFIX)


def joins(record: SlurmNode) -> bool:
    """Whether the node is kept from jobs since it registered, until we let them in."""
    return record.is_drained and record.reason == JOINING_REASON

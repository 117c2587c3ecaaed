"""The other direction: pending Slurm jobs of a mapped priority take nodes from less important pods.

That no two sides take a node from each other for ever rests on one measure. Each hand-over that displaces work puts
strictly more important work in its place (`handover_gain` is positive): a claim recalls only loans of lower priority,
and a job takes a node only from pods of lower priority. What is displaced waits, and gets a node back only from work
that is less important still, or that has ended. Three rules keep the measure honest:
- A loan that was taken for a job is worth that job until the job has started or is gone (`priorities.of_loan`), so the
  pods that had to go cannot take it back half way.
- A job has at most as many loans as it needs nodes. While they stand it takes no more, even if Slurm gives them to
  another job first: a taken node that is grabbed does not make the next one fall.
- Headroom takes no node back on which such a job runs or for which it waits (`recalls.recall_by_terms`): the job would
  only take another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from tidegate.api import BatchPool, CapacityClaim, NodeLoan, TakenFor
from tidegate.api.names import RETURN_FINALIZER
from tidegate.sharing.budgets import failed_loans
from tidegate.sharing.commands import Command, CreateLoan, RecallLoan
from tidegate.sharing.demand import Room, nodes_lacking, nodes_of
from tidegate.sharing.evictions import Allowance, why_it_stays
from tidegate.sharing.fit import kind_of, may_run
from tidegate.sharing.idleness import Blocker, blocker_beside_pods, free_nodes, lend_blocker
from tidegate.sharing.index import Index, wants_gpu
from tidegate.sharing.lending import allowed, as_it_stays, jobs_that_wait, new_loan, obtainable, sample_room, stopped
from tidegate.sharing.make_way import EVICTION_REFUSED
from tidegate.sharing.needs import is_automatic
from tidegate.sharing.priorities import of_job, of_loan
from tidegate.sharing.reservations import is_due, reserved
from tidegate.sharing.snapshot import Node, Pod, SlurmJob, SlurmState

TAKE_AFTER_SECONDS = 5
"""Slurm gets this long to start a job by its own means, such as preemption among its jobs."""
LOWEST = -(2**31)
"""No work is worth less: PriorityClasses have 32 bits."""
_LIMITS = ("CapReached", "MaxJoining", "KubernetesFloor")
"""The terms of lending that hold for takings, too. Headroom does for nodes without pods."""
_MOST_NAMED = 4
"""So many things that are in the way are named."""
_NO_USE = ("PoolNotFound", "PriorityClassNotFound", "MoreThanPool", "ClassNotAllowed", "QuotaExceeded")
"""Why claims wait that no node would help."""


@dataclass
class Takings:
    """New loans for pending jobs, and by pool how that stands: a reason and a sentence; no reason when none waits."""

    loans: list[CreateLoan] = field(default_factory=list)
    said: dict[str, Blocker] = field(default_factory=dict)


@dataclass(frozen=True)
class _Urgent:
    """A pending job that takes nodes."""

    job: SlurmJob
    priority: int

    def __str__(self) -> str:
        return f"job {self.job.job_id} of priority {self.priority}"


def take(index: Index, given: frozenset[str], lent: Sequence[CreateLoan]) -> Takings:
    """Nodes for pending jobs that free nodes do not serve: all that a job lacks, or none.

    `given` nodes went to claims in the same decision, and `lent` ones to Slurm.
    """
    takings = Takings()
    spoken_for = {*given, *(loan.spec.node_name for loan in lent)}
    served: set[tuple[str, int]] = set()
    allowance = _allowance(index)
    for name, pool in index.pools.items():
        slurm, sample = index.slurm_of(name), sample_room(pool, index)
        open_to_it = RETURN_FINALIZER in pool.metadata.finalizers and stopped(pool, index) is None
        if index.terms(pool).preemption == "Never" or slurm is None or sample is None or not open_to_it:
            continue
        jobs = urgent_jobs(pool, index)
        staying, joining = as_it_stays(pool, slurm, index)
        coming = joining + obtainable(pool, slurm, index, soon=False)
        kept = reserved(name, slurm, coming, index)
        lacking = nodes_lacking([urgent.job for urgent in jobs], pool, staying, coming, sample, kept)
        chooser = _Chooser(pool, slurm, index, sum(one.spec.pool_name == name for one in lent), allowance)
        for urgent in jobs:
            key = (pool.spec.slurm_cluster_name, urgent.job.job_id)
            lacks = lacking.get(urgent.job.job_id, 0)
            if key in served or not lacks:
                continue
            served.add(key)
            found = _set_of_nodes(urgent, lacks, sample, chooser, spoken_for)
            if isinstance(found, Blocker):
                takings.said.setdefault(name, found)
                continue
            spoken_for |= {loan.spec.node_name for loan in found}
            takings.loans += found
            words = f"taking {', '.join(loan.spec.node_name for loan in found[:8])} for {urgent}"
            takings.said.setdefault(name, Blocker("Taking", words))
    return takings


def urgent_jobs(pool: BatchPool, index: Index) -> list[_Urgent]:
    """Jobs that wait for nodes of the pool and whose priority is on the number line, the most important first."""
    cluster = index.snapshot.clusters[pool.spec.slurm_cluster_name]
    since = index.now - timedelta(seconds=TAKE_AFTER_SECONDS)
    found = [
        _Urgent(job, priority)
        for job in index.once(jobs_that_wait, pool.metadata.name)
        if (job.eligible_time is None or job.eligible_time <= since) and (priority := of_job(job, cluster)) is not None
    ]
    return sorted(found, key=lambda one: (-one.priority, -one.job.priority, one.job.job_id))


def _allowance(index: Index) -> Allowance:
    """What budgets allow beside the pods on nodes that are being taken already."""
    allowance = Allowance(index.snapshot.disruption_budgets)
    for loan in index.active_loans.values():
        pool = index.pools.get(loan.spec.pool_name)
        if pool and loan.spec.taken_for and not loan.is_wanted_back and not loan.status.is_true("Vacated"):
            allowance.take(pods_to_evict(loan.spec.node_name, pool, index))
    return allowance


def pods_to_evict(node: str, pool: BatchPool, index: Index) -> list[Pod]:
    """GPU pods of others on the node that are not ending already."""
    return [pod for pod in index.foreign_gpu_pods(node, pool) if not pod.deleting]


@dataclass(frozen=True)
class _Candidate:
    """A node that may be taken, with the pods that would have to go."""

    node: Node
    pods: list[Pod]
    free: bool
    """No GPU pod is on it, not even one that is ending."""
    failed: int
    """How often it did not get as far as Slurm lately."""

    def cost(self) -> tuple[int, int, int, float, str]:
        """Nodes that work first, so that nobody is evicted in vain again; then the least important, few, young pods."""
        most = max((pod.priority for pod in self.pods), default=LOWEST)
        oldest = min((pod.created.timestamp() for pod in self.pods), default=0.0)
        return self.failed, most, len(self.pods), -oldest, self.node.name


@dataclass
class _Chooser:
    """Chooses nodes of one pool, and remembers what it gave away in this decision."""

    pool: BatchPool
    slurm: SlurmState
    index: Index
    lent: int
    allowance: Allowance

    def __post_init__(self) -> None:
        free = len(free_nodes(self.pool, self.index))
        limits = [one for one in allowed(self.pool, self.index, free, 0, 0) if one[1].reason in _LIMITS]
        self.limits = [(count - self.lent, blocker) for count, blocker in limits]
        self.spare = free - self.lent - self.index.terms(self.pool).headroom.high
        self._known: dict[int, tuple[list[_Candidate], list[str]]] = {}
        self._failed: tuple[int, str] | None = None

    def _candidates(self, priority: int) -> tuple[list[_Candidate], list[str]]:
        """Nodes that a job of that priority may take, the cheapest first, and why it may not take the others."""
        if priority not in self._known:
            found, obstacles = list[_Candidate](), list[str]()
            for node in self.index.nodes_of_pool[self.pool.metadata.name]:
                if blocker := taking_blocker(node, self.pool, priority, self.index, self.slurm):
                    obstacles.append(blocker.message)
                else:
                    there = self.index.foreign_gpu_pods(node.name, self.pool)
                    failed = failed_loans(node.name, self.pool, self.index)
                    found.append(_Candidate(node, [pod for pod in there if not pod.deleting], not there, failed))
            self._known[priority] = sorted(found, key=_Candidate.cost), obstacles
        return self._known[priority]

    def choose(self, urgent: _Urgent, count: int, spoken_for: set[str]) -> list[Node] | Blocker:
        """So many nodes, those first whose pods are least important, fewest and youngest; or why there are not."""
        if full := next((blocker for most, blocker in self.limits if most < count), None):
            return Blocker(full.reason, f"{urgent} lacks {count} nodes: {full.message}")
        if self._failed and count >= self._failed[0]:
            return Blocker("TooFewToTake", f"{urgent} lacks {count} nodes and could take fewer: {self._failed[1]}")
        candidates, obstacles = self._candidates(urgent.priority)
        obstacles = obstacles[:_MOST_NAMED]
        chosen: list[Node] = []
        spare, allowance, seen = self.spare, self.allowance.copy(), 0
        for one in candidates:
            if len(chosen) == count:
                break
            seen += 1
            if one.node.name in spoken_for:
                continue
            if one.free and spare <= 0:
                obstacles.append(f"node {one.node.name} is free, but kept as headroom")
            elif why := allowance.take(one.pods):
                obstacles.append(why)
            else:
                chosen.append(one.node)
                spare -= one.free
        if len(chosen) < count:
            words = "; ".join(obstacles[:_MOST_NAMED])
            # What is left only shrinks, and those that come after are no more important.
            self._failed = count, words
            return Blocker("TooFewToTake", f"{urgent} lacks {count} nodes and could take {len(chosen)}: {words}")
        del candidates[:seen]
        self.spare, self.allowance.left = spare, allowance.left
        self.limits = [(most - count, blocker) for most, blocker in self.limits]
        return chosen


def _set_of_nodes(
    urgent: _Urgent, lacks: int, sample: Room, chooser: _Chooser, spoken_for: set[str]
) -> list[CreateLoan] | Blocker:
    index, pool = chooser.index, chooser.pool
    taken = index.loans_by_taker.get((pool.spec.slurm_cluster_name, urgent.job.job_id), ())
    # Also those of another pool of the same Slurm: a job gets its nodes from one.
    has = [loan for loan in taken if not loan.is_over and not loan.is_wanted_back]
    if any(not loan.status.is_true("Lent") or loan.spec.pool_name != pool.metadata.name for loan in has):
        return Blocker("Taking", f"{len(has)} nodes are being taken for {urgent}")
    if len(has) + lacks > nodes_of(urgent.job, sample):
        return Blocker("Taken", f"{len(has)} nodes were taken for {urgent}, and other jobs run there now")
    if refused := [loan for loan in taken if _was_refused(loan, pool, index)]:
        words = f"the last try for {urgent} failed; it takes no nodes for {index.terms(pool).eviction_seconds} s"
        return Blocker(EVICTION_REFUSED, f"{words}: {refused[-1].spec.back.message if refused[-1].spec.back else ''}")
    nodes = chooser.choose(urgent, lacks, spoken_for)
    if isinstance(nodes, Blocker):
        return nodes
    why = TakenFor(job_id=urgent.job.job_id, priority=urgent.priority, nodes=len(has) + lacks)
    return [new_loan(node, pool, index, why) for node in nodes]


def _was_refused(loan: NodeLoan, pool: BatchPool, index: Index) -> bool:
    turned = loan.status.since("Recalled") if loan.status.is_true("Recalled") else None
    refused = loan.spec.back is not None and loan.spec.back.reason == EVICTION_REFUSED
    return refused and (turned is None or index.now - turned < timedelta(seconds=index.terms(pool).eviction_seconds))


def taking_blocker(node: Node, pool: BatchPool, priority: int, index: Index, slurm: SlurmState) -> Blocker | None:
    """The first reason why a job of that priority may not take the node, or None when it may."""
    if blocker := blocker_beside_pods(node, pool, index, slurm):
        return blocker
    if lend_blocker(node, pool, index, slurm) is None:
        return Blocker("Lendable", f"node {node.name} is free and need not be taken")
    patience = index.terms(pool).eviction_seconds
    for pod in pods_to_evict(node.name, pool, index):
        if why := why_it_stays(pod, priority):
            return Blocker("NotEvictable", f"{why} (on node {node.name})")
        if pod.grace_seconds > patience:
            words = f"pod {pod.key} on node {node.name} may take {pod.grace_seconds} s to end, which is beyond"
            return Blocker("LongGrace", f"{words} lending.evictionSeconds {patience}")
    for pod in index.once(_as_important, pool.metadata.name, priority):
        if may_run(pod, node):
            return Blocker("PendingPod", f"pending pod {pod.key} of priority {pod.priority} may need node {node.name}")
    return index.once(_claimed, pool.metadata.name, priority)


def _claimed(pool_name: str, priority: int, index: Index) -> Blocker | None:
    """An explicit claim of that priority at least that lacks nodes of the pool: it would take them back."""
    for claim in index.live_claims.values():
        worth = index.priority_of(claim)
        if claim.spec.pool_name != pool_name or worth is None or worth < priority:
            continue
        if _waits_for_any_node(claim, index):
            words = f"claim {claim.metadata.namespace}/{claim.metadata.name} of priority {worth} waits for nodes"
            return Blocker("Claimed", f"{words} of pool {pool_name}")
    return None


def _as_important(pool_name: str, priority: int, index: Index) -> list[Pod]:
    """One pod of each kind of that priority at least that waits for GPUs of the pool."""
    waiting = sorted((pod for pod in index.waiting_pods if pod.priority >= priority), key=lambda pod: pod.key)
    return list({kind_of(pod): pod for pod in waiting if wants_gpu(pod, index.pools[pool_name])}.values())


def _waits_for_any_node(claim: CapacityClaim, index: Index) -> bool:
    """Whether an explicit claim lacks nodes now that it could have; those for pending pods wait as these do."""
    satisfied = claim.status.condition("Satisfied")
    lacks = satisfied is None or (satisfied.status != "True" and satisfied.reason not in _NO_USE)
    return lacks and is_due(claim, index) and not is_automatic(claim)


def handover_gain(command: Command, index: Index) -> int | None:
    """By how much the work that gets the node is more important than what it displaces; None if it displaces none.

    It is positive for all commands of all decisions: that is why no cycle of hand-overs is possible.
    """
    if isinstance(command, RecallLoan) and not command.loan.is_wanted_back and command.back.claim:
        claim = index.live_claims.get(command.back.claim.uid)
        worth = index.priority_of(claim) if claim else None
        return None if worth is None else worth - of_loan(command.loan, index)
    if isinstance(command, CreateLoan) and command.spec.taken_for:
        pods = pods_to_evict(command.spec.node_name, index.pools[command.spec.pool_name], index)
        return command.spec.taken_for.priority - max((pod.priority for pod in pods), default=LOWEST)
    return None

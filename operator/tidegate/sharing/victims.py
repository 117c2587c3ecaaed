"""Which loans are taken back: the set of nodes whose recall costs least, in the pool's own sense of cost.

A job of several nodes is counted once: when one of them goes, the job is lost, and its other nodes cost nothing more.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain

from tidegate.api import BatchPool, NodeLoan, RecallClass
from tidegate.sharing.index import Index
from tidegate.sharing.ladder import COMMENTS, declared_signal
from tidegate.sharing.min_union import Item, cheapest_union
from tidegate.sharing.priorities import of_loan
from tidegate.sharing.protection import Shield, shields
from tidegate.sharing.snapshot import SlurmJob

HIT_SECONDS = 86400
"""`Spread` remembers for this long whose jobs were ended."""
_ENDED = ("Requeued", "Cancelled", "EndedByDown")
_CHECKPOINT = re.compile(r"\btidegate:checkpoint=(\S+)")
_DIGIT_BITS = 50
"""Costs are compared one after the other: each is a digit of one number, and no sum of a digit needs more bits."""
_ONE_JOB, _RESTARTS, _LOST_WORK, _BY_POLICY, _FOR_GOOD = (1 << _DIGIT_BITS * place for place in range(1, 6))
"""What one of a digit is worth; the lowest digit is the loan's own."""


@dataclass(frozen=True, slots=True)
class RecallCost:
    """What taking a loan back now would cost."""

    lost_gpu_seconds: int
    restarts: int
    """Restarts that the jobs on it have suffered already."""
    jobs: tuple[int, ...]
    """Ids of the jobs that would be touched."""
    not_requeueable: tuple[int, ...]
    """Those of them that would be lost for good."""
    shields: tuple[Shield, ...]
    """What protects it from claims."""

    @property
    def words(self) -> str:
        """A sentence without its full stop."""
        if not self.jobs:
            return "its recall costs no work: nothing runs there"
        jobs = f"{len(self.jobs)} job{'' if len(self.jobs) == 1 else 's'}"
        gone = f", {len(self.not_requeueable)} of them for good" if self.not_requeueable else ""
        again = f", which had {self.restarts} restarts before" if self.restarts else ""
        return f"its recall ends {jobs}{gone}{again}, and loses at most {self.lost_gpu_seconds} GPU-seconds"


def cheapest(loans: Iterable[NodeLoan], count: int, recall_class: RecallClass, index: Index) -> list[NodeLoan]:
    """Up to `count` loans of one pool that are recalled together, those first that cost least by themselves.

    Protected loans come last: who must not take them leaves them out of `loans`. Under `LowestPriority` those of a
    lower priority come first; within one rank the set counts. What is lost in any case costs nothing.
    """
    left = sorted(loans, key=lambda loan: loan.metadata.name)
    if count <= 0 or not left:
        return []
    ledger = index.once(_ledger, left[0].spec.pool_name, recall_class)
    ranks: dict[tuple[bool, int], list[NodeLoan]] = {}
    for loan in left:
        ranks.setdefault(_rank(loan, ledger.pool, index), []).append(loan)
    ended = set(ledger.lost_already)
    chosen: list[NodeLoan] = []
    for _, rank in sorted(ranks.items(), key=lambda one: one[0]):
        more = count - len(chosen)
        if more <= 0:
            break
        part = rank if more >= len(rank) else _set(rank, more, ledger, ended, index)
        chosen += sorted(part, key=lambda loan: (ledger.alone(loan, ended), loan.metadata.name))
        ended.update(*(ledger.jobs[loan.metadata.name] for loan in part))
    return chosen


def cost_of(loan: NodeLoan, recall_class: RecallClass, index: Index) -> RecallCost:
    """What taking this loan back by itself would cost."""
    pool, jobs = index.pools[loan.spec.pool_name], index.jobs_on(loan)
    return RecallCost(
        lost_gpu_seconds=sum(lost_gpu_seconds(job, pool, recall_class, index.now) for job in jobs),
        restarts=sum(job.restarts for job in jobs),
        jobs=tuple(job.job_id for job in jobs),
        not_requeueable=tuple(job.job_id for job in jobs if not job.requeueable),
        shields=shields(loan, index),
    )


def lost_gpu_seconds(job: SlurmJob, pool: BatchPool, recall_class: RecallClass, now: datetime) -> int:
    """GPU-seconds that ending the job now would lose: those since it started, or since it last saved its work.

    One that saves on a signal loses at most its checkpoint time. One that ends anyway loses nothing.
    """
    if job.start_time is None or "COMPLETING" in job.states:
        return 0
    seconds = (now - job.start_time).total_seconds()
    if job.comment:
        if saved := last_checkpoint(job.comment):
            seconds = min(seconds, (now - saved).total_seconds())
        if declared_signal(job.comment):
            seconds = min(seconds, getattr(pool.spec.recall, recall_class).checkpoint_seconds)
    return int(seconds) * (job.gpus or 1) if seconds > 0 else 0


@lru_cache(COMMENTS)
def last_checkpoint(comment: str) -> datetime | None:
    """When a job last saved its work, from `tidegate:checkpoint=<RFC 3339, or seconds since 1970>` in its comment."""
    found = _CHECKPOINT.search(comment)
    if not found:
        return None
    try:
        word = found.group(1)
        moment = datetime.fromtimestamp(int(word), UTC) if word.isdecimal() else datetime.fromisoformat(word)
    except (ValueError, OverflowError, OSError):
        return None
    return moment if moment.tzinfo else None


# -- what each loan costs -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Ledger:
    """Costs of all loans of a pool under one recall class; costs of jobs, each paid once, are apart."""

    pool: BatchPool
    own: dict[str, int]
    """By loan what does not depend on jobs: a loan that is still joining comes before an idle one."""
    jobs: dict[str, tuple[int, ...]]
    """By loan the ids of its jobs."""
    job_costs: dict[int, int]
    lost_already: Collection[int]
    """Jobs on nodes that are on their way back."""

    def alone(self, loan: NodeLoan, ended: Collection[int]) -> int:
        """What the loan costs by itself, once these jobs have ended."""
        name = loan.metadata.name
        return self.own[name] + sum([self.job_costs[one] for one in self.jobs[name] if one not in ended])


def _ledger(pool_name: str, recall_class: RecallClass, index: Index) -> _Ledger:
    pool, loans = index.pools[pool_name], index.loans_of(pool_name)
    jobs = {loan.metadata.name: tuple([job.job_id for job in index.jobs_on(loan)]) for loan in loans}
    return _Ledger(
        pool=pool,
        own={loan.metadata.name: int(loan.status.is_true("Lent")) for loan in loans},
        jobs=jobs,
        job_costs={job.job_id: _job_cost(job, pool, recall_class, index.now) for job in index.jobs_of(pool_name)},
        lost_already={job for loan in loans if loan.is_wanted_back for job in jobs[loan.metadata.name]},
    )


def _job_cost(job: SlurmJob, pool: BatchPool, recall_class: RecallClass, now: datetime) -> int:
    """Lost for good, the policy's own measure, lost work, restarts suffered, one more job touched, in this order."""
    if "COMPLETING" in job.states:
        return 0
    cost = lost_gpu_seconds(job, pool, recall_class, now) * _LOST_WORK + job.restarts * _RESTARTS + _ONE_JOB
    if pool.spec.recall.victim_policy == "NewestFirst" and job.start_time:
        cost += max(int((now - job.start_time).total_seconds()), 0) * _BY_POLICY
    return cost if job.requeueable else cost + _FOR_GOOD


def _rank(loan: NodeLoan, pool: BatchPool, index: Index) -> tuple[bool, int]:
    by_priority = pool.spec.recall.victim_policy == "LowestPriority"
    return bool(shields(loan, index)), of_loan(loan, index) if by_priority else 0


# -- which set ----------------------------------------------------------------------------------------------------


def _set(
    loans: Sequence[NodeLoan], count: int, ledger: _Ledger, ended: Collection[int], index: Index
) -> Sequence[NodeLoan]:
    if ledger.pool.spec.recall.victim_policy == "Spread":
        return _spread(loans, count, ledger, ended, index)
    holders = Counter(chain.from_iterable(ledger.jobs[loan.metadata.name] for loan in loans))
    items = [_item(loan, ledger, ended, holders) for loan in loans]
    return [loans[at] for at in cheapest_union(items, ledger.job_costs, count)]


def _item(loan: NodeLoan, ledger: _Ledger, ended: Collection[int], holders: Counter[int]) -> Item:
    own, shared = ledger.own[loan.metadata.name], []
    for job in ledger.jobs[loan.metadata.name]:
        if job in ended:
            continue
        if holders[job] > 1:
            shared.append(job)
        else:
            own += ledger.job_costs[job]
    return Item(own, tuple(shared))


def _spread(
    loans: Sequence[NodeLoan], count: int, ledger: _Ledger, ended: Collection[int], index: Index
) -> list[NodeLoan]:
    """One by one the loan whose users would have lost the fewest jobs, and of those the cheapest."""
    hits, ended = index.once(_hits, ledger.pool.metadata.name).copy(), set(ended)
    users = {job.job_id: job.user for job in index.jobs_of(ledger.pool.metadata.name)}
    holders = Counter(chain.from_iterable(ledger.jobs[loan.metadata.name] for loan in loans))

    def price(at: int) -> tuple[int, int, int]:
        name = loans[at].metadata.name
        new = Counter(users[job] for job in ledger.jobs[name] if job not in ended)
        worst = max((hits[user] + more for user, more in new.items()), default=0)
        cost = ledger.alone(loans[at], ended)
        return cost // _FOR_GOOD, worst, cost

    chosen: list[NodeLoan] = []
    heap = [(price(at), at) for at in range(len(loans))]
    heapq.heapify(heap)
    while heap and len(chosen) < count:
        told, at = heapq.heappop(heap)
        if (now := price(at)) != told:
            heapq.heappush(heap, (now, at))
            continue
        chosen.append(loans[at])
        fresh = [job for job in ledger.jobs[loans[at].metadata.name] if job not in ended]
        hits.update(users[job] for job in fresh)
        ended.update(fresh)
        if any(holders[job] > 1 for job in fresh):
            # Other loans have become cheaper; those of a user who lost more show it when they come up.
            heap = [(price(other), other) for _, other in heap]
            heapq.heapify(heap)
    return chosen


def _hits(pool_name: str, index: Index) -> Counter[str]:
    """How many jobs each user lost within a day, by what the loans that are kept tell, and loses now."""
    since = index.now - timedelta(seconds=HIT_SECONDS)
    lost: set[tuple[str, int, datetime | None]] = set()
    for loan in index.snapshot.loans:
        lost |= {
            (job.user, job.job_id, job.start_time)
            for job in loan.status.jobs
            if job.action in _ENDED and job.time >= since and job.user
        }
    for loan in index.loans_of(pool_name):
        if loan.is_wanted_back:
            lost |= {(job.user, job.job_id, job.start_time) for job in index.jobs_on(loan)}
    return Counter(user for user, _, _ in lost)

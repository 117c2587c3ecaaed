"""What Prometheus sees. Labels are bounded: pools, steps, results and reasons, never names of nodes, jobs or claims."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from tidegate.api import (
    LEND_STEPS,
    RETURN_STEPS,
    BatchPool,
    BatchPoolStatus,
    CapacityClaim,
    CapacityClaimStatus,
    NodeLoan,
    NodeLoanStatus,
)
from tidegate.sharing.commands import Advice
from tidegate.sharing.index import Index, created
from tidegate.sharing.report import seconds_late

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)

NODES = Gauge("tidegate_nodes", "Nodes of a pool by owner.", ["pool", "owner"])
DEMAND = Gauge("tidegate_demand_nodes", "Nodes that pending Slurm jobs could use beyond those lent.", ["pool"])
STARTABLE = Gauge(
    "tidegate_startable_nodes", "How many of these let jobs start with the nodes that may be lent now.", ["pool"]
)
CLAIMS = Gauge("tidegate_claims", "Capacity claims by state.", ["pool", "state"])
TRANSITIONS = Counter("tidegate_transitions_total", "Steps of loans that were completed.", ["pool", "step", "result"])
STEP_SECONDS = Histogram(
    "tidegate_step_duration_seconds", "Time from the step before to this one.", ["pool", "step"], buckets=_SECONDS
)
REACTION_SECONDS = Histogram(
    "tidegate_claim_reaction_seconds", "From a claim's creation to its first status.", ["pool"], buckets=_SECONDS
)
SATISFACTION_SECONDS = Histogram(
    "tidegate_claim_satisfied_seconds", "From a claim's creation to its satisfaction; reservations do not count.",
    ["pool"], buckets=_SECONDS,
)  # fmt: skip
LATE_SECONDS = Histogram(
    "tidegate_reservation_late_seconds", "How much later than promised reservations started, 0 for those in time.",
    ["pool"], buckets=(0, *_SECONDS),
)  # fmt: skip
RECALLS = Counter("tidegate_recalls_total", "Loans that were turned around.", ["pool", "reason", "recall_class"])
EVICTIONS = Counter("tidegate_evictions_total", "Pods that were evicted for more important Slurm jobs.", ["pool"])
JOBS_REQUEUED = Counter("tidegate_requeued_jobs_total", "Jobs that recalls requeued.", ["pool"])
JOBS_CANCELLED = Counter(
    "tidegate_cancelled_jobs_total", "Jobs that may not be requeued and that recalls cancelled.", ["pool"]
)
LOST_GPU_SECONDS = Counter(
    "tidegate_lost_gpu_seconds_total", "GPU-seconds of runs that recalls ended, an upper bound of lost work.", ["pool"]
)
LENT_SECONDS = Counter("tidegate_lent_node_seconds_total", "Node-seconds that Slurm owned.", ["pool"])
RECOMMENDED = Gauge("tidegate_recommended_nodes", "Nodes that a pool which only recommends would have lent.", ["pool"])
RECOMMENDED_LENDS = Counter("tidegate_recommended_lends_total", "Times a node would have been lent.", ["pool"])
RECOMMENDED_RECALLS = Counter(
    "tidegate_recommended_recalls_total", "Times a node would have been taken back.", ["pool", "reason"]
)
RECOMMENDED_SECONDS = Counter(
    "tidegate_recommended_node_seconds_total", "Node-seconds that Slurm would have had.", ["pool"]
)
OVERDUE = Gauge("tidegate_overdue_loans", "Loans whose present step is past its deadline.", ["pool"])

COMMANDS = Counter("tidegate_commands_total", "Commands by kind and result.", ["command", "result"])
LOOP_SECONDS = Histogram(
    "tidegate_loop_duration_seconds", "One round of the loop by part.", ["part"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)  # fmt: skip
QUEUE_DEPTH = Gauge("tidegate_command_queue_depth", "Commands that wait in the present round.")
LAST_ROUND = Gauge("tidegate_last_round_timestamp_seconds", "When the loop last finished a round.")
LEADER = Gauge("tidegate_leader", "1 while this process holds the Lease.")
SLURM_SECONDS = Histogram(
    "tidegate_slurm_request_duration_seconds", "Requests to slurmrestd.", ["cluster", "call"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)  # fmt: skip
SLURM_ERRORS = Counter(
    "tidegate_slurm_request_errors_total", "Failed requests to slurmrestd.", ["cluster", "call", "reason"]
)
OBSERVATION_SECONDS = Histogram(
    "tidegate_slurm_observation_duration_seconds", "Looks at all of a Slurm, by `ok` or the reason why not.",
    ["cluster", "result"], buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)  # fmt: skip

_BEFORE = dict(zip((*LEND_STEPS, *RETURN_STEPS)[1:], (*LEND_STEPS, *RETURN_STEPS), strict=False))


def observe_loan(loan: NodeLoan, status: NodeLoanStatus) -> None:
    """Count what became true between the loan's old status and the new one."""
    pool = loan.spec.pool_name
    for step in (*LEND_STEPS, *RETURN_STEPS):
        done = status.condition(step)
        if done is None or done.status != "True" or loan.status.is_true(step):
            continue
        TRANSITIONS.labels(pool, step, done.reason).inc()
        started = created(loan) if step == LEND_STEPS[0] else status.since(_BEFORE[step])
        # A recall follows "Lent" by the length of the loan, which is no duration of a step.
        if started and step != "Recalled":
            STEP_SECONDS.labels(pool, step).observe(max((done.last_transition_time - started).total_seconds(), 0))
    if status.is_true("Drained") and not loan.status.is_true("Drained"):
        JOBS_REQUEUED.labels(pool).inc(status.ledger.requeued_jobs)
        JOBS_CANCELLED.labels(pool).inc(status.ledger.cancelled_jobs)
        LOST_GPU_SECONDS.labels(pool).inc(status.ledger.lost_gpu_seconds)
        LENT_SECONDS.labels(pool).inc(status.ledger.lent_seconds)


def observe_request(cluster: str, call: str, seconds: float, failure: str) -> None:
    """Count one request to slurmrestd; `failure` is its reason, or empty."""
    SLURM_SECONDS.labels(cluster, call).observe(seconds)
    if failure:
        SLURM_ERRORS.labels(cluster, call, failure).inc()


def observe_claim(claim: CapacityClaim, status: CapacityClaimStatus) -> None:
    """Time the claim's first status and its satisfaction, of a reservation how late that was."""
    pool, satisfied = claim.spec.pool_name, status.condition("Satisfied")
    if satisfied is None:
        return
    waited = max((satisfied.last_transition_time - created(claim)).total_seconds(), 0)
    if claim.status.condition("Satisfied") is None:
        REACTION_SECONDS.labels(pool).observe(waited)
    if status.started and status.promised_start and not claim.status.started:
        LATE_SECONDS.labels(pool).observe(seconds_late(status.promised_start, status.started))
    if satisfied.status == "True" and not claim.status.is_true("Satisfied") and not claim.spec.start_time:
        SATISFACTION_SECONDS.labels(pool).observe(waited)


def observe_advice(pool: BatchPool, status: BatchPoolStatus, advice: Iterable[Advice]) -> None:
    """Count what the pool would have done between its old status and the new one."""
    name, before, after = pool.metadata.name, pool.status.recommended, status.recommended
    for one in advice:
        if one.would == "Lend":
            RECOMMENDED_LENDS.labels(name).inc()
        else:
            RECOMMENDED_RECALLS.labels(name, one.reason).inc()
    if after:
        RECOMMENDED_SECONDS.labels(name).inc(max(after.node_seconds - (before.node_seconds if before else 0), 0))


def observe_world(index: Index) -> None:
    """Set the gauges from one snapshot. Pools that are gone lose theirs."""
    for gauge in (NODES, DEMAND, STARTABLE, CLAIMS, OVERDUE, RECOMMENDED):
        gauge.clear()
    for name, pool in index.pools.items():
        for owner, count in pool.status.nodes.to_json().items():
            NODES.labels(name, owner).set(count)
        DEMAND.labels(name).set(pool.status.demand_nodes)
        STARTABLE.labels(name).set(pool.status.startable_nodes)
        if pool.status.recommended:
            RECOMMENDED.labels(name).set(len(pool.status.recommended.nodes))
        OVERDUE.labels(name).set(sum(loan.status.is_true("Overdue") for loan in index.loans_of(name)))
        for state in ("Satisfied", "Waiting"):
            CLAIMS.labels(name, state).set(0)
    for claim in index.live_claims.values():
        state = "Satisfied" if claim.status.is_true("Satisfied") else "Waiting"
        CLAIMS.labels(claim.spec.pool_name, state).inc()

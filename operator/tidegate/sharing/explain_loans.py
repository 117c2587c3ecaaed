"""Where a loan is on its trip, what it waits for, what it did to jobs and what it cost."""

from __future__ import annotations

from tidegate.api import LEND_STEPS, OVERDUE, RETURN_STEPS, BatchPool, NodeLoan
from tidegate.sharing.explanation import NOT_SEEN, Explanation, Facts, given, lasted, moment, reasoned, unknown, utc
from tidegate.sharing.index import Index, created
from tidegate.sharing.priorities import of_loan
from tidegate.sharing.standing import stage

_OWNERS = {"joining": "joining", "lent": "Slurm", "returning": "returning"}
_NEXT = {
    "Fenced": "the fence goes onto the node",
    "Vacated": "the API server is asked whether GPU pods of others are on the node",
    "Joined": "slurmd starts and registers with Slurm",
    "Lent": "Slurm may use it",
    "Recalled": "it is turned around",
    "Drained": "its jobs end, save their work or are requeued",
    "Left": "slurmd and its record in Slurm go",
    "Clean": "the node shows that it is Ready with all its GPUs",
    "Returned": "the fence is taken off, or handed to the claim",
}


def explain_loan(name: str, index: Index) -> Explanation:
    """Explain a loan, over or not. Raises `UnknownObjectError`."""
    loans = {loan.metadata.name: loan for loan in index.snapshot.loans}
    if name not in loans:
        raise unknown("loan", name, loans)
    loan = loans[name]
    if not loan.is_over:
        return on_loan(f"loan {name}", loan, index)
    return Explanation(
        f"loan {name}",
        "nobody, the loan is over",
        loan.status.since("Returned"),
        why_back(loan),
        f"nothing; `tidegate explain node {loan.spec.node_name}` tells of the node",
        "",
        _loan_facts(loan, index),
    )


def on_loan(subject: str, loan: NodeLoan, index: Index) -> Explanation:
    """Explain a loan that is not over, or the node that it has."""
    where = stage(loan)
    pool = index.pools.get(loan.spec.pool_name)
    if where == "returning":
        since = loan.status.since("Recalled") or loan.metadata.deletion_timestamp
        because = why_back(loan)
    elif where == "lent":
        since = loan.status.since("Lent")
        partition = f"partition {pool.spec.partition} of " if pool else ""
        because = (
            f"pool {loan.spec.pool_name} lends it to {partition}Slurm, where it is node {loan.spec.slurm_node_name}"
        )
    else:
        since = loan.metadata.creation_timestamp
        because = f"pool {loan.spec.pool_name} lends it to Slurm{_for_job(loan)}"
    next_step = _end_of_loan(loan, pool, index) if where == "lent" else next_step_of(loan)
    facts = _loan_facts(loan, index)
    return Explanation(subject, _OWNERS[where], since, because, next_step, _loan_trouble(loan, pool, index), facts)


def _for_job(loan: NodeLoan) -> str:
    job = loan.spec.taken_for
    return f" for job {job.job_id} of priority {job.priority}" if job else ""


def _end_of_loan(loan: NodeLoan, pool: BatchPool | None, index: Index) -> str:
    claim = f"a claim of a priority above {of_loan(loan, index)} needs it"
    terms = index.terms(pool) if pool else None
    if terms is None or terms.policy == "Eager":
        return f"it returns when {claim}"
    return f"it returns when {claim}, or when Slurm had no use for it for {terms.idle_return_seconds} s"


def next_step_of(loan: NodeLoan) -> str:
    """The step that comes next and what the operator says of it."""
    step = _pending_step(loan)
    if not loan.status.conditions and not loan.status.message:
        return f"{_NEXT[step]} ({step}); {NOT_SEEN}"
    words = _news(loan)
    return f"{_NEXT[step]} ({step}){f': {words}' if words else ''}"


def _news(loan: NodeLoan) -> str:
    """The message of the status, unless it only tells of the step that was done last."""
    message = loan.status.message
    told = any(c.status == "True" and c.message == message for c in loan.status.conditions)
    return "" if told else message


def _pending_step(loan: NodeLoan) -> str:
    """The first step that is not done on the way that the loan goes now."""
    steps = RETURN_STEPS if loan.is_wanted_back else LEND_STEPS
    return next((step for step in steps if not loan.status.is_true(step)), steps[-1])


def _loan_trouble(loan: NodeLoan, pool: BatchPool | None, index: Index) -> str:
    status, step = loan.status, loan.status.condition(_pending_step(loan))
    overdue = status.condition(OVERDUE)
    if overdue and overdue.status == "True":
        return f"overdue since {utc(overdue.last_transition_time)}: {overdue.message or 'the deadline has passed'}"
    if step and step.status == "False":
        return reasoned(step.reason, step.message)
    if pool is None:
        return f"pool {loan.spec.pool_name} does not exist; without it the Slurm of this loan is not known"
    ready = pool.status.condition("Ready")
    if ready and ready.status == "False" and ready.reason.startswith("Slurm"):
        return f"pool {pool.metadata.name} is not Ready: {ready.message or ready.reason}"
    if stage(loan) == "lent":
        return _news(loan)
    pods = index.slurmd_pods.get(loan.metadata.name, ())
    if not loan.is_wanted_back and (waits := next((p for p in pods if p.waiting_reason or p.scheduler_message), None)):
        return f"slurmd pod {waits.key}: {waits.waiting_reason or waits.scheduler_message}"
    return _news(loan) if loan.is_wanted_back and status.jobs and not status.is_true("Drained") else ""


def why_back(loan: NodeLoan) -> str:
    """Why the loan returns or returned."""
    back, recalled = loan.spec.back, loan.status.condition("Recalled")
    if back:
        return reasoned(back.reason, back.message)
    if recalled and recalled.status == "True":
        return reasoned(recalled.reason, recalled.message)
    return "the loan was asked to return or deleted"


def _loan_facts(loan: NodeLoan, index: Index) -> Facts:
    status, ledger, back = loan.status, loan.status.ledger, loan.spec.back
    before = loan.metadata.creation_timestamp
    steps: list[tuple[str, str]] = []
    done = [c for step in (*LEND_STEPS, *RETURN_STEPS) if (c := status.condition(step)) and c.status == "True"]
    for step in done:
        then = step.last_transition_time
        time = f"{utc(then)} after {lasted(then - before)}" if before else utc(then)
        steps.append((step.type, f"{time}, {reasoned(step.reason, step.message)}"))
        before = then
    jobs = [
        (f"job {job.job_id}", f"{job.action} {utc(job.time)}{'' if job.requeueable else ', it may not be requeued'}")
        for job in status.jobs
    ]
    cost = f"{ledger.requeued_jobs} jobs requeued, {ledger.cancelled_jobs} cancelled"
    lost = f"at most {ledger.lost_gpu_seconds} GPU-seconds of work lost"
    return given(
        ("node", loan.spec.node_name),
        ("pool", loan.spec.pool_name),
        ("loan", loan.metadata.name),
        ("GPUs", f"{loan.spec.gpus} {loan.spec.gpu_resource_name}"),
        ("priority", _priority(loan, index)),
        ("taken", _for_job(loan).strip()),
        ("for claim", f"{back.claim.namespace}/{back.claim.name}" if back and back.claim else ""),
        ("recall class", back.recall_class if back else ""),
        ("deadline", moment(status.deadline, index.now) if status.deadline else ""),
        *steps,
        *jobs,
        ("ledger", f"lent for {ledger.lent_seconds} s, {cost}, {lost}" if status.is_true("Drained") else ""),
    )


def _priority(loan: NodeLoan, index: Index) -> str:
    worth = of_loan(loan, index)
    return f"{worth}, by its jobs; the pool's is {loan.spec.priority}" if worth > loan.spec.priority else str(worth)


def last_loan(node_name: str, index: Index) -> NodeLoan | None:
    """The newest loan of the node that is over."""
    ended = [loan for loan in index.loans_by_node.get(node_name, ()) if loan.is_over]
    return max(ended, key=lambda loan: (created(loan), loan.metadata.name), default=None)

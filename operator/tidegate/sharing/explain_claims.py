"""What a claim holds, what it waits for, and why nothing can be recalled for it."""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.api import CapacityClaim, NodeLoan
from tidegate.sharing.explain_loans import next_step_of
from tidegate.sharing.explanation import (
    MOST,
    NOT_SEEN,
    Explanation,
    Facts,
    UnknownObjectError,
    given,
    key_of,
    listed,
    moment,
    reasoned,
    said,
    unknown,
)
from tidegate.sharing.index import Index
from tidegate.sharing.lead_time import back_by
from tidegate.sharing.lifetime import ends_at
from tidegate.sharing.needs import amount, coming_loans, held_nodes, is_automatic, pods_of, wanted_nodes, words_of
from tidegate.sharing.report import LATE, TOLD
from tidegate.sharing.reservations import is_due, words_of_wait


def explain_claim(name: str, namespace: str, index: Index) -> Explanation:
    """`name` may be `namespace/name`; an empty `namespace` looks in all. Raises `UnknownObjectError`."""
    claims = {key_of(c): c for c in index.snapshot.claims}
    found = [c for key, c in sorted(claims.items()) if name in (key, c.metadata.name)]
    found = [c for c in found if namespace in ("", c.metadata.namespace)]
    if not found:
        raise unknown("claim", f"{namespace}/{name}" if namespace else name, claims)
    if len(found) > 1:
        raise UnknownObjectError(f"There are several claims {name}: name one of {listed(map(key_of, found))}.")
    claim, held = found[0], held_nodes(found[0], index)
    count = f"{len(held)} of {wanted_nodes(claim, index)} nodes"
    return Explanation(
        f"claim {key_of(claim)}",
        f"holds {count}: {listed(node.name for node in held)}" if held else f"holds {count}",
        claim.status.since("Satisfied") or claim.metadata.creation_timestamp,
        _why_claimed(claim),
        _next_of_claim(claim, index),
        _claim_trouble(claim),
        _claim_facts(claim, index),
    )


def _why_claimed(claim: CapacityClaim) -> str:
    holder = claim.spec.holder_ref
    whose = f"{holder.kind} {holder.name}" if holder else "the pods that carry its name in the label tidegate.dev/claim"
    maker = "Tidegate made it for the pending GPU pods of" if is_automatic(claim) else "it was made by hand for"
    return f"{maker} {whose}"


def _next_of_claim(claim: CapacityClaim, index: Index) -> str:
    satisfied = claim.status.condition("Satisfied")
    if claim.is_over or claim.metadata.uid not in index.live_claims:
        return "nothing, the claim is over"
    if satisfied is None:
        return f"the operator looks for nodes; {NOT_SEEN}"
    if satisfied.status == "True":
        return end_of_hold(claim)
    if coming := coming_loans(claim, index):
        return f"it gets {listed(loan.spec.node_name for loan in coming)} as soon as Slurm has let go"
    if satisfied.reason == "Reserved":
        return words_of_wait(claim, index)
    if satisfied.reason == "Binding":
        return "kube-scheduler binds its pods"
    return "loans are recalled, or free nodes held, as soon as there are any for it"


def _claim_trouble(claim: CapacityClaim) -> str:
    satisfied, expired = claim.status.condition("Satisfied"), claim.status.condition("Expired")
    if expired and expired.status == "True":
        return reasoned(expired.reason, expired.message)
    return reasoned(satisfied.reason, satisfied.message) if satisfied and satisfied.status == "False" else ""


def _claim_facts(claim: CapacityClaim, index: Index) -> Facts:
    priority, coming = index.priority_of(claim), coming_loans(claim, index)
    pods, end = pods_of(claim, index), ends_at(claim, index)
    bound = sum(bool(pod.node) for pod in pods)
    return given(
        ("pool", claim.spec.pool_name),
        ("priority", f"{priority} ({claim.spec.priority_class_name or 'default'})" if priority is not None else ""),
        ("recall class", claim.spec.recall_class),
        ("pods", f"{bound} of {len(pods)} bound" if pods else "none yet"),
        ("amount", f"{words_of(amount(claim), claim)}{', all or none' if claim.spec.gang else ''}"),
        ("expected", expected(claim, coming, index)),
        ("promised start", moment(promised, index.now) if (promised := claim.status.promised_start) else ""),
        ("started", moment(started, index.now) if (started := claim.status.started) else ""),
        (TOLD, said(told) if (told := claim.status.condition(TOLD)) else ""),
        (LATE, said(late) if (late := claim.status.condition(LATE)) else ""),
        ("ends", f"{moment(end.time, index.now)}, {end.reason}" if end else ""),
        *((f"loan {loan.metadata.name}", next_step_of(loan)) for loan in coming[:MOST]),
        *((f"node {one.node_name}", reasoned(one.answer, one.message)) for one in claim.status.considered),
    )


def expected(claim: CapacityClaim, coming: Sequence[NodeLoan], index: Index) -> str:
    """When the claim has its nodes, as far as that can be told: at its start, or when those on their way are there."""
    pool, start = index.pools.get(claim.spec.pool_name), claim.spec.start_time
    if pool is None or claim.status.is_true("Satisfied"):
        return ""
    times = [back_by(loan, pool, index) for loan in coming]
    if start and not is_due(claim, index):
        times.append(claim.status.promised_start or start)
    if not times and claim.status.expected:
        times.append(claim.status.expected)
    return f"by {moment(max(times), index.now)}" if times else ""


def end_of_hold(claim: CapacityClaim) -> str:
    """When the claim lets go of its nodes."""
    return (
        "once all pods of the claim are bound, the fence goes"
        if is_automatic(claim)
        else "it is held until the claim is deleted or expires"
    )

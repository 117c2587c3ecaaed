"""Who owns a node, loan, claim or pool, why, what happens next and what blocks it: one question, one answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from tidegate.api import BatchPool, NodeLoan
from tidegate.sharing.explain_claims import explain_claim
from tidegate.sharing.explain_loans import explain_loan, next_step_of
from tidegate.sharing.explain_nodes import explain_nodes, pool_blocker
from tidegate.sharing.explanation import (
    MOST,
    NOT_SEEN,
    Explanation,
    given,
    listed,
    moment,
    reasoned,
    said,
    unknown,
    utc,
)
from tidegate.sharing.idleness import Blocker
from tidegate.sharing.index import Index
from tidegate.sharing.priorities import of_loan

Kind = Literal["node", "loan", "claim", "pool"]


def explain(kind: Kind, name: str, namespace: str, index: Index) -> Explanation:
    """Explain one object; an empty `namespace` looks for a claim in all. Raises `UnknownObjectError`."""
    match kind:
        case "node":
            return explain_nodes([name], index)[0]
        case "loan":
            return explain_loan(name, index)
        case "claim":
            return explain_claim(name, namespace, index)
        case "pool":
            return _explain_pool(name, index)


def _explain_pool(name: str, index: Index) -> Explanation:
    pool = index.pools.get(name)
    if pool is None:
        raise unknown("pool", name, index.pools)
    nodes = explain_nodes((node.name for node in index.nodes_of_pool[name]), index)
    owners = Counter(node.owner.partition(" ")[0] for node in nodes)
    ready, exclusive = pool.status.condition("Ready"), pool.status.condition("Exclusive")
    windows, urgent = pool.status.condition("WindowsReadable"), pool.status.condition("UrgentServed")
    blocker = pool_blocker(pool, index)
    loans = index.loans_of(name)
    returning = [loan for loan in loans if loan.is_wanted_back]
    at_home = [node for node in nodes if node.owner == "Kubernetes"]
    blocked = [node for node in at_home if node.blocked_by]
    can_be_lent = [node.subject for node in at_home if not node.blocked_by]
    return Explanation(
        f"pool {name}",
        ", ".join(f"{owner} {count}" for owner, count in sorted(owners.items())) or "it has no nodes",
        ready.last_transition_time if ready else None,
        reasoned(ready.reason, ready.message) if ready else NOT_SEEN,
        _next_of_pool(pool, blocker, can_be_lent, index),
        reasoned(blocker.reason, blocker.message) if blocker else "",
        given(
            ("demand", f"{pool.status.demand_nodes} nodes beyond those lent and joining"),
            ("useful now", f"{pool.status.startable_nodes} of them, with the nodes that may be lent"),
            ("policy", index.terms(pool).policy),
            ("would be lent", _recommended(pool)),
            ("would have been done", _totals(pool)),
            ("window", _window(pool, index)),
            ("Ready", said(ready)),
            ("Exclusive", said(exclusive)),
            ("UrgentServed", said(urgent) if urgent else ""),
            ("WindowsReadable", said(windows) if windows else ""),
            ("next recall", _next_recall(pool, loans, index)),
            *((f"loan {loan.metadata.name}", next_step_of(loan)) for loan in returning[:MOST]),
            *((f"not lent: {node.subject}", node.blocked_by) for node in blocked[:MOST]),
        ),
    )


def _recommended(pool: BatchPool) -> str:
    found = pool.status.recommended
    return "" if found is None else listed(one.name for one in found.nodes) or "no node now"


def _totals(pool: BatchPool) -> str:
    found = pool.status.recommended
    if found is None:
        return ""
    hours = found.node_seconds / 3600
    return f"{found.lends} lends, {found.recalls} recalls and {hours:.1f} node-hours in Slurm since {utc(found.since)}"


def _window(pool: BatchPool, index: Index) -> str:
    if not pool.spec.lending.windows:
        return ""
    window = index.open_windows[pool.metadata.name]
    if window is None:
        return "none is open, the pool's own terms hold"
    return f"number {window.number} (`{window.schedule}`) is open, it closes {moment(window.closes, index.now)}"


def _next_of_pool(pool: BatchPool, blocker: Blocker | None, can_be_lent: list[str], index: Index) -> str:
    if blocker and blocker.reason == "NoDemand":
        return f"a node is lent when a pending job of partition {pool.spec.partition} can use it"
    if blocker:
        return "no node is lent before that is over"
    if not can_be_lent:
        return "a node is lent when one is free to be lent"
    return f"{listed(can_be_lent)} can be lent after {index.terms(pool).idle_seconds} s without a GPU pod"


def _next_recall(pool: BatchPool, loans: Sequence[NodeLoan], index: Index) -> str:
    staying = [loan for loan in loans if not loan.is_wanted_back]
    if not staying:
        return "no node is on loan"
    terms, ends = index.terms(pool), [f"a claim has a priority above {min(of_loan(loan, index) for loan in staying)}"]
    if terms.headroom.low:
        ends.append(f"fewer than {terms.headroom.low} nodes are free for Kubernetes")
    if terms.kubernetes.floor:
        ends.append(f"Kubernetes has fewer than {terms.kubernetes.floor} nodes")
    if terms.policy == "DemandDriven":
        ends.append(f"Slurm had no use for a node for {terms.idle_return_seconds} s")
    return f"when {', or '.join(ends)}"

"""All pools, nodes and waiting claims at a glance, as tables or JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tidegate.api import CapacityClaim
from tidegate.sharing.allotment import in_order
from tidegate.sharing.explain_nodes import explain_nodes
from tidegate.sharing.explanation import NOT_SEEN, Explanation, age, key_of, utc
from tidegate.sharing.index import Index, gpus_of
from tidegate.sharing.needs import held_nodes, wanted_nodes

_OWNERS = ("Kubernetes", "joining", "Slurm", "returning", "claim")


@dataclass(frozen=True, slots=True)
class _Row:
    """A node in the table of its pool."""

    pool: str
    node: str
    gpus: int
    loan: str
    said: Explanation

    @property
    def words(self) -> str:
        return self.said.blocked_by or (self.said.because if self.said.owner == "Slurm" else self.said.next_step)


def print_tables(index: Index, console: Console) -> None:
    """The pools, then the nodes of each pool, then the claims that wait."""
    if not index.pools and not index.active_loans:
        console.print("There is no BatchPool yet.")
        return
    rows = _rows(index)
    console.print(_pools(rows, index))
    for pool in sorted({row.pool for row in rows}):
        console.print(_nodes(pool, [row for row in rows if row.pool == pool], index))
    if waiting := _waiting(index):
        console.print(_claims(waiting, index))


def as_json(index: Index) -> str:
    """The same for programs."""
    rows = _rows(index)
    pools = [
        {
            "name": name,
            "ready": pool.status.is_true("Ready"),
            "reason": reason,
            "message": message,
            "demandNodes": pool.status.demand_nodes,
            "nodesByOwner": _counts(name, rows),
        }
        for name, pool in sorted(index.pools.items())
        for reason, message in [_readiness(name, index)]
    ]
    nodes = [
        {
            "pool": row.pool,
            "name": row.node,
            "owner": row.said.owner,
            "gpus": row.gpus,
            "loan": row.loan or None,
            "since": utc(row.said.since) if row.said.since else None,
            "because": row.said.because,
            "nextStep": row.said.next_step,
            "blockedBy": row.said.blocked_by,
        }
        for row in rows
    ]
    claims = [
        {
            "namespace": claim.metadata.namespace,
            "name": claim.metadata.name,
            "pool": claim.spec.pool_name,
            "priority": index.priority_of(claim),
            "heldNodes": len(held_nodes(claim, index)),
            "nodes": wanted_nodes(claim, index),
            "reason": reason,
            "message": message,
        }
        for claim in _waiting(index)
        for reason, message in [_why_waiting(claim)]
    ]
    return json.dumps({"pools": pools, "nodes": nodes, "claims": claims}, indent=2, ensure_ascii=False)


def _rows(index: Index) -> list[_Row]:
    """All nodes of pools by pool and name; one on loan is in the table of the pool that borrowed it."""
    pool_of = {node.name: pool for pool, nodes in index.nodes_of_pool.items() for node in nodes}
    pool_of |= {node: loan.spec.pool_name for node, loan in index.active_loans.items()}
    names = sorted(pool_of, key=lambda name: (pool_of[name], name))
    return [
        _Row(
            pool=pool_of[name],
            node=name,
            gpus=loan.spec.gpus if loan else gpus_of(index.snapshot.nodes[name], index.pools[pool_of[name]]),
            loan=loan.metadata.name if loan else "",
            said=said,
        )
        for name, said in zip(names, explain_nodes(names, index), strict=True)
        for loan in [index.active_loans.get(name)]
    ]


def _pools(rows: list[_Row], index: Index) -> Table:
    table = Table(title="Pools", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("Pool", no_wrap=True)
    table.add_column("Ready")
    for owner in _OWNERS:
        table.add_column(owner.capitalize(), justify="right")
    table.add_column("Demand", justify="right")
    table.add_column("Why", overflow="fold")
    for name, pool in sorted(index.pools.items()):
        ready = pool.status.condition("Ready")
        counts = (str(count) for count in _counts(name, rows).values())
        words = ": ".join(filter(None, _readiness(name, index)))
        table.add_row(name, ready.status if ready else "Unknown", *counts, str(pool.status.demand_nodes), words)
    return table


def _counts(pool: str, rows: list[_Row]) -> dict[str, int]:
    found = Counter(row.said.owner.partition(" ")[0] for row in rows if row.pool == pool)
    return {owner: found[owner] for owner in _OWNERS}


def _readiness(pool: str, index: Index) -> tuple[str, str]:
    ready = index.pools[pool].status.condition("Ready")
    return (ready.reason, ready.message) if ready else ("", NOT_SEEN)


def _nodes(pool: str, rows: list[_Row], index: Index) -> Table:
    spec = index.pools[pool].spec if pool in index.pools else None
    words = f"Slurm {spec.slurm_cluster_name}, partition {spec.partition}" if spec else "this pool does not exist"
    table = Table(title=f"Nodes of pool {pool} ({words})", title_justify="left", box=SIMPLE_HEAD)
    for column in ("Node", "Owner"):
        table.add_column(column, no_wrap=True)
    table.add_column("GPUs", justify="right")
    table.add_column("Loan", no_wrap=True)
    table.add_column("Since", justify="right", no_wrap=True)
    table.add_column("Why or next", overflow="fold")
    for row in rows:
        since = _age(row.said.since, index.now)
        table.add_row(row.node, row.said.owner, str(row.gpus), row.loan, since, row.words)
    return table


def _age(moment: datetime | None, now: datetime) -> str:
    return age(now - moment) if moment else ""


def _waiting(index: Index) -> list[CapacityClaim]:
    return [claim for claim in in_order(index) if not claim.status.is_true("Satisfied")]


def _claims(claims: list[CapacityClaim], index: Index) -> Table:
    table = Table(title="Waiting claims", title_justify="left", box=SIMPLE_HEAD)
    for column in ("Claim", "Pool"):
        table.add_column(column, no_wrap=True)
    for column in ("Priority", "Held"):
        table.add_column(column, justify="right")
    table.add_column("Why", overflow="fold")
    for claim in claims:
        priority = index.priority_of(claim)
        held = f"{len(held_nodes(claim, index))}/{wanted_nodes(claim, index)}"
        words = ": ".join(filter(None, _why_waiting(claim)))
        table.add_row(key_of(claim), claim.spec.pool_name, "?" if priority is None else str(priority), held, words)
    return table


def _why_waiting(claim: CapacityClaim) -> tuple[str, str]:
    satisfied = claim.status.condition("Satisfied")
    return (satisfied.reason, satisfied.message) if satisfied else ("", NOT_SEEN)

"""Let quarantined nodes be lent again: what they did so far counts no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from tidegate.api import BatchPool
from tidegate.api.names import RELEASED_ANNOTATION
from tidegate.api.resource import rfc3339
from tidegate.cli.look import see
from tidegate.cluster.client import KubeApi
from tidegate.cluster.kinds import NODES
from tidegate.sharing.budgets import counted_loans, loans_in_window, quarantined_until
from tidegate.sharing.explanation import unknown, utc
from tidegate.sharing.index import Index, created


async def release(kube: KubeApi, names: Sequence[str], now: datetime, say: Callable[[str], None]) -> None:
    """Write the moment onto those of the nodes that are quarantined, and close `kube`. `say` gets a line for each node.

    Raises `UnknownObjectError` before anything is written when there is no node of a name, and `KubeError`.
    """
    try:
        index = await see(kube, now)
        for name in names:
            if name not in index.snapshot.nodes:
                raise unknown("node", name, index.snapshot.nodes)
        for name in dict.fromkeys(names):
            say(await _release(kube, name, index))
    finally:
        await kube.close()


async def _release(kube: KubeApi, name: str, index: Index) -> str:
    pool = index.pools.get(index.pool_of_node.get(name, ""))
    if pool is None:
        return f"node {name}: no pool selects it, so that it is not lent anyway"
    until = quarantined_until(name, pool, index)
    if until is None:
        return f"node {name}: it is not quarantined, {_count(name, pool, index)}"
    # The API server's clock wrote when loans started; one that is slow here must not leave the newest of them out.
    moment = max(index.now, created(counted_loans(name, pool, index)[-1]))
    await kube.patch(NODES, name, {"metadata": {"annotations": {RELEASED_ANNOTATION: rfc3339(moment)}}})
    return f"node {name}: released, it was quarantined until {utc(until)}"


def _count(name: str, pool: BatchPool, index: Index) -> str:
    budget, loans = index.terms(pool).flap_budget, loans_in_window(name, pool, index)
    return (
        f"{loans} loans within {budget.window_seconds} s, flapBudget of pool {pool.metadata.name} allows {budget.loans}"
    )

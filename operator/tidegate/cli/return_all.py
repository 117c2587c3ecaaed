"""Stop all pools and wait until every node is home, as an uninstall needs it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tidegate.api import BatchPool, NodeLoan
from tidegate.cli.failures import Failed
from tidegate.cluster import views
from tidegate.cluster.client import KubeApi
from tidegate.cluster.errors import NotFound, Unreachable
from tidegate.cluster.kinds import BATCH_POOLS, NODE_LOANS
from tidegate.sharing.explanation import listed

STOP_POLICY = "HoldAndDrain"
POLL_SECONDS = 2.0
SETTLE_SECONDS = 15.0
"""An operator that lives takes note of a changed pool within this time, and then records no more loans of it."""
REPEAT_SECONDS = 30.0
"""Progress that does not change is told again after this long."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """One look at what is out."""

    loans: tuple[NodeLoan, ...]
    unaware: tuple[str, ...]
    """Pools whose stop the operator has not taken note of."""

    @property
    def words(self) -> str:
        if self.loans:
            return f"{_nodes(len(self.loans))} still on loan: {listed(map(_story, self.loans))}"
        return f"no node is on loan; waiting for the operator to take note of the stop of {listed(self.unaware)}"


async def take_all_back(
    kube: KubeApi,
    timeout_seconds: float,
    say: Callable[[str], None],
    monotonic: Callable[[], float] = time.monotonic,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Set stopPolicy HoldAndDrain on all pools, wait until no loan is out, and close `kube`.

    `say` gets progress, a line each. Raises `Failed` when loans are still out after `timeout_seconds`, and `KubeError`;
    an API server that does not answer for a while is asked again until then.
    """
    try:
        await _take_all_back(kube, timeout_seconds, say, monotonic, pause)
    except NotFound:
        say("The cluster does not know Tidegate's resources: nothing can be on loan.")
    finally:
        await kube.close()


async def _take_all_back(
    kube: KubeApi,
    timeout_seconds: float,
    say: Callable[[str], None],
    monotonic: Callable[[], float],
    pause: Callable[[float], Awaitable[None]],
) -> None:
    start = stopped_at = told_at = monotonic()
    told, seen = "", None
    while True:
        try:
            if await _stop_pools(kube, say):
                stopped_at = monotonic()
            seen = await _look(kube)
            words = seen.words
            if not seen.loans and not seen.unaware:
                say("All nodes are home.")
                return
            if not seen.loans and monotonic() - stopped_at >= SETTLE_SECONDS:
                say("All nodes are home. No operator has taken note of the stop: it seems that none runs.")
                return
        except Unreachable as error:
            words = str(error)
        if monotonic() - start >= timeout_seconds:
            raise Failed(_too_late(seen, words, timeout_seconds))
        if words != told or monotonic() - told_at >= REPEAT_SECONDS:
            say(words)
            told, told_at = words, monotonic()
        await pause(POLL_SECONDS)


async def _stop_pools(kube: KubeApi, say: Callable[[str], None]) -> bool:
    """Stop the pools that are not stopped yet. Whether there were any."""
    found = False
    for raw in await kube.list(BATCH_POOLS):
        name, policy = raw["metadata"]["name"], raw["spec"].get("stopPolicy", "None")
        if policy == STOP_POLICY:
            continue
        try:
            await kube.patch(BATCH_POOLS, name, {"spec": {"stopPolicy": STOP_POLICY}})
        except NotFound:
            say(f"pool {name}: deleted meanwhile")
            continue
        found = True
        say(f"pool {name}: stopPolicy was {policy}, now it is {STOP_POLICY}")
    return found


async def _look(kube: KubeApi) -> _Seen:
    try:
        pools = [views.resource(BatchPool, raw) for raw in await kube.list(BATCH_POOLS)]
        loans = [views.resource(NodeLoan, raw) for raw in await kube.list(NODE_LOANS)]
    except ValueError as error:
        raise Failed(str(error)) from error
    return _Seen(
        loans=tuple(loan for loan in loans if not loan.is_over),
        unaware=tuple(p.metadata.name for p in pools if (p.status.observed_generation or 0) < p.metadata.generation),
    )


def _too_late(seen: _Seen | None, words: str, timeout_seconds: float) -> str:
    if seen is None or not seen.loans:
        return f"Gave up after {timeout_seconds:.0f} s: {words.rstrip('.')}."
    hint = f" and see that the operator runs, it has not taken note of the stop of {listed(seen.unaware)}"
    every = ", ".join(map(_story, seen.loans))
    return (
        f"{_nodes(len(seen.loans))} still on loan after {timeout_seconds:.0f} s: {every}; "
        f"look at `tidegate explain loan {seen.loans[0].metadata.name}`{hint if seen.unaware else ''}, then run this "
        "again, or set stopPolicy of the pools back to None to keep lending."
    )


def _nodes(count: int) -> str:
    return "1 node is" if count == 1 else f"{count} nodes are"


def _story(loan: NodeLoan) -> str:
    status = loan.status
    return f"{loan.metadata.name} ({status.message or status.state or 'not taken up yet'})"

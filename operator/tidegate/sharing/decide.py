"""The one decision: from what was seen to what shall be done."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from tidegate.api import BatchPool, Recommended
from tidegate.api.names import RETURN_FINALIZER
from tidegate.sharing.allotment import allot, in_order
from tidegate.sharing.announcements import announce
from tidegate.sharing.automatic import make_automatic
from tidegate.sharing.budgets import in_window
from tidegate.sharing.claims import let_go, tend, write_status
from tidegate.sharing.commands import Advice, Command, CreateLoan, ForgetLoan, GuardPool
from tidegate.sharing.index import Index
from tidegate.sharing.inference import tend_services
from tidegate.sharing.lending import lend
from tidegate.sharing.loans import advance, finish
from tidegate.sharing.recalls import recall_by_terms
from tidegate.sharing.recommend import advise, has_begun, imagine, may_begin, recommends, words_for_claims
from tidegate.sharing.snapshot import Snapshot
from tidegate.sharing.standing import write_cluster_status, write_pool_status
from tidegate.sharing.takings import take


def decide(snapshot: Snapshot, now: datetime) -> list[Command]:
    """Everything that should be done now, in an order that may be cut off anywhere.

    Claims come before lending (reserve first), and a loan that is turned around here moves on only in the next
    decision, after the API server has recorded it.
    """
    index = Index(snapshot, now)
    if not any(map(recommends, snapshot.pools)):
        return _decide(index, {}, {})
    imagined, shadows = imagine(index)
    as_if = _decide(Index(imagined, now), {}, {})
    advice = {shadow.pool.metadata.name: advise(shadow, as_if, index) for shadow in shadows}
    return _decide(index, advice, words_for_claims(as_if, index))


def _decide(
    index: Index, advice: Mapping[str, tuple[Recommended, tuple[Advice, ...]]], words: Mapping[str, str]
) -> list[Command]:
    """`advice` by pool and `words` by claim say what those that only recommend would do: they begin nothing."""
    snapshot = index.snapshot
    commands: list[Command] = []
    for cluster in snapshot.clusters.values():
        commands += write_cluster_status(cluster, index)
    commands += make_automatic(index)
    for claim in in_order(index):
        if claim.metadata.uid not in words or has_begun(claim, index):
            commands += tend(claim, index)
    allotment = allot(index)
    holds, recalls = may_begin(allotment.holds, index), may_begin(allotment.recalls, index)
    commands += [*holds, *recalls]
    announced = announce(index)
    commands += announced.commands
    for claim in index.open_claims:
        uid = claim.metadata.uid
        commands += write_status(claim, allotment, announced.told.get(uid), index, words.get(uid, ""))
    commands += let_go(index)
    turned = {command.key for command in recalls}
    held = frozenset(hold.node.name for hold in holds)
    for pool in index.pools.values():
        more = [c for c in may_begin(recall_by_terms(pool, index), index) if c.key not in turned]
        turned |= {command.key for command in more}
        commands += more
        commands += _lend_guarded(pool, index, held)
    takings = take(index, held, [command for command in commands if isinstance(command, CreateLoan)])
    commands += takings.loans
    for name, pool in index.pools.items():
        commands += write_pool_status(pool, index, takings.said.get(name), *advice.get(name, ()))
    commands += tend_services(index)
    for loan in index.ended_loans:
        commands += finish(loan, index)
    for loan in index.open_loans:
        if f"node/{loan.spec.node_name}" not in turned:
            commands += advance(loan, index)
    return commands + _forget(index)


def _lend_guarded(pool: BatchPool, index: Index, held: frozenset[str]) -> list[Command]:
    """New loans only of a pool that has the finalizer, so that it cannot vanish while nodes are out.

    A pool that shall have no loans loses it again, so that it can be deleted when no operator is left to say so.
    """
    guarded = RETURN_FINALIZER in pool.metadata.finalizers
    ends = pool.metadata.deletion_timestamp is not None or pool.spec.stop_policy == "HoldAndDrain"
    if ends or recommends(pool):
        out = any(loan.spec.pool_name == pool.metadata.name for loan in index.open_loans)
        return [GuardPool(pool, False)] if guarded and not out else []
    return lend(pool, index, held) if guarded else [GuardPool(pool, True)]


def _forget(index: Index) -> list[Command]:
    """Ended loans beyond the pool's history limit; each node keeps its newest, which holds its number.

    Those within the flap window stay, too: they are what the flap budget counts.
    """
    newest: dict[str, str] = {}
    commands: list[Command] = []
    kept: dict[str, int] = {}
    for loan in reversed(index.ended_loans):
        pool = index.pools.get(loan.spec.pool_name)
        kept[loan.spec.pool_name] = kept.get(loan.spec.pool_name, 0) + 1
        first_of_node = newest.setdefault(loan.spec.node_name, loan.metadata.name) == loan.metadata.name
        node_exists = loan.spec.node_name in index.snapshot.nodes
        beyond = pool is None or (
            kept[loan.spec.pool_name] > pool.spec.history_limit and not in_window(loan, pool, index)
        )
        if beyond and not (first_of_node and node_exists) and loan.metadata.deletion_timestamp is None:
            commands.append(ForgetLoan(loan))
    return commands

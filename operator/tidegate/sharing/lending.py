"""How many nodes of a pool go to Slurm now, and which."""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.api import BatchPool, NodeLoan, NodeLoanSpec, TakenFor
from tidegate.api.names import loan_name, slurm_node_name
from tidegate.sharing.budgets import failed_loans
from tidegate.sharing.commands import Command, CreateLoan
from tidegate.sharing.demand import Room, more_partitions, nodes_wanted, waiting_jobs
from tidegate.sharing.idleness import Blocker, free_nodes, lasting_blocker, lend_blocker
from tidegate.sharing.index import Index, gpu_resource, gpus_of
from tidegate.sharing.reservations import reserved, words_of_kept
from tidegate.sharing.sides import sides
from tidegate.sharing.snapshot import Node, SlurmJob, SlurmNode, SlurmState


def sample_room(pool: BatchPool, index: Index) -> Room | None:
    """What the pool's smallest node offers to Slurm, so that only jobs that fit are counted; None without nodes."""
    return index.once(_sample_room, pool.metadata.name)


def _sample_room(pool_name: str, index: Index) -> Room | None:
    nodes, pool = index.nodes_of_pool[pool_name], index.pools[pool_name]
    if not nodes:
        return None
    rooms = [_stays(node, index) for node in nodes]
    return Room(
        gpus=min(gpus_of(node, pool) for node in nodes),
        cpus=min(cpus for cpus, _ in rooms),
        memory_mib=min(memory_mib for _, memory_mib in rooms),
    )


def _stays(node: Node, index: Index) -> tuple[int, int]:
    there = [p for p in index.pods_by_node.get(node.name, ()) if not p.gpus and p.loan is None]
    cpu_millis = node.cpu_millis - sum(p.cpu_millis for p in there)
    return cpu_millis // 1000, node.memory_mib - sum(p.memory_mib for p in there)


def demand(pool: BatchPool, slurm: SlurmState, index: Index) -> int:
    """How many nodes beyond those lent and joining the pool's pending jobs could use, were all its nodes free."""
    return wanted(pool, slurm, index, len(index.nodes_of_pool[pool.metadata.name]))


def startable(pool: BatchPool, index: Index) -> int:
    """How many of them let jobs start: a job of several nodes counts only if all of them are to be had by now."""
    return index.once(_startable, pool.metadata.name)


def _startable(pool_name: str, index: Index) -> int:
    pool, slurm = index.pools[pool_name], index.slurm_of(pool_name)
    return wanted(pool, slurm, index, obtainable(pool, slurm, index, soon=False)) if slurm else 0


def obtainable(pool: BatchPool, slurm: SlurmState, index: Index, *, soon: bool) -> int:
    """How many nodes the pool's terms let Slurm have beyond those lent and joining: those that may be lent now, and
    those on their way back for nobody. With `soon` free nodes count, too, that have not idled long enough yet.

    Lending asks for those of now, returning for those of soon. If lending hoped for more than returning does, the nodes
    of a job of several nodes would come and go for ever, and never be there together.
    """
    loans, terms = index.loans_of(pool.metadata.name), index.terms(pool)
    returning = {one.spec.node_name for one in loans if one.is_wanted_back and not index.is_promised(one)}

    def comes(node: Node) -> bool:
        if node.name in returning or soon:
            return lasting_blocker(node, pool, index, slurm) is None
        return lend_blocker(node, pool, index, slurm) is None

    coming = [node for node in index.nodes_of_pool[pool.metadata.name] if node.name in returning] if returning else []
    most = sum(map(comes, [*free_nodes(pool, index), *coming]))
    most = min(most, len(free_nodes(pool, index)) + len(returning) - terms.headroom.high)
    most = min(most, sides(pool, index).kubernetes + len(returning) - terms.kubernetes.floor)
    if terms.cap is not None:
        most = min(most, terms.cap - sum(not one.is_wanted_back for one in loans))
    return max(most, 0)


def wanted(pool: BatchPool, slurm: SlurmState, index: Index, most: int, but_for: Sequence[NodeLoan] = ()) -> int:
    """How many nodes, at most `most`, pending jobs could use beyond those lent and joining.

    Loans on their way back, and those of `but_for`, count as if their nodes were not in Slurm.
    """
    sample = sample_room(pool, index)
    if sample is None:
        return 0
    loans = index.loans_of(pool.metadata.name)
    staying, joining = as_it_stays(pool, slurm, index, but_for)
    coming_home = [*but_for, *(one for one in loans if one.is_wanted_back and not index.is_promised(one))]
    home = max(len(free_nodes(pool, index)) + len(coming_home), most)
    kept = reserved(pool.metadata.name, slurm, home, index)
    jobs = index.once(jobs_that_wait, pool.metadata.name)
    return nodes_wanted(jobs, pool, staying, joining, sample, most, kept)


def as_it_stays(
    pool: BatchPool, slurm: SlurmState, index: Index, but_for: Sequence[NodeLoan] = ()
) -> tuple[list[SlurmNode], int]:
    """Slurm's nodes without those of loans on their way back and of `but_for`, and how many are joining."""
    loans = index.loans_of(pool.metadata.name)
    joining = sum(not loan.is_wanted_back and not loan.status.is_true("Lent") for loan in loans)
    gone = {loan.spec.slurm_node_name for loan in (*but_for, *(one for one in loans if one.is_wanted_back))}
    return [node for name, node in sorted(slurm.nodes.items()) if name not in gone], joining


def jobs_that_wait(pool_name: str, index: Index) -> list[SlurmJob]:
    """Pending jobs that are the pool's demand, in Slurm's order; none while Slurm cannot be seen."""
    pool, slurm = index.pools[pool_name], index.slurm_of(pool_name)
    if slurm is None:
        return []
    cluster = index.snapshot.clusters.get(pool.spec.slurm_cluster_name)
    return waiting_jobs(pool, slurm, more_partitions(pool, slurm, cluster))


def lend(pool: BatchPool, index: Index, taken: frozenset[str]) -> list[Command]:
    """New loans for the pool; `taken` nodes were given to claims in the same decision.

    Nothing is lent while Slurm cannot be seen, while the pool is stopped, going away or without a usable template, or
    while nodes that are wanted back are few: what is freed for a claim is fenced for it anyway.
    """
    slurm = index.slurm_of(pool.metadata.name)
    if slurm is None or stopped(pool, index) or pool.spec.partition not in slurm.partitions:
        return []
    free = [n for n in free_nodes(pool, index) if n.name not in taken]
    lendable = [n for n in free if lend_blocker(n, pool, index, slurm) is None]
    useful = 0 if index.terms(pool).policy == "Eager" else startable(pool, index)
    count = min(len(lendable), *(nodes for nodes, _ in allowed(pool, index, len(free), useful, useful)))
    best = sorted(
        lendable,
        # A node that failed to join stands behind the others, so that a job does not wait for it again and again.
        key=lambda n: (failed_loans(n.name, pool, index), index.snapshot.idle_since.get(n.name, index.now), n.name),
    )
    return [new_loan(node, pool, index) for node in best[: max(count, 0)]]


def stopped(pool: BatchPool, index: Index) -> Blocker | None:
    """Why the pool lends nothing at all, by what people wrote."""
    if pool.metadata.deletion_timestamp is not None:
        return Blocker("PoolDeleted", f"pool {pool.metadata.name} is being deleted")
    if pool.spec.mode == "Recommend":
        words = f"pool {pool.metadata.name} has mode Recommend and touches nothing; mode Enforce lends"
        return Blocker("Recommending", words)
    if pool.spec.stop_policy != "None":
        words = f"pool {pool.metadata.name} has stopPolicy {pool.spec.stop_policy}; None lends again"
        return Blocker("PoolStopped", words)
    if problem := index.snapshot.template_problems.get(pool.metadata.name):
        return Blocker("TemplateUnusable", problem)
    return None


def allowed(
    pool: BatchPool, index: Index, free: int, demand_nodes: int, startable_nodes: int
) -> list[tuple[int, Blocker]]:
    """How many more nodes each term of the pool allows to lend with `free` nodes, and what to say if that is none."""
    name, terms = pool.metadata.name, index.terms(pool)
    loans = [loan for loan in index.loans_of(name) if not loan.is_wanted_back]
    joining = sum(not loan.status.is_true("Lent") for loan in loans)
    limits = []
    least = terms.floor - len(loans)
    if terms.policy == "DemandDriven":
        kept = words_of_kept(name, index)
        words = f"no pending job of partition {pool.spec.partition} could use one more node{kept}"
        limits.append((max(demand_nodes, least), Blocker("NoDemand", words)))
    words = f"pool {name} has {free} free nodes and keeps headroom.high {terms.headroom.high} for Kubernetes"
    limits.append((free - terms.headroom.high, Blocker("Headroom", words)))
    theirs = sides(pool, index).kubernetes
    words = f"Kubernetes has {theirs} nodes of pool {name} and keeps kubernetes.floor {terms.kubernetes.floor}"
    limits.append((theirs - terms.kubernetes.floor, Blocker("KubernetesFloor", words)))
    if terms.cap is not None:
        words = f"pool {name} has {len(loans)} nodes on loan, its cap is {terms.cap}"
        limits.append((terms.cap - len(loans), Blocker("CapReached", words)))
    words = f"{joining} nodes of pool {name} are joining, maxJoining is {terms.max_joining}"
    limits.append((terms.max_joining - joining, Blocker("MaxJoining", words)))
    if terms.policy == "DemandDriven":
        words = (
            f"pending jobs could use {demand_nodes} more nodes, but none starts with those that may be lent now{kept}"
        )
        limits.append((max(startable_nodes, least), Blocker("TooFewNodes", words)))
    return limits


def new_loan(node: Node, pool: BatchPool, index: Index, taken_for: TakenFor | None = None) -> CreateLoan:
    """The loan that the node would go out on."""
    numbers = [_number(loan.metadata.name) for loan in index.loans_by_node.get(node.name, ())]
    spec = NodeLoanSpec(
        pool_name=pool.metadata.name,
        node_name=node.name,
        slurm_node_name=slurm_node_name(node.name),
        gpu_resource_name=gpu_resource(node, pool) or "",
        gpus=gpus_of(node, pool),
        priority=pool.spec.priority,
        taken_for=taken_for,
    )
    return CreateLoan(loan_name(node.name, 1 + max(numbers, default=0)), spec)


def _number(name: str) -> int:
    tail = name.rpartition("-")[2]
    return int(tail) if tail.isdigit() else 0

"""The trip of one node: the next thing to do for a loan, and what is left to do once it is over.

Each step looks at the world, not at what was done before: it is repeated until the world shows its effect, and then the
condition is set. So a crash, a lost answer or a second operator only repeats a step.
"""

from __future__ import annotations

from tidegate.api import NodeLoan
from tidegate.sharing.commands import Command, DeleteSlurmdPod, EndLoan, ReleaseNode, WriteLoanStatus
from tidegate.sharing.index import Index
from tidegate.sharing.lend_steps import go_out
from tidegate.sharing.loan_step import with_overdue
from tidegate.sharing.priorities import of_loan
from tidegate.sharing.return_steps import come_back


def advance(loan: NodeLoan, index: Index) -> list[Command]:
    """The next commands for a loan that is not over, its status write among them."""
    step = come_back(loan, index) if loan.is_wanted_back else go_out(loan, index)
    status = with_overdue(step.status, loan, index.now)
    if not loan.is_wanted_back:
        status = status.but(priority=of_loan(loan, index))
    write: list[Command] = [WriteLoanStatus(loan, status)] if status != loan.status else []
    return [*step.before, *write, *step.after]


def finish(loan: NodeLoan, index: Index) -> list[Command]:
    """What is left to do for a loan that is over: its finalizer, and a fence or pods that came late."""
    commands: list[Command] = []
    node = index.snapshot.nodes.get(loan.spec.node_name)
    pool = index.pools.get(loan.spec.pool_name)
    if pool:
        cluster, pods = pool.spec.slurm_cluster_name, index.slurmd_pods.get(loan.metadata.name, ())
        commands += [DeleteSlurmdPod(cluster, loan, pod) for pod in pods if not pod.deleting]
        if node and node.fence == loan.metadata.name:
            commands.append(ReleaseNode(loan, cluster, None))
    if loan.metadata.finalizers and not commands:
        commands.append(EndLoan(loan))
    return commands

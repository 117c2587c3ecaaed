"""Effects on Slurm. Each concerns a node or job that a loan names, and checks that the node is still that loan's."""

from __future__ import annotations

from tidegate.api import NodeLoan
from tidegate.controllers.hands import Hands, NotYet
from tidegate.controllers.node_appliers import live_loan
from tidegate.sharing.commands import (
    AnnounceReservation,
    CancelJob,
    DeleteSlurmNode,
    DownSlurmNode,
    DrainSlurmNode,
    RequeueJob,
    ResumeSlurmNode,
    SignalJob,
    WithdrawReservation,
)
from tidegate.sharing.index import extra_of, is_drained_by_others, joins
from tidegate.sharing.snapshot import SlurmNode


async def drain_slurm_node(command: DrainSlurmNode, hands: Hands) -> None:
    record = await _record(command.cluster_name, command.loan, hands)
    if record and not is_drained_by_others(record):
        await hands.slurm(command.cluster_name).drain(record.name, command.reason)


async def resume_slurm_node(command: ResumeSlurmNode, hands: Hands) -> None:
    loan = await live_loan(command.loan, hands)
    record = await _record(command.cluster_name, loan, hands)
    if loan.is_wanted_back or record is None or not joins(record):
        raise NotYet(f"Slurm node {loan.spec.slurm_node_name} is not ours to resume")
    await hands.slurm(command.cluster_name).resume(record.name)


async def signal_job(command: SignalJob, hands: Hands) -> None:
    await hands.slurm(command.cluster_name).signal_job(command.job_id, command.signal)


async def requeue_job(command: RequeueJob, hands: Hands) -> None:
    await hands.slurm(command.cluster_name).requeue_job(command.job_id)


async def cancel_job(command: CancelJob, hands: Hands) -> None:
    await hands.slurm(command.cluster_name).cancel_job(command.job_id)


async def down_slurm_node(command: DownSlurmNode, hands: Hands) -> None:
    record = await _record(command.cluster_name, command.loan, hands)
    if record:
        await hands.slurm(command.cluster_name).down(record.name, command.reason)


async def delete_slurm_node(command: DeleteSlurmNode, hands: Hands) -> None:
    """Delete the record of this loan, or one that an earlier loan of the node left behind; never somebody else's."""
    slurm = hands.slurm(command.cluster_name)
    record = await slurm.node(command.loan.spec.slurm_node_name)
    if record is None:
        return
    ours = record.extra.startswith(extra_of(""))
    if not ours or is_drained_by_others(record):
        raise NotYet(f"Slurm node {record.name} is not ours to delete")
    await slurm.delete_node(record.name)


async def announce_reservation(command: AnnounceReservation, hands: Hands) -> None:
    await hands.slurm(command.cluster_name).reserve(command.reservation)


async def withdraw_reservation(command: WithdrawReservation, hands: Hands) -> None:
    await hands.slurm(command.cluster_name).withdraw(command.reservation_name)


async def _record(cluster_name: str, loan: NodeLoan, hands: Hands) -> SlurmNode | None:
    record = await hands.slurm(cluster_name).node(loan.spec.slurm_node_name)
    return record if record and record.extra == extra_of(loan.metadata.name) else None

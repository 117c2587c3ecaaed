"""From commands to effects: one applier for each kind of command, one command at a time for each node."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tidegate.cluster.errors import Conflict, KubeError, NotFound, Protected
from tidegate.controllers import metrics
from tidegate.controllers import node_appliers as node
from tidegate.controllers import record_appliers as record
from tidegate.controllers import service_appliers as service
from tidegate.controllers import slurm_appliers as slurm
from tidegate.controllers.evict_pod import evict_pod
from tidegate.controllers.hands import Hands, NotYet
from tidegate.sharing import commands as c
from tidegate.slurm.errors import SlurmError

log = logging.getLogger(__name__)

Applier = Callable[[Any, Hands], Awaitable[None]]

APPLIERS: dict[type[c.Command], Applier] = {
    c.CreateLoan: record.create_loan,
    c.FenceNode: node.fence_node,
    c.ConfirmVacated: node.confirm_vacated,
    c.EvictPod: evict_pod,
    c.CreateSlurmdPod: node.create_slurmd_pod,
    c.ResumeSlurmNode: slurm.resume_slurm_node,
    c.RecallLoan: record.recall_loan,
    c.DrainSlurmNode: slurm.drain_slurm_node,
    c.SignalJob: slurm.signal_job,
    c.RequeueJob: slurm.requeue_job,
    c.CancelJob: slurm.cancel_job,
    c.DownSlurmNode: slurm.down_slurm_node,
    c.AnnounceReservation: slurm.announce_reservation,
    c.WithdrawReservation: slurm.withdraw_reservation,
    c.UnlabelNode: node.unlabel_node,
    c.DeleteSlurmdPod: node.delete_slurmd_pod,
    c.DeleteSlurmNode: slurm.delete_slurm_node,
    c.ReleaseNode: node.release_node,
    c.WriteLoanStatus: record.write_loan_status,
    c.EndLoan: record.end_loan,
    c.ForgetLoan: record.forget_loan,
    c.CreateClaim: record.create_claim,
    c.ResizeClaim: record.resize_claim,
    c.TieToHolder: record.tie_to_holder,
    c.TolerateFence: node.tolerate_fence,
    c.TellPod: record.tell_pod,
    c.HoldNode: node.hold_node,
    c.FreeNode: node.free_node,
    c.FreeSurplus: node.free_surplus,
    c.WriteClaimStatus: record.write_claim_status,
    c.ForgetClaim: record.forget_claim,
    c.WritePoolStatus: record.write_pool_status,
    c.GuardPool: record.guard_pool,
    c.WriteClusterStatus: record.write_cluster_status,
    c.ApplyPart: service.apply_part,
    c.WriteServiceStatus: service.write_service_status,
}
"""Every step that Tidegate can take. Tests that kill the operator go through this table."""

_PARALLEL = 16


async def apply_all(commands: Sequence[c.Command], hands: Hands) -> int:
    """Apply the commands; those with one key in their order, and after a failure the rest of that key not at all.

    Returns how many had their effect. A failure is counted and logged in one sentence; the next decision sees a world
    without that effect and decides again.
    """
    by_key: dict[str, list[c.Command]] = defaultdict(list)
    for command in commands:
        by_key[command.key].append(command)
    metrics.QUEUE_DEPTH.set(len(commands))
    limit = asyncio.Semaphore(_PARALLEL)

    async def in_order(group: list[c.Command]) -> int:
        async with limit:
            for done, command in enumerate(group):
                if not await apply(command, hands):
                    return done
            return len(group)

    done = await asyncio.gather(*(in_order(group) for group in by_key.values()))
    metrics.QUEUE_DEPTH.set(0)
    return sum(done)


async def apply(command: c.Command, hands: Hands) -> bool:
    """Apply one command if the Lease is ours. Whether it had its effect."""
    name = type(command).__name__
    if not hands.may_act():
        metrics.COMMANDS.labels(name, "not_leader").inc()
        return False
    result = "done"
    try:
        await APPLIERS[type(command)](command, hands)
    except (Conflict, NotFound) as error:
        result = "stale"
        log.info("%s for %s looks again: %s", name, command.key, error)
    except (NotYet, Protected) as error:
        result = "not_yet"
        log.info("%s for %s waits: %s", name, command.key, error)
    except (KubeError, SlurmError) as error:
        result = "failed"
        log.warning("%s for %s failed: %s", name, command.key, error)
    except Exception:  # a bug in one step must not keep the other nodes from coming home
        result = "bug"
        log.exception("%s for %s met a bug", name, command.key)
    metrics.COMMANDS.labels(name, result).inc()
    return result == "done"

"""`SlurmApi` on slurmrestd. What differs between releases ends here: callers see capabilities, not versions."""

from __future__ import annotations

import asyncio
import random as random_numbers
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tidegate.api.names import DRAIN_REASON_PREFIX, RESERVATION_PREFIX
from tidegate.sharing.snapshot import SlurmNode, SlurmReservation, SlurmState
from tidegate.slurm.api import REQUEUE, RESERVATION, SIGNALS
from tidegate.slurm.errors import Busy, NoCommonVersion, Rejected
from tidegate.slurm.job_book import JobBook, statuses
from tidegate.slurm.records import (
    Answer,
    JobRecord,
    Jobs,
    JobStates,
    Killed,
    Nodes,
    Partitions,
    Reservations,
    parse_node,
    parse_reservation,
)
from tidegate.slurm.rest import LONG_LIST_SECONDS, TOTAL_SECONDS, OnRequest, PathUnknown, Rest
from tidegate.slurm.token import TokenSource

VERSIONS = ("v0.0.45", "v0.0.44", "v0.0.43", "v0.0.42")
"""REST versions that Tidegate knows, newest first."""
WITH_REQUEUE = frozenset({"v0.0.45"})
WITH_RESERVATION = frozenset({"v0.0.45", "v0.0.44", "v0.0.43"})
WITHOUT_EXCLUSIVE = frozenset({"v0.0.45"})
"""Versions that do not tell whether a job wants whole nodes (seen with 26.05.5): jobs are read with an older one."""

# Slurm's error numbers
_BUSY = 2016
_NO_SUCH_JOB = 2017
_NO_SUCH_NODE = 2018
_NOT_NOW = 2020  # a signal for a job that is pending
_ALREADY_DONE = 2021
_PENDING = 2024
_NO_SUCH_RESERVATION = 2053
_HAS_BEGUN = 2104

_NO_NODE = "tidegate-no-such-node"
_AT_ONCE = 4
"""So many records are asked for at the same time."""


@dataclass(frozen=True, slots=True)
class _Common:
    """What both sides speak."""

    newest: str
    jobs: str
    release: str

    @property
    def capabilities(self) -> frozenset[str]:
        """What can be done beyond the common ground."""
        known = {REQUEUE: WITH_REQUEUE, RESERVATION: WITH_RESERVATION}
        return frozenset(capability for capability, versions in known.items() if self.newest in versions)


class SlurmRestClient:
    """One Slurm cluster over its slurmrestd.

    `name` is the SlurmCluster's and `user` whom the tokens are for, both for messages; `endpoint` such as
    `https://host:6820`; `ca_pem` are certificate authorities to trust instead of the system's; `random` gives numbers
    from 0 to 1; `on_request` hears of each request as `Rest` says; `total_seconds` is the time-out of all requests but
    the list of all jobs.
    """

    def __init__(
        self,
        name: str,
        endpoint: str,
        user: str,
        token_source: TokenSource,
        ca_pem: bytes | None,
        clock: Callable[[], datetime],
        *,
        random: Callable[[], float] = random_numbers.random,
        on_request: OnRequest = lambda call, seconds, reason: None,
        total_seconds: float = TOTAL_SECONDS,
    ) -> None:
        self._name = name
        self._user = user
        self._clock = clock
        self._rest = Rest(name, endpoint, user, token_source, ca_pem, clock, random, on_request, total_seconds)
        self._common: _Common | None = None
        self._book = JobBook()
        self._has_rights = False

    # -- reading --------------------------------------------------------------------------------------------------

    async def observe(self) -> SlurmState:
        """All of it. The order of the requests matters: see job_book."""
        start = self._clock()
        try:
            common = await self._agreed()
            await self._read_jobs(common, ())
            partitions = await self._rest.read(f"/slurm/{common.newest}/partitions/", Partitions)
            answer = await self._rest.read(f"/slurm/{common.newest}/nodes/", Nodes)
            nodes = {record.name: parse_node(record) for record in answer.nodes or ()}
            reservations = await self._reservations(common)
            doubtful, unexplained = self._book.doubts(nodes)
            if doubtful or unexplained:
                await self._read_jobs(common, doubtful)
        except PathUnknown:
            self._common = None
            raise
        except ValueError as error:
            raise Rejected(f"Slurm cluster {self._name}: its answer makes no sense ({error})") from error
        if answer.release != common.release:
            # slurmrestd was replaced by another release: agree anew next time
            self._common = None
        return SlurmState(
            observed=start,
            release=answer.release,
            data_parser=common.newest,
            capabilities=common.capabilities,
            partitions=frozenset(record.name for record in partitions.partitions or ()),
            node_sets={r.name: frozenset(r.node_sets.split(",")) for r in partitions.partitions or () if r.node_sets},
            nodes=nodes,
            jobs=dict(self._book.jobs),
            reservations=reservations,
        )

    async def node(self, name: str) -> SlurmNode | None:
        """The record as it is now."""
        common = await self._agreed()
        try:
            answer = await self._rest.read(f"/slurm/{common.newest}/node/{name}", Nodes)
        except Rejected as error:
            if not error.numbers <= {0, _NO_SUCH_NODE}:
                raise
            # An unknown node is answered by "No error", which is not enough to conclude from: the whole list is.
            answer = await self._rest.read(f"/slurm/{common.newest}/nodes/", Nodes)
        return next((parse_node(record) for record in answer.nodes or () if record.name == name), None)

    async def _reservations(self, common: _Common) -> dict[str, SlurmReservation]:
        """Ours, where we can make any."""
        if RESERVATION not in common.capabilities:
            return {}
        answer = await self._rest.read(f"/slurm/{common.newest}/reservations/", Reservations)
        ours = (record for record in answer.reservations or () if record.name.startswith(RESERVATION_PREFIX))
        return {record.name: parse_reservation(record) for record in ours}

    async def _read_jobs(self, common: _Common, also: Collection[int]) -> None:
        """Bring the book up to date: all jobs that are new or changed, and `also` these."""
        path = f"/slurm/{common.jobs}"
        light = await self._rest.read(f"{path}/jobs/state/", JobStates)
        wanted = self._book.open(statuses(light.jobs or ())) | set(also)
        start = self._clock()
        if self._book.wants_full_list(wanted, start):
            answer = await self._rest.read(f"{path}/jobs/", Jobs, seconds=LONG_LIST_SECONDS)
            self._book.take_all(answer.jobs or (), start, self._clock())
            return
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def read(job_id: int) -> list[JobRecord]:
            async with at_once:
                return await self._job(common, job_id)

        found = await asyncio.gather(*(read(job_id) for job_id in sorted(wanted)))
        self._book.take(wanted, [record for records in found for record in records])

    async def _job(self, common: _Common, job_id: int) -> list[JobRecord]:
        """The job's record; an array's own comes with those of its tasks, and none when the job is gone."""
        try:
            answer = await self._rest.read(f"/slurm/{common.jobs}/job/{job_id}", Jobs)
        except Rejected as error:
            if error.numbers <= {_NO_SUCH_JOB}:
                return []
            raise
        return answer.jobs or []

    # -- acting ---------------------------------------------------------------------------------------------------

    async def drain(self, name: str, reason: str) -> None:
        """Let nothing new start on the node."""
        if not await self._is_drained_by_others(name):
            await self._update_node(name, {"state": ["DRAIN"], "reason": reason})

    async def resume(self, name: str) -> None:
        """Let jobs start on the node. UNDRAIN, which leaves DOWN and all else as it is, and may be said twice."""
        await self._update_node(name, {"state": ["UNDRAIN"]})

    async def down(self, name: str, reason: str) -> None:
        """End what is on the node. DRAIN first: Slurm takes one state at a time, and slurmd takes DOWN back."""
        if await self._is_drained_by_others(name):
            await self._update_node(name, {"state": ["DOWN"]})
        else:
            await self._update_node(name, {"state": ["DRAIN"], "reason": reason})
            await self._update_node(name, {"state": ["DOWN"], "reason": reason})

    async def delete_node(self, name: str) -> None:
        """Forget a dynamic node."""
        try:
            await self._act("DELETE", f"/node/{name}", Answer)
        except Rejected as error:
            if error.numbers <= {_NO_SUCH_NODE} and await self.node(name) is None:
                return
            if _BUSY in error.numbers:
                raise Busy(f"{error.message}; it can be deleted once nothing runs or is cleaned up there") from error
            raise

    async def signal_job(self, job_id: int, signal: str) -> None:
        """Send a signal to all of the job."""
        if signal not in SIGNALS:
            raise Rejected(f"Slurm cluster {self._name}: {signal} is no signal that can be sent to job {job_id}")
        # FULL_JOB: batch shell, its children and all steps
        await self._kill(job_id, {"signal": signal, "flags": "FULL_JOB"}, fine={_ALREADY_DONE, _NO_SUCH_JOB, _NOT_NOW})

    async def requeue_job(self, job_id: int) -> None:
        """Put the job back into the queue."""
        common = await self._agreed()
        if common.newest not in WITH_REQUEUE:
            raise Rejected(
                f"Slurm cluster {self._name}: release {common.release} cannot requeue job {job_id} by itself; "
                "from 26.05 on it can, and before that by DOWN of its node"
            )
        try:
            # Incomplete: without it a job that has ended well in the meantime would run once more
            await self._act("GET", f"/job/{job_id}/requeue", Answer, {"Incomplete": "true"})
        except Rejected as error:
            if not error.numbers & {_NO_SUCH_JOB, _PENDING, _ALREADY_DONE}:
                raise

    async def cancel_job(self, job_id: int) -> None:
        """End the job for good."""
        await self._kill(job_id, {}, fine={_ALREADY_DONE, _NO_SUCH_JOB})

    async def reserve(self, reservation: SlurmReservation) -> None:
        """Make or change a reservation over nodes on which jobs may run."""
        common = await self._agreed()
        if RESERVATION not in common.capabilities:
            raise Rejected(
                f"Slurm cluster {self._name}: release {common.release} takes no reservation by REST; "
                "from 25.05 on it does"
            )
        body = {
            "name": reservation.name,
            "node_list": list(reservation.nodes),
            "end_time": _seconds(reservation.end),
            "users": [self._user],
            # OVERLAP: the nodes may be in a reservation of somebody else, too, which ours leaves as it is
            "flags": ["IGNORE_JOBS", "SPEC_NODES", "OVERLAP"],
        }
        try:
            await self._act("POST", "/reservation", Answer, body={**body, "start_time": _seconds(reservation.start)})
        except Rejected as error:
            if _HAS_BEGUN not in error.numbers:
                raise
            # the beginning of one that has begun cannot be changed, all the rest can
            await self._act("POST", "/reservation", Answer, body=body)

    async def withdraw(self, reservation_name: str) -> None:
        """End a reservation."""
        try:
            await self._act("DELETE", f"/reservation/{reservation_name}", Answer)
        except Rejected as error:
            if _NO_SUCH_RESERVATION not in error.numbers:
                raise

    async def close(self) -> None:
        """Close the connections."""
        await self._rest.close()

    async def _kill(self, job_id: int, query: dict[str, str], fine: set[int]) -> None:
        await self._prove_rights()
        try:
            answer = await self._act("DELETE", f"/job/{job_id}", Killed, query)
        except Rejected as error:
            if error.numbers and error.numbers <= fine:
                return
            raise
        for status in answer.status or ():
            if status.error and status.error.code not in {0, *fine}:
                raise Rejected(f"Slurm cluster {self._name}: job {job_id}: {status.error.string}", status.error.code)

    async def _prove_rights(self) -> None:
        """Find out once whether we may act on jobs of others, without touching one.

        slurmctld 24.11.5 and 26.05.5 hang for good when a user without the right signals or cancels the job of another.
        Changing nodes takes more rights, and they are looked at before the name of the node is.
        """
        if not self._has_rights:
            try:
                await self._update_node(_NO_NODE, {"state": ["DRAIN"], "reason": f"{DRAIN_REASON_PREFIX} rights"})
            except Rejected as error:
                if _NO_SUCH_NODE not in error.numbers:
                    raise
            self._has_rights = True

    async def _is_drained_by_others(self, name: str) -> bool:
        record = await self.node(name)
        return record is not None and record.is_drained and not record.reason.startswith(DRAIN_REASON_PREFIX)

    async def _update_node(self, name: str, change: dict[str, Any]) -> None:
        await self._act("POST", f"/node/{name}", Answer, body=change)

    async def _act(self, method: Any, path: str, answer: Any, query: Any = None, body: Any = None) -> Any:
        common = await self._agreed()
        try:
            return await self._rest.act(method, f"/slurm/{common.newest}{path}", answer, query, body)
        except PathUnknown:
            self._common = None
            raise

    # -- versions -------------------------------------------------------------------------------------------------

    async def _agreed(self) -> _Common:
        """The versions to use; found out by pings, newest first, and kept until slurmrestd says otherwise."""
        if self._common is None:
            newest = jobs = release = ""
            for version in VERSIONS:
                try:
                    answer = await self._rest.read(f"/slurm/{version}/ping/", Answer)
                except PathUnknown:
                    continue
                newest, jobs, release = newest or version, version, answer.release
                if version not in WITHOUT_EXCLUSIVE:
                    break
            if not newest:
                raise NoCommonVersion(
                    f"Slurm cluster {self._name} speaks none of the REST versions {VERSIONS[-1]} to {VERSIONS[0]}; "
                    "use Slurm 24.11 to 26.05, or a Tidegate that knows it"
                )
            self._common = _Common(newest, jobs, release)
        return self._common


def _seconds(moment: datetime) -> dict[str, Any]:
    """A moment as Slurm takes it, to the second."""
    return {"set": True, "number": int(moment.timestamp())}

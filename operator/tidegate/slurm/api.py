"""What Tidegate asks of a Slurm cluster, whatever answers: slurmrestd of any release, or the fake of the tests."""

from __future__ import annotations

from typing import Final, Protocol

from tidegate.sharing.snapshot import SlurmNode, SlurmReservation, SlurmState

REQUEUE: Final = "requeue"
"""Capability: one job can be put back into the queue by itself. Without it only `down` requeues."""

RESERVATION: Final = "reservation"
"""Capability: nodes can be reserved. Without it Slurm cannot be told until when it may plan with a node."""

SIGNALS: Final = frozenset({"HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "TERM", "CONT", "URG", "WINCH"})
"""Signals that `signal_job` sends: slurmrestd takes an unknown name for SIGKILL, so none is passed on."""


class SlurmApi(Protocol):
    """The few things that a hand-over needs. Each raises SlurmError when Slurm did not do or tell what was asked."""

    async def observe(self) -> SlurmState:
        """All nodes, all unfinished jobs with expanded node lists, all partitions: complete, or SlurmError.

        `observed` is the moment before the first request was sent. A node that was busy then and until the answer has
        a record that says so or a job in `jobs` that names it, never neither.
        """
        ...

    async def node(self, name: str) -> SlurmNode | None:
        """The node's record as it is now; None only if Slurm itself says that there is none."""
        ...

    async def drain(self, name: str, reason: str) -> None:
        """Let nothing new start on the node; what runs there runs on.

        A node that somebody else drained (with a reason that is not ours) stays drained by them, for their reason.
        """
        ...

    async def resume(self, name: str) -> None:
        """Let jobs start on a drained node again. One that is not drained is fine."""
        ...

    async def down(self, name: str, reason: str) -> None:
        """End what is on the node: jobs that may be requeued are, others fail. The node stays drained."""
        ...

    async def delete_node(self, name: str) -> None:
        """Forget a dynamic node. Absent already is fine; raises Busy while a job runs or is cleaned up there."""
        ...

    async def signal_job(self, job_id: int, signal: str) -> None:
        """Send a signal of SIGNALS to the batch shell, its children and all steps. A job that does not run is fine."""
        ...

    async def requeue_job(self, job_id: int) -> None:
        """End the job's run and put it back into the queue. A job that is gone, finished or pending stays what it is.

        Needs the capability REQUEUE; raises Rejected without it, and for a job that may not be requeued.
        """
        ...

    async def cancel_job(self, job_id: int) -> None:
        """End the job for good. A job that is gone or finished is fine."""
        ...

    async def reserve(self, reservation: SlurmReservation) -> None:
        """Start no job on the nodes that would run into the reservation, whatever runs there now; make or change it.

        Once a reservation has begun its nodes cannot be deleted. Needs the capability RESERVATION; raises Rejected
        without it.
        """
        ...

    async def withdraw(self, reservation_name: str) -> None:
        """End a reservation. One that is gone is fine."""
        ...

    async def close(self) -> None:
        """Let go of connections; the object is not used afterwards."""
        ...

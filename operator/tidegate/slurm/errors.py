"""What can go wrong between Tidegate and a Slurm cluster. Each error is one sentence, for a condition and for people.

SlurmError
 ├─ Unreachable        no answer that came from Slurm: whether an act was carried out is not known
 ├─ TokenRefused       Slurm does not accept who we say we are
 ├─ PermissionRefused  Slurm knows our user, who may not do what was asked
 ├─ NoCommonVersion    slurmrestd speaks none of the REST versions that Tidegate knows
 ├─ Rejected           Slurm understood and said no, in the words that are quoted
 ├─ Busy               the node still runs or cleans up a job: ask again later
 └─ MissingKey         the credentials Secret lacks what a token could be made from
"""

# Named as the words that people read in a condition.
# ruff: noqa: N818

from __future__ import annotations


class SlurmError(Exception):
    """A request that did not do what was asked.

    `reason` is one CamelCase word for programs; `message` names the cluster, what happened and the way out.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Unreachable(SlurmError):
    """No answer, or none that came from Slurm. Whether an act was carried out is not known."""

    def __init__(self, message: str) -> None:
        super().__init__("Unreachable", message)


class TokenRefused(SlurmError):
    """Slurm refuses the token. Reasons: `TokenExpired`, `TokenRefused` (a ready token), `KeyRefused` (a minted one)."""


class PermissionRefused(SlurmError):
    """Slurm knows our user, who may not do what was asked."""

    def __init__(self, message: str) -> None:
        super().__init__("PermissionRefused", message)


class NoCommonVersion(SlurmError):
    """slurmrestd speaks none of the REST versions that Tidegate knows."""

    def __init__(self, message: str) -> None:
        super().__init__("NoCommonVersion", message)


class Rejected(SlurmError):
    """Slurm understood and said no; the message quotes its words, `numbers` are its error numbers."""

    def __init__(self, message: str, *numbers: int) -> None:
        super().__init__("Rejected", message)
        self.numbers = frozenset(numbers)


class Busy(SlurmError):
    """The node still runs or cleans up a job; ask again later."""

    def __init__(self, message: str) -> None:
        super().__init__("Busy", message)


class MissingKey(SlurmError):
    """The credentials Secret is not there, or lacks what a token could be made from, or holds what is of no use."""

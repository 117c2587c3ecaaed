"""What the appliers act with: the API server, the Slurms, the time, and the memory of what they wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from tidegate.api import InferenceService
from tidegate.cluster.client import Json, KubeApi
from tidegate.cluster.kinds import Kind
from tidegate.slurm.api import SlurmApi


class NotYet(Exception):  # noqa: N818 - it is an answer, not an error
    """What the source itself says forbids the step for now; `str()` is one sentence. The next decision looks again."""


@dataclass(frozen=True)
class Hands:
    """The effects that appliers may have. Tests put fakes here."""

    kube: KubeApi
    slurm: Callable[[str], SlurmApi]
    """The Slurm of a SlurmCluster's name. Raises SlurmError when it has none that works."""
    namespace: str
    """Where slurmd pods and the operator live."""
    clock: Callable[[], datetime]
    remember: Callable[[Kind, Json], object]
    """Takes the answer to an own write, so that the next decision does not rest on an older watch event."""
    applied: Callable[[Kind, Json], object]
    """The same for an answer to `apply`, until somebody else changes that object."""
    refused: Callable[[InferenceService, str, datetime], object]
    """Takes what the API server said against what was made of a service, and when."""
    gate_image: str
    """What the gate of each replica of an InferenceService runs from."""
    may_act: Callable[[], bool]
    """Whether the Lease is ours, asked before each command."""

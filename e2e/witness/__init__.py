"""The witness: it watches Kubernetes and Slurm with its own eyes and says which promises were broken.

It shares no code with the operator, so that an error of the operator cannot blind it.
"""

from __future__ import annotations

from e2e.witness.judge import Break, Judge, Verdict
from e2e.witness.sights import KubeSight, Moment, SlurmSight
from e2e.witness.timeline import Span, Timeline
from e2e.witness.watch import Witness

__all__ = ["Break", "Judge", "KubeSight", "Moment", "SlurmSight", "Span", "Timeline", "Verdict", "Witness"]

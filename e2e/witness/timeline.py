"""Who owned which node when, as the witness saw it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from e2e.witness.sights import CLAIM_FENCE, Moment

OWNERS = ("Kubernetes", "claim", "Slurm", "none")
"""The side that may place work; `claim` is Kubernetes, but for one claimant; `none` while the node changes hands."""


@dataclass(frozen=True)
class Span:
    """One owner for a while."""

    start: datetime
    end: datetime
    owner: str

    @property
    def seconds(self) -> float:
        """How long it was."""
        return (self.end - self.start).total_seconds()


class Timeline:
    """The spans of each node, in order and without holes."""

    def __init__(self) -> None:
        self.nodes: dict[str, list[Span]] = {}

    def look(self, moment: Moment) -> None:
        """Go on until this moment."""
        for name in sorted(moment.after.nodes):
            owner = owner_of(name, moment)
            spans = self.nodes.setdefault(name, [])
            if spans and spans[-1].owner == owner:
                spans[-1] = Span(spans[-1].start, moment.time, owner)
                continue
            if spans:
                spans[-1] = Span(spans[-1].start, moment.time, spans[-1].owner)
            spans.append(Span(moment.time, moment.time, owner))

    def __str__(self) -> str:
        width = max((len(name) for name in self.nodes), default=0)
        lines = []
        for name, spans in sorted(self.nodes.items()):
            words = "  ".join(f"{span.start:%H:%M:%S} {span.owner} {span.seconds:.1f} s" for span in spans)
            lines.append(f"{name:{width}}  {words}")
        return "\n".join(lines)


def owner_of(name: str, moment: Moment) -> str:
    """One of `OWNERS`."""
    node, slurm_name = moment.after.nodes[name], moment.slurm_name(name)
    record = moment.slurm.nodes.get(slurm_name)
    if (record is not None and record.is_open) or moment.slurm.jobs_on(slurm_name):
        return "Slurm"
    if node.is_open:
        return "Kubernetes"
    return "claim" if node.fence and node.fence.startswith(CLAIM_FENCE) else "none"

"""An explanation as text or JSON."""

from __future__ import annotations

import json
from datetime import datetime

from rich.console import Console
from rich.table import Table

from tidegate.sharing.explanation import Explanation, moment, utc


def print_text(found: Explanation, now: datetime, console: Console) -> None:
    """The answers first, then the facts."""
    answers = Table.grid(padding=(0, 2))
    answers.add_column(style="bold", no_wrap=True)
    answers.add_column(overflow="fold")
    answers.add_row("Owner", found.owner)
    answers.add_row("Since", moment(found.since, now) if found.since else "not known")
    answers.add_row("Why", found.because)
    answers.add_row("Next", found.next_step)
    answers.add_row("Blocked by", found.blocked_by or "nothing")
    answers.add_row()
    for name, value in found.facts:
        answers.add_row(name, value)
    console.print(found.subject, style="bold")
    console.print(answers)


def as_json(found: Explanation) -> str:
    """The same for programs. `since` is null when it is not known, `blockedBy` empty when nothing blocks."""
    content = {
        "subject": found.subject,
        "owner": found.owner,
        "since": utc(found.since) if found.since else None,
        "because": found.because,
        "nextStep": found.next_step,
        "blockedBy": found.blocked_by,
        "facts": dict(found.facts),
    }
    return json.dumps(content, indent=2, ensure_ascii=False)

"""What the API server noted of requests, with its own microseconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from e2e.audit import received
from e2e.lab import Lab

Reference = dict[str, Any]
"""An audit event's `objectRef`."""


class Audit:
    """Requests that came since a moment."""

    def __init__(self, lab: Lab, since: datetime) -> None:
        # The log is written a moment after the answer.
        time.sleep(0.2)
        self._events = [one for one in lab.audit_log() if received(one) >= since]

    def times(
        self,
        verb: str,
        resource: str,
        fits: Callable[[Reference], bool] = lambda ref: not ref.get("subresource"),
        user: str = "",
    ) -> list[datetime]:
        """When they came, in order; without `fits` those to the object itself, of that user or of anybody.

        The name of an object is not in a create, where the API server's answer tells it.
        """
        found = []
        for event in self._events:
            ref = event.get("objectRef") or {}
            of_user = not user or event["user"]["username"] == user
            if event["verb"] == verb and ref.get("resource") == resource and fits(ref) and of_user:
                found.append(received(event))
        if not found:
            raise AssertionError(f"the audit log has no {verb} of {resource}")
        return sorted(found)

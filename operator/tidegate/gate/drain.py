"""The graceful end: no more readiness, but an answer to everything that still comes, until nothing comes any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from tidegate.gate.proxy import Proxy

log = logging.getLogger(__name__)
SETTLE_SECONDS = 5.0
"""The least time that load balancers get to take note that this replica ends."""
QUIET_SECONDS = 2.0
"""No request came or ended for this long: those who would send one know."""
LOOK_SECONDS = 0.1


class Drain:
    """Begins once and is never taken back: its replica ends."""

    def __init__(
        self,
        proxy: Proxy,
        limit_seconds: float,
        clock: Callable[[], float],
        settle_seconds: float = SETTLE_SECONDS,
        quiet_seconds: float = QUIET_SECONDS,
    ) -> None:
        self._proxy = proxy
        self._limit = limit_seconds
        self._clock = clock
        self._settle = settle_seconds
        self._quiet = quiet_seconds
        self._began: float | None = None

    @property
    def began(self) -> bool:
        """Whether the replica ends."""
        return self._began is not None

    async def finish(self) -> bool:
        """Begin, and return when nothing is in flight; False when the limit cut requests off."""
        if self._began is None:
            self._began = self._clock()
            self._proxy.closing = True
            log.info("draining; %d requests are in flight", self._proxy.in_flight)
        while not self._is_done():
            if self._clock() - self._began >= self._limit:
                log.warning("the drain's time is over; %d requests are cut off", self._proxy.in_flight)
                return self._proxy.in_flight == 0
            await asyncio.sleep(LOOK_SECONDS)
        log.info("drained")
        return True

    def _is_done(self) -> bool:
        now = self._clock()
        settled = self._began is not None and now - self._began >= self._settle
        return settled and self._proxy.in_flight == 0 and now - self._proxy.last_request >= self._quiet

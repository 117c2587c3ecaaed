"""The one loop that decides: wait until something changed, look, decide, act, and look again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from tidegate.cluster.kinds import BATCH_POOLS, NODE_LOANS, PODS, SLURM_CLUSTERS
from tidegate.controllers import metrics
from tidegate.controllers.appliers import apply_all
from tidegate.controllers.hands import Hands
from tidegate.controllers.owners import Owners
from tidegate.controllers.slurm_watch import SlurmWatch
from tidegate.controllers.world import World
from tidegate.sharing.decide import decide
from tidegate.sharing.idleness import track_idle
from tidegate.sharing.index import Index
from tidegate.sharing.snapshot import Snapshot
from tidegate.sharing.standing import stage
from tidegate.sharing.waiting import is_stuck, next_settled, track_told, track_waiting

log = logging.getLogger(__name__)
TICK_SECONDS = 1.0
"""The longest time between two rounds: deadlines and idle times pass without an event."""
SETTLE_SECONDS = 0.02
"""Changes that come together are decided on together."""


class Loop:
    """Rounds of observe, decide, apply. `dirty` asks for a round now."""

    def __init__(self, world: World, slurm: SlurmWatch, hands: Hands, clock: Callable[[], datetime]) -> None:
        self._world = world
        self._slurm = slurm
        self._hands = hands
        self._clock = clock
        self._owners = Owners(hands.kube, clock)
        self._dirty = asyncio.Event()
        self._idle_since: dict[str, datetime] = {}
        self._waiting_since: dict[str, datetime] = {}
        self._told: frozenset[str] = frozenset()
        self.last_round: float | None = None
        """When the last round ended, by the monotonic clock."""

    def dirty(self) -> None:
        """Something changed: decide soon."""
        self._dirty.set()

    async def run(self) -> None:
        """Rounds for ever; cancel it to stop."""
        while True:
            try:
                await asyncio.wait_for(self._dirty.wait(), self._patience())
                await asyncio.sleep(SETTLE_SECONDS)
            except TimeoutError:
                log.debug("nothing happened for a while")
            self._dirty.clear()
            if await self.round():
                self._dirty.set()
            self.last_round = time.monotonic()
            metrics.LAST_ROUND.set(time.time())

    def _patience(self) -> float:
        soon = next_settled(self._waiting_since, self._clock())
        return TICK_SECONDS if soon is None else min(soon, TICK_SECONDS)

    async def round(self) -> int:
        """One round. How many commands had their effect."""
        self._slurm.follow(self._world.all(SLURM_CLUSTERS), self._in_transition())
        if not self._hands.may_act():
            return 0
        if await self._owners.look(filter(is_stuck, self._world.all(PODS).values())):
            self._dirty.set()
        snapshot = self._observe()
        with metrics.LOOP_SECONDS.labels("decide").time():
            now = self._clock()
            commands = decide(snapshot, now)
            self._told = track_told(self._told, commands, snapshot)
            metrics.observe_world(Index(snapshot, now))
        with metrics.LOOP_SECONDS.labels("apply").time():
            return await apply_all(commands, self._hands)

    def _observe(self) -> Snapshot:
        with metrics.LOOP_SECONDS.labels("observe").time():
            snapshot = self._world.snapshot(self._slurm.states, self._idle_since)
            now = self._clock()
            self._idle_since = track_idle(self._idle_since, snapshot, now)
            self._waiting_since = track_waiting(self._waiting_since, snapshot, now)
            return replace(
                snapshot,
                idle_since=self._idle_since,
                waiting_since=self._waiting_since,
                told=self._told,
                owners=self._owners.above,
            )

    def _in_transition(self) -> set[str]:
        """Slurm clusters that a node is joining or leaving."""
        pools = {name: pool.spec.slurm_cluster_name for name, pool in self._world.all(BATCH_POOLS).items()}
        loans = self._world.all(NODE_LOANS).values()
        moving = [loan for loan in loans if not loan.is_over and stage(loan) != "lent"]
        return {pools[loan.spec.pool_name] for loan in moving if loan.spec.pool_name in pools}

"""The Lease: at most one operator acts at a time, so that two do not undo each other's work.

Promise 1 does not rest on it; each step is safe against a second operator. The Kubernetes client's own election is not
used: it cannot be asked right before an act whether the lease is still held by our own clock, and it does not let go
at the end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from tidegate.cluster.client import Json, KubeApi
from tidegate.cluster.errors import AlreadyExists, Conflict, KubeError, NotFound
from tidegate.cluster.kinds import LEASES
from tidegate.controllers import metrics

log = logging.getLogger(__name__)
LEASE_NAME = "tidegate"
LEASE_SECONDS = 10
"""How long a dead operator's lease keeps the next one waiting."""
RENEW_SECONDS = 2.0


class Lease:
    """Acquire and renew the Lease; `held` answers by the local monotonic clock, earlier than others may take it."""

    def __init__(self, kube: KubeApi, namespace: str, identity: str, monotonic: Callable[[], float]) -> None:
        self._kube = kube
        self._namespace = namespace
        self._identity = identity
        self._monotonic = monotonic
        self._held_until = float("-inf")
        self._seen: tuple[str, float] = ("", 0.0)

    def held(self) -> bool:
        """Whether the lease is ours for sure at this moment."""
        return self._monotonic() < self._held_until

    async def keep(self) -> None:
        """Acquire and renew for ever; cancel it to stop."""
        while True:
            await self.renew()
            metrics.LEADER.set(self.held())
            await asyncio.sleep(RENEW_SECONDS)

    async def renew(self) -> bool:
        """One try to acquire or renew. Whether the lease is ours now."""
        asked = self._monotonic()
        try:
            if await self._take():
                # Counted from before the request and a second short: nobody else may think it free while we do not.
                self._held_until = asked + LEASE_SECONDS - 1
                return True
        except (Conflict, AlreadyExists):
            log.info("somebody else took the lease %s first", LEASE_NAME)
        except KubeError as error:
            log.warning("the lease %s was not renewed: %s", LEASE_NAME, error)
        return self.held()

    async def release(self) -> None:
        """Let go at the end, so that the next operator need not wait."""
        if not self.held():
            return
        self._held_until = float("-inf")
        try:
            lease = await self._kube.get(LEASES, LEASE_NAME, self._namespace)
            if lease["spec"].get("holderIdentity") == self._identity:
                await self._kube.patch(LEASES, LEASE_NAME, self._patch(lease, holder=None), self._namespace)
        except KubeError as error:
            log.warning("the lease %s was not let go: %s", LEASE_NAME, error)

    async def _take(self) -> bool:
        try:
            lease = await self._kube.get(LEASES, LEASE_NAME, self._namespace)
        except NotFound:
            body: Json = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": LEASE_NAME}}
            body["spec"] = self._spec(self._identity)
            await self._kube.create(LEASES, body, self._namespace)
            return True
        holder = lease["spec"].get("holderIdentity")
        if holder and holder != self._identity and not self._is_expired(lease):
            return False
        await self._kube.patch(LEASES, LEASE_NAME, self._patch(lease, self._identity), self._namespace)
        return True

    def _is_expired(self, lease: Json) -> bool:
        """Whether the lease was not renewed for its duration, by our clock: the holder's clock may be wrong."""
        version, since = self._seen
        if lease["metadata"]["resourceVersion"] != version:
            self._seen = (lease["metadata"]["resourceVersion"], self._monotonic())
            return False
        return self._monotonic() - since > LEASE_SECONDS

    def _patch(self, lease: Json, holder: str | None) -> Json:
        return {"metadata": {"resourceVersion": lease["metadata"]["resourceVersion"]}, "spec": self._spec(holder)}

    def _spec(self, holder: str | None) -> Json:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {"holderIdentity": holder, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}

"""One watcher for each SlurmCluster: it keeps the last observation, and asks more often while nodes change hands."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from tidegate.api import SlurmCluster, SlurmClusterSpec
from tidegate.cluster.client import KubeApi
from tidegate.cluster.errors import KubeError, NotFound
from tidegate.cluster.kinds import SECRETS
from tidegate.controllers import metrics
from tidegate.sharing.snapshot import SlurmState
from tidegate.slurm.api import SlurmApi
from tidegate.slurm.client import SlurmRestClient
from tidegate.slurm.errors import MissingKey, SlurmError, TokenRefused
from tidegate.slurm.token import TokenSource

log = logging.getLogger(__name__)
HURRY_SECONDS = 0.25
"""How often Slurm is asked while a node joins or leaves it."""
SECRET_SECONDS = 60
"""How often the credentials are read again; after a refused token at once."""


class SlurmWatch:
    """The observations and clients of all SlurmClusters."""

    def __init__(
        self, kube: KubeApi, namespace: str, clock: Callable[[], datetime], changed: Callable[[], None]
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._clock = clock
        self._changed = changed
        self._watchers: dict[str, _Watcher] = {}

    @property
    def states(self) -> dict[str, SlurmState]:
        """The last observation by cluster."""
        return {name: watcher.state for name, watcher in self._watchers.items()}

    def client(self, name: str) -> SlurmApi:
        """The client of a cluster. Raises SlurmError when it has none."""
        watcher = self._watchers.get(name)
        if watcher is None or watcher.client is None:
            words = watcher.state.error if watcher else f"there is no SlurmCluster {name}"
            raise SlurmError("NoClient", words or f"SlurmCluster {name} has not been asked yet")
        return watcher.client

    def follow(self, clusters: Mapping[str, SlurmCluster], in_transition: set[str]) -> None:
        """Watch these clusters and no others, and those in transition closely."""
        for name in set(self._watchers) - set(clusters):
            self._watchers.pop(name).stop()
        for name, cluster in clusters.items():
            watcher = self._watchers.get(name)
            if watcher and watcher.spec != cluster.spec:
                watcher.stop()
                watcher = None
            if watcher is None:
                watcher = _Watcher(name, cluster.spec, self._kube, self._namespace, self._clock, self._changed)
                self._watchers[name] = watcher
            watcher.hurry(name in in_transition)

    async def close(self) -> None:
        """Stop watching and close all clients."""
        watchers = list(self._watchers.values())
        self._watchers.clear()
        for watcher in watchers:
            watcher.stop()
        await asyncio.gather(*(watcher.task for watcher in watchers), return_exceptions=True)


class _Watcher:
    def __init__(
        self,
        name: str,
        spec: SlurmClusterSpec,
        kube: KubeApi,
        namespace: str,
        clock: Callable[[], datetime],
        changed: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.state = SlurmState()
        self.client: SlurmRestClient | None = None
        self._name = name
        self._kube = kube
        self._namespace = namespace
        self._clock = clock
        self._changed = changed
        self._hurried = asyncio.Event()
        self._token: TokenSource | None = None
        self._secret_version = ""
        self._secret_read: datetime | None = None
        self.task = asyncio.create_task(self._run(), name=f"slurm-{name}")

    def stop(self) -> None:
        self.task.cancel()

    def hurry(self, yes: bool) -> None:
        if yes:
            self._hurried.set()
        else:
            self._hurried.clear()

    async def _run(self) -> None:
        try:
            while True:
                await self._look()
                if self._hurried.is_set():
                    await asyncio.sleep(HURRY_SECONDS)
                    continue
                try:
                    await asyncio.wait_for(self._hurried.wait(), self.spec.poll_seconds)
                except TimeoutError:
                    continue
        finally:
            if self.client:
                await self.client.close()

    async def _look(self) -> None:
        before, started = self.state, time.monotonic()
        try:
            client = await self._connected()
            self.state = await client.observe()
        except SlurmError as error:
            self.state = replace(before, error=str(error), reason=error.reason)
            if isinstance(error, TokenRefused | MissingKey):
                self._secret_read = None
        result = self.state.reason if self.state.error else "ok"
        metrics.OBSERVATION_SECONDS.labels(self._name, result).observe(time.monotonic() - started)
        if replace(before, observed=None) != replace(self.state, observed=None):
            if before.error != self.state.error:
                log.warning("Slurm %s: %s", self._name, self.state.error or "answers again")
            self._changed()

    async def _connected(self) -> SlurmRestClient:
        """The client, with the credentials of the Secret as it is now."""
        now = self._clock()
        if self._secret_read is None or now - self._secret_read > timedelta(seconds=SECRET_SECONDS):
            await self._read_secret()
            self._secret_read = now
        if self.client is None:
            raise MissingKey("NoCredentials", f"SlurmCluster {self._name} has no credentials yet")
        return self.client

    async def _read_secret(self) -> None:
        name = self.spec.credentials_secret_name
        try:
            secret = await self._kube.get(SECRETS, name, self._namespace)
        except NotFound:
            words = (
                f"SlurmCluster {self._name}: Secret {self._namespace}/{name} does not exist; "
                "create it or correct credentialsSecretName"
            )
            raise MissingKey("SecretNotFound", words) from None
        except KubeError as error:
            raise SlurmError("SecretUnreadable", f"SlurmCluster {self._name}: {error}") from error
        if secret["metadata"]["resourceVersion"] == self._secret_version:
            return
        data = {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
        if self._token is None:
            self._token = TokenSource(f"{self._namespace}/{name}", data, self.spec.user, self._clock)
        else:
            self._token.update(data)
        if self.client is not None:
            await self.client.close()
        self.client = SlurmRestClient(
            self._name,
            self.spec.endpoint,
            self.spec.user,
            self._token,
            data.get("ca.crt"),
            self._clock,
            on_request=partial(metrics.observe_request, self._name),
        )
        self._secret_version = secret["metadata"]["resourceVersion"]

"""The witness's eyes: a thread that reads both sides by plain HTTP, five times a second."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import yaml

from e2e.witness import sights
from e2e.witness.judge import Judge, Verdict
from e2e.witness.sights import KubeSight, Moment, SlurmSight
from e2e.witness.timeline import Timeline

INTERVAL_SECONDS = 0.2
TIMEOUT_SECONDS = 5
TIDEGATE = "/apis/tidegate.dev/v1alpha1"
SLURM = "/slurm/v0.0.42"


class Unseen(Exception):  # noqa: N818 - it is a gap, not an error
    """A side did not answer, or not with what was asked for."""


class Witness:
    """Watches from `with` on until the block ends. `verdict()` may be asked at any time; it looks once more first."""

    def __init__(self, kubeconfig: Path, rest_url: str, token: Callable[[], str]) -> None:
        self.timeline = Timeline()
        self._judge = Judge()
        self._kube = _Kubernetes(kubeconfig)
        self._slurm = _Slurm(rest_url, token)
        self._gaps = 0
        self._last_gap = ""
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(timeout=4 * TIMEOUT_SECONDS)
        self._kube.close()
        self._slurm.close()

    def expect(self, what: str, name: str) -> None:
        """As `Judge.expect`."""
        with self._lock:
            self._judge.expect(what, name)

    def verdict(self) -> Verdict:
        """What was seen so far. Raises what ended the witness's thread, if anything did."""
        self._look()
        if self._error is not None:
            raise RuntimeError("the witness died while it watched") from self._error
        with self._lock:
            return self._judge.verdict(self._gaps, self._last_gap)

    def _run(self) -> None:
        try:
            while not self._end.is_set():
                started = time.monotonic()
                self._look()
                self._end.wait(max(INTERVAL_SECONDS - (time.monotonic() - started), 0.01))
        except Exception as error:  # noqa: BLE001 - told by `verdict`, which fails the test
            self._error = error

    def _look(self) -> None:
        with self._lock:
            try:
                before = self._kube.look()
                slurm = self._slurm.look()
                after = self._kube.look()
            except Unseen as gap:
                self._gaps += 1
                self._last_gap = str(gap)
                return
            moment = Moment(datetime.now(UTC), before, slurm, after)
            self._judge.look(moment)
            self.timeline.look(moment)


class _Door:
    """One kept connection to a server that speaks JSON."""

    def __init__(self, url: str, context: ssl.SSLContext | None = None) -> None:
        self._url = urlsplit(url)
        self._context = context
        self._connection: http.client.HTTPConnection | None = None

    def get(self, path: str, headers: dict[str, str]) -> Any:
        """The JSON at a path. Raises `Unseen`."""
        try:
            connection = self._connection or self._connect()
            self._connection = connection
            connection.request("GET", path, headers={"Accept": "application/json", **headers})
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unseen(f"GET {path}: {error}") from error
        if answer.status != 200:
            raise Unseen(f"GET {path}: {answer.status}")
        try:
            return json.loads(body)
        except ValueError as error:
            raise Unseen(f"GET {path}: no JSON") from error

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._context is None:
            return http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=self._context)

    def close(self) -> None:
        """Let go of the connection; the next read makes a new one."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class _Kubernetes:
    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        self._headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        if "client-certificate-data" in user:
            with tempfile.NamedTemporaryFile() as pem:
                pem.write(base64.b64decode(user["client-certificate-data"]))
                pem.write(base64.b64decode(user["client-key-data"]))
                pem.flush()
                context.load_cert_chain(pem.name)
        self._door = _Door(cluster["server"], context)

    def look(self) -> KubeSight:
        """Nodes first and claims last: what the rules conclude from the one about the other rests on that order."""
        nodes = [sights.kube_node(raw) for raw in self._items("/api/v1/nodes")]
        pods = [
            sights.kube_pod(raw) for raw in self._items("/api/v1/pods?fieldSelector=metadata.namespace!=kube-system")
        ]
        loans = [sights.loan(raw) for raw in self._items(f"{TIDEGATE}/nodeloans")]
        claims = [sights.claim(raw) for raw in self._items(f"{TIDEGATE}/capacityclaims")]
        return KubeSight(
            nodes={node.name: node for node in nodes},
            pods=tuple(pod for pod in pods if pod.node),
            loans={loan.name: loan for loan in loans},
            claims={claim.uid: claim for claim in claims},
        )

    def close(self) -> None:
        """Let go of the connection."""
        self._door.close()

    def _items(self, path: str) -> list[Any]:
        items: list[Any] = self._door.get(path, self._headers)["items"]
        return items


class _Slurm:
    def __init__(self, url: str, token: Callable[[], str]) -> None:
        self._door = _Door(url)
        self._token = token

    def look(self) -> SlurmSight:
        """Jobs first: a job that starts in between is on a node that the second answer shows as busy."""
        jobs = [sights.slurm_job(raw) for raw in self._list("jobs")]
        nodes = [sights.slurm_node(raw) for raw in self._list("nodes")]
        return SlurmSight(nodes={node.name: node for node in nodes}, jobs={job.job_id: job for job in jobs})

    def close(self) -> None:
        """Let go of the connection."""
        self._door.close()

    def _list(self, what: str) -> list[Any]:
        headers = {"X-SLURM-USER-NAME": "slurm", "X-SLURM-USER-TOKEN": self._token()}
        answer = self._door.get(f"{SLURM}/{what}/", headers)
        if answer.get("errors"):
            raise Unseen(f"Slurm answered with errors: {answer['errors']}")
        found: list[Any] = answer[what]
        return found

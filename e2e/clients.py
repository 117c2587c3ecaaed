"""People who use a model: requests at a rate that does not depend on the answers, each with its outcome kept."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from e2e.background import Background
from e2e.kube import Kube
from e2e.operator import wait_for
from e2e.stage import WORK

REQUEST_SECONDS = 60
"""What a person would wait; a request that takes longer has failed."""


@dataclass(frozen=True)
class Outcome:
    """One request. `began` is a moment of the clock that `time.time` shows."""

    began: float
    seconds: float
    problem: str = ""
    """Why it failed; empty when it did not."""
    text: str = ""


class Clients(Background):
    """A thread of clients; use it as a context. `rate` may be changed at any time."""

    def __init__(self, url: str, body: Mapping[str, Any], rate: float) -> None:
        super().__init__("clients", patience_seconds=REQUEST_SECONDS + 10)
        self.rate = rate
        """Requests in a second."""
        self.outcomes: list[Outcome] = []
        self.in_flight = 0
        self._url = url
        self._body = dict(body)

    @property
    def failed(self) -> list[Outcome]:
        """Requests without a good answer."""
        return [outcome for outcome in self.outcomes if outcome.problem]

    def work(self) -> None:
        asyncio.run(self._go_on())

    async def _go_on(self) -> None:
        # As most clients do, these keep their connections for the next request.
        connector, timeout = TCPConnector(limit=0), ClientTimeout(total=REQUEST_SECONDS)
        async with ClientSession(connector=connector, timeout=timeout) as session, asyncio.TaskGroup() as asked:
            due = time.monotonic()
            while not self.end.is_set():
                asked.create_task(self._ask(session))
                due += 1 / self.rate
                await asyncio.sleep(max(due - time.monotonic(), 0))

    async def _ask(self, session: ClientSession) -> None:
        began, started, problem, text = time.time(), time.monotonic(), "", ""
        self.in_flight += 1
        try:
            async with session.post(self._url, json=self._body) as answer:
                body = await answer.text()
                if answer.status == 200:
                    text = (await answer.json())["choices"][0]["text"]
                else:
                    problem = f"{answer.status}: {body[:200]}"
        except (ClientError, TimeoutError, OSError) as error:
            problem = f"{type(error).__name__}: {error}"
        finally:
            self.in_flight -= 1
        self.outcomes.append(Outcome(began, time.monotonic() - started, problem, text))


def way_in(kube: Kube, name: str, selector: Mapping[str, str], port: int) -> str:
    """Make pods with these labels reachable from outside of the cluster; the URL there."""
    service = f"{name}-from-outside"
    spec = {"type": "NodePort", "selector": dict(selector), "ports": [{"port": 80, "targetPort": port}]}
    kube.delete("services", service, WORK)
    made = kube.create("services", {"metadata": {"name": service}, "spec": spec}, WORK)
    # By a node that is never lent: it is always there.
    (node,) = kube.list("nodes", labelSelector="node-role.kubernetes.io/control-plane")
    address = next(one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP")
    where = (address, int(made["spec"]["ports"][0]["nodePort"]))
    wait_for("the way in", lambda: _is_open(where), 20)
    return f"http://{where[0]}:{where[1]}"


def _is_open(where: tuple[str, int]) -> bool:
    try:
        socket.create_connection(where, timeout=2).close()
    except OSError:
        return False
    return True

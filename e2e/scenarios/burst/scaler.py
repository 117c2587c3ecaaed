"""What a HorizontalPodAutoscaler does, with its formula and its rules, only faster: it looks once a second."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from e2e.background import Background
from e2e.kube import Kube, Refused
from e2e.stage import WORK

LOOK_SECONDS = 1.0
TOLERANCE = 0.1
STABLE_SECONDS = 25
"""Down only to what was enough for this long."""
LINE = "tidegate_gate_in_flight_requests "


def desired(present: int, load: float, target: float) -> int:
    """How many replicas the load takes, at `target` for each; the present number while it is about right."""
    if present and abs(load / present / target - 1) <= TOLERANCE:
        return present
    return math.ceil(load / target)


def in_flight(kube: Kube, service: str) -> float:
    """Requests without an answer, as the gates of the service's replicas count them."""
    total = 0.0
    for pod in kube.list("pods", WORK, labelSelector=f"tidegate.dev/inference-service={service}"):
        if pod["status"].get("phase") != "Running":
            continue
        name = pod["metadata"]["name"]
        try:
            text = kube.text(f"/api/v1/namespaces/{WORK}/pods/{name}:8081/proxy/metrics")
        except Refused:
            # Its gate is not there yet, or not any more.
            continue
        total += sum(float(line.removeprefix(LINE)) for line in text.splitlines() if line.startswith(LINE))
    return total


class Scaler(Background):
    """A thread that writes how many replicas there shall be; use it as a context. `wanted` is what it wrote last."""

    def __init__(
        self, load: Callable[[], float], write: Callable[[int], None], target: float, least: int, most: int
    ) -> None:
        super().__init__("scaler")
        self.wanted = least
        self.load = 0.0
        self._measure = load
        self._write = write
        self._target = target
        self._least, self._most = least, most
        self._wishes: deque[tuple[float, int]] = deque()

    def work(self) -> None:
        while not self.end.wait(LOOK_SECONDS):
            self._look(time.monotonic())

    def _look(self, now: float) -> None:
        self.load = self._measure()
        wish = min(max(desired(self.wanted, self.load, self._target), self._least), self._most)
        self._wishes.append((now, wish))
        while self._wishes[0][0] < now - STABLE_SECONDS:
            self._wishes.popleft()
        if wish < self.wanted:
            wish = min(self.wanted, max(one for _, one in self._wishes))
        if wish != self.wanted:
            self._write(wish)
            self.wanted = wish

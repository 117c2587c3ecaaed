"""The story of the burst, step by step; each step is checked."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from e2e.clients import REQUEST_SECONDS, Clients, Outcome, way_in
from e2e.demo.site import Differs
from e2e.operator import wait_for
from e2e.scenarios.burst.record import Record, Sample, quantile
from e2e.scenarios.burst.scaler import Scaler, in_flight
from e2e.stage import GPU, PRIORITY, PRIORITY_CLASS, WORK, Stage

SERVICE = "chat"
REPLICAS = 3
CALM, BURST = 0.3, 1.8
"""The load, where one replica can do 1."""
TARGET = 3.0
"""Requests in flight that one replica shall have."""
TOKENS = 128
CALM_SECONDS = 10
PEAK_SECONDS = 15
REPLICA_CPU = "150m"
"""So little that the limit, and not the machine, says how much a replica can do."""
MEASURE_SECONDS = 4.0
LENDING = {"idleSeconds": 2, "idleReturnSeconds": 4}
RECALL = {"quick": {"drainSeconds": 0, "checkpointSeconds": 3, "requeueSeconds": 15}}


@dataclass
class Played:
    """What is left of the story: what was seen, and what the clients met."""

    samples: list[Sample] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)


def play(stage: Stage, tell: Callable[[str], None], image: str) -> Played:
    """The whole story. Raises `Differs` or `TimeoutError`."""
    played = Played()
    serve(stage, image)
    wait_for("a replica that answers", lambda: ready(stage) == 1, 90)
    tell(f"the service `{SERVICE}` (priority {PRIORITY}) answers: one replica of a real model server, a node to itself")
    for number in range(6):
        stage.checkpointing_job(f"train-{number}", 60)
    stage.wait_lent(2, seconds=60)
    tell("alice has six jobs; Slurm owns the two idle nodes")
    url = way_in(stage.kube, SERVICE, {"tidegate.dev/inference-service": SERVICE}, 8080)
    request = {"prompt": "hello", "max_tokens": TOKENS}
    one = capacity(f"{url}/v1/completions", request)
    clients = Clients(f"{url}/v1/completions", request, CALM * one)
    scaler = Scaler(
        lambda: in_flight(stage.kube, SERVICE),
        lambda replicas: stage.scale_service(SERVICE, replicas),
        TARGET,
        1,
        REPLICAS,
    )
    record = Record(lambda now: sample(stage, scaler, clients, now))
    with ExitStack() as stack:
        for part in (clients, scaler, record):
            stack.enter_context(part)
        wait_for("some calm seconds", lambda: len(record.samples) >= CALM_SECONDS, CALM_SECONDS + 20)
        clients.rate = BURST * one
        tell(
            f"the load rises from {CALM * one:.1f} to {BURST * one:.1f} requests in a second, of which one replica "
            f"can do {one:.1f}"
        )
        wait_for("a second replica", lambda: scaler.wanted > 1, 40)
        tell("the autoscaler wants more replicas; no GPU is free, so nodes are recalled")
        wait_for(f"{REPLICAS} replicas that answer", lambda: ready(stage) == REPLICAS, 120)
        peak = len(record.samples)
        tell("three replicas answer: both nodes came back, and their jobs saved their work and were requeued")
        wait_for("the end of the queue", lambda: clients.in_flight <= TARGET * REPLICAS, 90)
        wait_for("some busy seconds", lambda: len(record.samples) >= peak + PEAK_SECONDS, PEAK_SECONDS + 20)
        clients.rate = CALM * one
        tell("the load falls again")
        wait_for("one replica", lambda: scaler.wanted == 1, 90)
        tell("the autoscaler wants one replica; two answer their last requests")
        stage.wait_lent(2, seconds=90)
        tell("Slurm owns both nodes again, and the jobs go on")
        after = len(record.samples)
        wait_for("some calm seconds", lambda: len(record.samples) >= after + 5, 20)
    played.samples, played.outcomes = record.samples, clients.outcomes
    check(played)
    count, failed = len(played.outcomes), sum(bool(one.problem) for one in played.outcomes)
    half, most = quantile(played.outcomes, 0.5), quantile(played.outcomes, 0.99)
    tell(f"{count} requests, {failed} failed; half of them took up to {half:.1f} s, 99 % up to {most:.1f} s")
    return played


def serve(stage: Stage, image: str) -> None:
    """The service: llama.cpp's preset on a CPU, with a model of random weights from an image."""
    server = {"name": "server", "resources": {"requests": {"cpu": "50m"}, "limits": {"cpu": REPLICA_CPU}}}
    spec = {
        "server": None,
        "preset": {
            "name": "llama.cpp",
            "image": image,
            "imagePullPolicy": "Never",
            "args": ["--n_threads", "1", "--n_threads_batch", "1", "--n_ctx", "512"],
        },
        "model": {"image": {"reference": image, "pullPolicy": "Never"}, "path": "models/tiny.gguf"},
        "maxReplicas": REPLICAS,
        "priorityClassName": PRIORITY_CLASS,
        "gpuResourceName": GPU,
        "drainSeconds": 60,
        "template": {"spec": {"containers": [server]}},
    }
    stage.service(SERVICE, **spec)


def capacity(url: str, request: dict[str, Any]) -> float:
    """How many requests one replica answers in a second, when they come one after the other."""
    body, started, count = json.dumps(request).encode(), time.monotonic(), 0
    while time.monotonic() - started < MEASURE_SECONDS:
        asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=REQUEST_SECONDS) as answer:
            answer.read()
        count += 1
    return count / (time.monotonic() - started)


def ready(stage: Stage) -> int:
    """Replicas that answer."""
    service = stage.kube.get("inferenceservices", SERVICE, WORK) or {}
    count: int = service.get("status", {}).get("readyReplicas", 0)
    return count


def sample(stage: Stage, scaler: Scaler, clients: Clients, now: datetime) -> Sample:
    """How it stands."""
    jobs = stage.lab.rest("GET", "/slurm/v0.0.42/jobs/")["jobs"]
    pending = sum("PENDING" in job["job_state"] for job in jobs)
    return Sample(now, scaler.wanted, ready(stage), clients.in_flight, pending)


def check(played: Played) -> None:
    """What has to be so whatever the figures are."""
    bad = [one for one in played.outcomes if one.problem]
    if bad:
        raise Differs(f"{len(bad)} of {len(played.outcomes)} requests failed, the first: {bad[0].problem}")
    if len({one.text for one in played.outcomes}) < 2:
        raise Differs("the model said the same to everybody")
    if max(one.ready for one in played.samples) != REPLICAS or played.samples[-1].ready != 1:
        raise Differs(f"{[one.ready for one in played.samples]} replicas were ready, second by second")

"""Which pods wait for nodes that a claim could get them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from tidegate.api import BatchPool
from tidegate.api.names import AUTOMATIC_LABEL, CLAIM_LABEL
from tidegate.sharing.commands import Command, TellPod
from tidegate.sharing.index import Index, wants_gpu
from tidegate.sharing.snapshot import Pod, Snapshot

DEBOUNCE_SECONDS = 0.2
"""Pods of one controller come one after the other. When no more came for this long, a claim is made for them all."""
LONGEST_DEBOUNCE_SECONDS = 2.0
"""While more keep coming, the first of them is kept waiting for this long at most."""

_pause = timedelta(seconds=DEBOUNCE_SECONDS)


def is_stuck(pod: Pod) -> bool:
    """Whether kube-scheduler tried to place the pod, which asks for GPUs, and found no node."""
    free_to_go = not pod.node and not pod.gated and not pod.deleting
    return free_to_go and pod.unschedulable and bool(pod.gpus) and pod.loan is None


def is_served(pod: Pod, pool: BatchPool, index: Index) -> bool:
    """Whether Tidegate makes claims on the pool for such a pod by itself: the pod, its namespace, or the pool says so.

    A pod that names an explicit claim has one already.
    """
    if CLAIM_LABEL in pod.labels or not wants_gpu(pod, pool):
        return False
    for labels in (pod.labels, index.snapshot.namespaces.get(pod.namespace, {})):
        if (said := labels.get(AUTOMATIC_LABEL)) in ("true", "false"):
            return said == "true"
    return pool.spec.claims.automatic == "OptOut"


def track_waiting(previous: Mapping[str, datetime], snapshot: Snapshot, now: datetime) -> dict[str, datetime]:
    """Since when each pod that is stuck, by UID, was seen to be so. Forgetting it only makes claims a little later."""
    return {pod.uid: previous.get(pod.uid, now) for pod in snapshot.pods if is_stuck(pod)}


def track_told(previous: frozenset[str], commands: Iterable[Command], snapshot: Snapshot) -> frozenset[str]:
    """UIDs of the pods that wait and were told why no claim is made for them. Forgetting it tells them once more."""
    told = previous | {command.pod.uid for command in commands if isinstance(command, TellPod)}
    return told & {pod.uid for pod in snapshot.pods if is_stuck(pod)} if told else told


def is_settled(pods: Iterable[Pod], index: Index) -> bool:
    """Whether no pod has joined those that wait for a moment, so that one claim may be made, or sized, for all of them.

    While more and more come one after the other, the first of them is kept waiting for a while and no longer.
    """
    since = index.snapshot.waiting_since
    seen = sorted((since.get(pod.uid, index.now) for pod in pods if is_stuck(pod)), reverse=True)
    if not seen or index.now - seen[0] >= _pause:
        return True
    began = seen[0]
    for moment in seen:
        if began - moment >= _pause:
            break
        began = moment
    return index.now - began >= timedelta(seconds=LONGEST_DEBOUNCE_SECONDS)


def next_settled(waiting_since: Mapping[str, datetime], now: datetime) -> float | None:
    """In how many seconds the next pod will have waited for long enough; None when none is about to."""
    ends = (moment + _pause for moment in waiting_since.values())
    return min(((end - now).total_seconds() for end in ends if end > now), default=None)

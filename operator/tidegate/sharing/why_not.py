"""Why no claim is made for pods that wait: said once on each of a few pods, where people look first."""

from __future__ import annotations

from tidegate.sharing.commands import Command, TellPod
from tidegate.sharing.fit import kind_of, obstacle
from tidegate.sharing.index import Index
from tidegate.sharing.places import on_loan, placed_by_scheduler
from tidegate.sharing.snapshot import Pod
from tidegate.sharing.waiting import is_served

_MOST_TOLD = 8
"""Pods of one controller that are told; the others say the same."""


def tell_why_not(pods: list[Pod], index: Index) -> list[Command]:
    """Events on the oldest of the pods, none of which gets a claim."""
    oldest = sorted(pods, key=lambda pod: (pod.created, pod.key))[:_MOST_TOLD]
    untold = [pod for pod in oldest if pod.uid not in index.snapshot.told]
    words = {kind: why_not(pod, index) for kind, pod in {kind_of(pod): pod for pod in untold}.items()}
    return [TellPod(pod, words[kind_of(pod)]) for pod in untold if words[kind_of(pod)]]


def why_not(pod: Pod, index: Index) -> str:
    """One sentence why none of the nodes on loan could run the pod. Empty when it needs none of them, or opted out."""
    pools = [p for p in index.pools.values() if p.spec.mode == "Enforce" and is_served(pod, p, index)]
    nodes = [node for pool in pools for node in on_loan(pool, index)]
    if not nodes or pod.uid in placed_by_scheduler(index):
        return ""
    found = {obstacle(pod, node) for node in nodes}
    if "" in found:
        return (
            "no claim is made: nodes on loan could run it, but not together with the pods that there are; see its "
            "topology spread, its affinity to pods, and for a gang whether the pool has nodes for all of it"
        )
    return f"no claim is made: no node on loan could run it, they are {' or '.join(sorted(found))}"

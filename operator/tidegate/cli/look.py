"""One look at the cluster through the API server alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from tidegate import __version__
from tidegate.api.names import API_VERSION
from tidegate.cli.failures import Failed
from tidegate.cluster.client import KubeApi
from tidegate.cluster.errors import NotFound
from tidegate.cluster.kinds import CAPACITY_CLAIMS, PODS
from tidegate.controllers.owners import Owners
from tidegate.controllers.world import SELECTORS, WATCHED, World
from tidegate.sharing.index import Index
from tidegate.sharing.waiting import is_stuck


async def look(kube: KubeApi, now: datetime) -> Index:
    """As `see`, and closes `kube`."""
    try:
        return await see(kube, now)
    finally:
        await kube.close()


async def see(kube: KubeApi, now: datetime) -> Index:
    """All that decisions look at, without Slurm. Raises `Failed` without the CRDs, and `KubeError`.

    Objects that this release cannot read are told of on stderr and left out.
    """
    world = World()
    try:
        for kind in WATCHED:
            for item in await kube.list(kind, label_selector=SELECTORS.get(kind, "")):
                world.put(kind, item)
        claimed = {claim.metadata.namespace for claim in world.all(CAPACITY_CLAIMS).values()}
        pods = [p for p in world.all(PODS).values() if p.gpus and (p.namespace in claimed or is_stuck(p))]
        owners = Owners(kube, lambda: now)
        while await owners.look(pods):
            pass
    except NotFound:
        raise Failed(
            f"The cluster does not know {API_VERSION}: install the CRDs of release {__version__} "
            "with the Helm chart, or with `kubectl apply --server-side -f crds/`."
        ) from None
    return Index(replace(world.snapshot({}, {}), owners=owners.above), now)

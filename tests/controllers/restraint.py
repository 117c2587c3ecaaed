"""A promise of its own: a pool that recommends begins nothing."""

from __future__ import annotations

from tests.controllers.site import Site
from tests.fakes.kube import Change
from tidegate.api.names import CLAIM_LABEL
from tidegate.cluster import views
from tidegate.cluster.kinds import BATCH_POOLS, CAPACITY_CLAIMS, NODE_LOANS, NODES


class PoolThatRecommends:
    """Watches that nothing is begun once all operators have read that the pool recommends."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._position = site.kube.resource_version
        self._fenced = {name for name, node in site.nodes().items() if node.fence}
        self._since: int | None = None
        """The version of the change to Recommend; None while the pool enforces."""
        self._known = False

    def check(self, known: int) -> None:
        """All operators have read the watch up to version `known` by now."""
        begun = []
        for change in self._site.kube.changes_since(self._position):
            self._position = str(change.resource_version)
            name = change.object["metadata"]["name"]
            if change.kind == BATCH_POOLS:
                recommends = change.object["spec"].get("mode") == "Recommend"
                self._since = (self._since or int(change.resource_version)) if recommends else None
                self._known = self._known and recommends
            elif change.kind == NODES:
                fenced = views.node(change.object).fence is not None
                begun += [f"the fence of {name}"] if fenced and name not in self._fenced else []
                (self._fenced.add if fenced else self._fenced.discard)(name)
            elif change.type == "ADDED" and (change.kind == NODE_LOANS or self._is_automatic_claim(change)):
                begun.append(f"{change.kind.kind} {name}")
        assert not (self._known and begun), f"mode: the pool only recommends, but there is {begun}"
        self._known = self._since is not None and known >= self._since

    @staticmethod
    def _is_automatic_claim(change: Change) -> bool:
        return change.kind == CAPACITY_CLAIMS and CLAIM_LABEL in change.object["metadata"].get("labels", {})

"""The kinds of objects that Tidegate reads or writes, and where the API server keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from tidegate.api.names import API_VERSION


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object: plural in URLs, `group/version` (or `v1`), singular, and whether it has a namespace."""

    plural: str
    api_version: str
    kind: str
    namespaced: bool

    @property
    def resource(self) -> str:
        """As roles name it: `<plural>.<group>`, such as `leases.coordination.k8s.io`, or `pods`."""
        group, slash, _ = self.api_version.partition("/")
        return f"{self.plural}.{group}" if slash else self.plural

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """URL path of an object or, without a name, of the collection; without a namespace that of all namespaces."""
        root = "/apis" if "/" in self.api_version else "/api"
        scope = ("namespaces", namespace) if self.namespaced and namespace else ()
        parts = (*scope, self.plural, name, subresource)
        return "/".join([root, self.api_version, *(quote(part, safe="") for part in parts if part)])


NODES = Kind("nodes", "v1", "Node", namespaced=False)
PODS = Kind("pods", "v1", "Pod", namespaced=True)
NAMESPACES = Kind("namespaces", "v1", "Namespace", namespaced=False)
EVENTS = Kind("events", "v1", "Event", namespaced=True)
LEASES = Kind("leases", "coordination.k8s.io/v1", "Lease", namespaced=True)
SECRETS = Kind("secrets", "v1", "Secret", namespaced=True)
REPLICA_SETS = Kind("replicasets", "apps/v1", "ReplicaSet", namespaced=True)
DEPLOYMENTS = Kind("deployments", "apps/v1", "Deployment", namespaced=True)
STATEFUL_SETS = Kind("statefulsets", "apps/v1", "StatefulSet", namespaced=True)
JOBS = Kind("jobs", "batch/v1", "Job", namespaced=True)
SERVICES = Kind("services", "v1", "Service", namespaced=True)
PRIORITY_CLASSES = Kind("priorityclasses", "scheduling.k8s.io/v1", "PriorityClass", namespaced=False)
DISRUPTION_BUDGETS = Kind("poddisruptionbudgets", "policy/v1", "PodDisruptionBudget", namespaced=True)
SLURM_CLUSTERS = Kind("slurmclusters", API_VERSION, "SlurmCluster", namespaced=False)
BATCH_POOLS = Kind("batchpools", API_VERSION, "BatchPool", namespaced=False)
NODE_LOANS = Kind("nodeloans", API_VERSION, "NodeLoan", namespaced=False)
CAPACITY_CLAIMS = Kind("capacityclaims", API_VERSION, "CapacityClaim", namespaced=True)
INFERENCE_SERVICES = Kind("inferenceservices", API_VERSION, "InferenceService", namespaced=True)

"""Which pods of others may be asked to go for a more important job, and how many of them at a time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from tidegate.sharing.idleness import DO_NOT_DISRUPT
from tidegate.sharing.snapshot import DisruptionBudget, Pod
from tidegate.sharing.topology import holds

SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"
SYSTEM_PRIORITY = 2_000_000_000
"""From here on PriorityClasses are Kubernetes' own."""
_COMES_BACK_AT_ONCE = ("DaemonSet", "Node")
"""Controllers whose pods are put onto the same node again, whatever its fence says."""


def why_it_stays(pod: Pod, priority: int) -> str:
    """Why the pod is not evicted for a job of that priority, whatever budgets say; empty when it may be."""
    if pod.priority >= SYSTEM_PRIORITY or pod.priority_class_name.startswith("system-"):
        return f"pod {pod.key} is a system pod"
    if pod.owner.kind in _COMES_BACK_AT_ONCE:
        return f"pod {pod.key} is of a {pod.owner.kind}"
    if pod.priority >= priority:
        return f"pod {pod.key} has priority {pod.priority}, which is not below {priority}"
    if pod.annotations.get(DO_NOT_DISRUPT) == "true":
        return f"pod {pod.key} carries the annotation {DO_NOT_DISRUPT}"
    if pod.annotations.get(SAFE_TO_EVICT) == "false":
        return f"pod {pod.key} carries the annotation {SAFE_TO_EVICT}=false"
    return ""


class Allowance:
    """How many evictions the PodDisruptionBudgets still allow, less what is planned already.

    A set of pods that fits one by one need not fit together: two replicas of a service that may lose one.
    """

    def __init__(self, budgets: Iterable[DisruptionBudget]) -> None:
        self._budgets: Mapping[str, list[DisruptionBudget]] = defaultdict(list)
        self.left: dict[str, int] = {}
        """By budget."""
        for budget in sorted(budgets, key=lambda one: one.key):
            self._budgets[budget.namespace].append(budget)
            self.left[budget.key] = budget.allowed

    def copy(self) -> Allowance:
        """One to try things out with."""
        other = Allowance(())
        other._budgets, other.left = self._budgets, dict(self.left)
        return other

    def take(self, pods: Iterable[Pod]) -> str:
        """Plan to evict all of the pods; why that cannot be, and then none is planned, or empty."""
        needed: Counter[str] = Counter()
        for pod in pods:
            over = self._over(pod)
            if len(over) > 1:
                names = " and ".join(budget.name for budget in over[:2])
                return f"pod {pod.key} has the PodDisruptionBudgets {names}; Kubernetes evicts no pod that has two"
            for budget in over:
                needed[budget.key] += 1
                if needed[budget.key] > self.left[budget.key]:
                    return f"PodDisruptionBudget {budget.key} does not allow the eviction of pod {pod.key} now"
        for key, count in needed.items():
            self.left[key] -= count
        return ""

    def _over(self, pod: Pod) -> list[DisruptionBudget]:
        return [budget for budget in self._budgets.get(pod.namespace, ()) if _selects(budget, pod)]


def _selects(budget: DisruptionBudget, pod: Pod) -> bool:
    return budget.selector is not None and all(holds(one, pod.labels.get(one[0])) for one in budget.selector)

"""Where pods that wait will find a place: on open nodes by themselves, on those that a claim has, else on lent ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from tidegate.api import BatchPool
from tidegate.sharing.fit import Kind, Layout, Room, Rooms, kind_of, rooms_of, shape_of
from tidegate.sharing.idleness import free_nodes
from tidegate.sharing.index import Index
from tidegate.sharing.snapshot import Node, Pod

TRUST_SECONDS = 30
"""A pod that waits for longer than this although an open node would do needs more than can be seen from here: a volume,
a port, another scheduler. Then it is not left to the open node any more."""
_HOSTNAME = "kubernetes.io/hostname"


class Need:
    """What pods need of a pool beside open nodes and those that are there for them.

    The pods of a gang do not rely on open nodes, which others may take: free nodes count as if they were on loan.
    """

    def __init__(
        self, pods: Iterable[Pod], there: Iterable[Node], pool: BatchPool, index: Index, gang: bool = False
    ) -> None:
        layout, left = Layout(pool.spec.gpu_resource_names, index), []
        by_themselves = {} if gang else placed_by_scheduler(index)
        for pod in pods:
            if node := by_themselves.get(pod.uid):
                layout.note(pod, node)
            else:
                left.append(pod)
        rooms = rooms_of(there, pool, index)
        left = layout.lay_all(left, rooms)
        self.one_by_one = False
        """Whether it depends on the next node which others would help, as with pods that are spread over zones."""
        self.helpful: frozenset[str]
        """Nodes of which the next one may be chosen."""
        self.left_over: list[Pod]
        """Pods for which no node would do."""
        if gang or any(map(layout.cares, left)):
            kinds = list({kind_of(pod): pod for pod in left}.values())
            rules = (rule for pod in kinds for rule in (*(one.pods for one in pod.spread), *pod.together, *pod.apart))
            self.one_by_one = any(rule.topology_key != _HOSTNAME for rule in rules)
            others = [*on_loan(pool, index), *(free_nodes(pool, index) if gang else ())] if left else []
            spare = rooms_of((node for node in others if node.name not in rooms), pool, index)
            self.helpful = frozenset(name for pod in kinds for name in layout.fitting(pod, spare))
            used, self.left_over = layout.lay_on_fewest(left, spare) if self.helpful else ({}, left)
        else:
            shapes = tuple(map(shape_of, left))
            self.helpful, used, unplaced = index.once(_packed, pool.metadata.name, shapes, tuple(rooms))
            self.left_over = [left[at] for at in unplaced]
        self.nodes = len(used)
        """How many more nodes, on loan by now, would do."""
        if gang and self.one_by_one:
            # It gets all at once, so these are the ones that are known to do together.
            self.helpful, self.one_by_one = frozenset(used), False


def on_loan(pool: BatchPool, index: Index) -> Sequence[Node]:
    """Nodes of the pool that have a loan."""
    return index.once(_on_loan, pool.metadata.name)


def _on_loan(pool_name: str, index: Index) -> list[Node]:
    return [node for node in index.nodes_of_pool[pool_name] if node.name in index.active_loans]


def _rooms_on_loan(pool_name: str, index: Index) -> Rooms:
    pool = index.pools[pool_name]
    return rooms_of(on_loan(pool, index), pool, index)


def _fitting(pool_name: str, shape: Kind, index: Index) -> tuple[str, ...]:
    """Nodes on loan that pods of this shape fit onto, as far as others do not matter to them: the same for all."""
    layout = Layout(index.pools[pool_name].spec.gpu_resource_names, index)
    return tuple(layout.fitting_alone(index.once(by_shape)[shape], index.once(_rooms_on_loan, pool_name)))


def _helpful(pool_name: str, shape: Kind, index: Index) -> frozenset[str]:
    return frozenset(index.once(_fitting, pool_name, shape))


def by_shape(index: Index) -> dict[Kind, Pod]:
    """One of the waiting pods of each shape."""
    return {shape_of(pod): pod for pod in index.waiting_pods}


def _packed(
    pool_name: str, shapes: Sequence[Kind], without: Sequence[str], index: Index
) -> tuple[frozenset[str], Rooms, list[int]]:
    """For pods of these shapes to which others do not matter: which nodes on loan are of use, those that they are laid
    onto (as by `Layout.lay_on_fewest`, but no more are looked at), and which of the pods fit nowhere."""
    pool, pods = index.pools[pool_name], [index.once(by_shape)[shape] for shape in shapes]
    layout = Layout(pool.spec.gpu_resource_names, index)
    found = [index.once(_helpful, pool_name, shape) for shape in set(shapes)]
    helpful = found[0] if len(found) == 1 and not without else frozenset[str]().union(*found).difference(without)
    # The same set is the same object, so that comparing those of thousands of claims costs nothing.
    helpful = index.once(_known_sets).setdefault(helpful, helpful)
    spare, used, left = index.once(_rooms_on_loan, pool_name), Rooms(), list[int]()
    ahead = {shape: iter(index.once(_fitting, pool_name, shape)) for shape in set(shapes)}
    for at, (pod, shape) in enumerate(zip(pods, shapes, strict=True)):
        if layout.lay(pod, used, set()) is not None:
            continue
        name = next((name for name in ahead[shape] if name not in used and name not in without), None)
        if name is None:
            left.append(at)
        else:
            used[name] = spare[name].without(pod, pool.spec.gpu_resource_names)
    return helpful, used, left


def _known_sets(_: Index) -> dict[frozenset[str], frozenset[str]]:
    return {}


def placed_by_scheduler(index: Index) -> dict[str, Node]:
    """The open node, by UID of the pod, that each waiting pod with GPUs would find, the most important one first."""
    return index.once(_placed)


def _placed(index: Index) -> dict[str, Node]:
    names = tuple(sorted({name for pool in index.pools.values() for name in pool.spec.gpu_resource_names}))
    layout = Layout(names, index)
    nodes = sorted((n for n in index.snapshot.nodes.values() if n.gpus and _is_open(n, index)), key=lambda n: n.name)
    rooms = {n.name: Room.of(n, index.pods_by_node.get(n.name, ()), names) for n in nodes}
    rooms = {name: room for name, room in rooms.items() if room.gpus > 0}
    new = {name for name in rooms if not _is_passed_over(rooms[name].node, index)}
    found: dict[str, Node] = {}
    full: dict[bool, set[Kind]] = {True: set(), False: set()}
    most = max((room.gpus for room in rooms.values()), default=0)
    waiting = [pod for pod in index.waiting_pods if pod.gpus and sum(pod.gpus.get(n, 0) for n in names) <= most]
    for pod in sorted(waiting, key=lambda p: (-p.priority, p.created, p.key)):
        if not rooms:
            break
        trusts = _since(index.snapshot.waiting_since.get(pod.uid), index) < TRUST_SECONDS
        if layout.kind(pod) in full[trusts]:
            continue
        some = rooms if trusts else {name: rooms[name] for name in new}
        if (name := layout.lay(pod, some, full[trusts])) is not None:
            found[pod.uid] = some[name].node
            rooms[name] = some[name]
            if rooms[name].gpus <= 0:
                del rooms[name]
                new.discard(name)
    return found


def _is_open(node: Node, index: Index) -> bool:
    """Whether others may be bound there, now or as soon as a claim that is over has let go of it."""
    usable = node.ready and not node.unschedulable and not node.deleting and node.name not in index.active_loans
    return usable and (node.fence is None or index.left_behind(node) is not None)


def _is_passed_over(node: Node, index: Index) -> bool:
    """Whether kube-scheduler had time enough to bind pods there that wait for long."""
    idle = index.snapshot.idle_since.get(node.name)
    return index.left_behind(node) is None and (idle is None or _since(idle, index) >= TRUST_SECONDS)


def _since(moment: datetime | None, index: Index) -> float:
    return (index.now - moment).total_seconds() if moment else 0.0

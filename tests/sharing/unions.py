"""Random instances of the choice of victims, and what the best, the simplest and no choice at all would cost."""

from __future__ import annotations

import itertools
import random

from tidegate.sharing.min_union import Item, union_cost

Instance = tuple[list[Item], dict[int, int]]


def tangled(chance: random.Random, size: int, shared: int, widest: int) -> Instance:
    """Items that share things with any others; what more items share costs more."""
    holders = [chance.sample(range(size), chance.randint(2, widest)) for _ in range(shared)]
    costs = {name: chance.randint(1, 10_000) * len(those) for name, those in enumerate(holders)}
    shares = [tuple(name for name, those in enumerate(holders) if at in those) for at in range(size)]
    return [Item(chance.randint(0, 10_000), names) for names in shares], costs


def whole_nodes(chance: random.Random, size: int) -> Instance:
    """Jobs that have their nodes to themselves, on one to sixteen of them."""
    items: list[Item] = []
    costs: dict[int, int] = {}
    while len(items) < size:
        wide = min(chance.choice((1, 1, 1, 2, 4, 8, 16)), size - len(items))
        costs[len(costs)] = chance.randint(1, 10**6) * wide
        items += [Item(0, (len(costs) - 1,))] * wide
    return items, costs


def brute_force(instance: Instance, count: int) -> int:
    """The least that `count` items can cost."""
    items, costs = instance
    return min(union_cost(some, items, costs) for some in itertools.combinations(range(len(items)), count))


def one_by_one(instance: Instance, count: int) -> int:
    """What it costs to take always the item that adds least."""
    items, costs = instance
    chosen: list[int] = []
    paid: set[int] = set()
    for _ in range(count):
        left = [at for at in range(len(items)) if at not in chosen]
        best = min(left, key=lambda at: items[at].own + sum(costs[n] for n in items[at].shares if n not in paid))
        chosen.append(best)
        paid |= set(items[best].shares)
    return union_cost(chosen, items, costs)


def least_in_parts(instance: Instance, count: int) -> float:
    """What `count` items would cost if a part of a shared thing could be had: nobody can do better."""
    items, costs = instance
    wide = {name: sum(name in item.shares for item in items) for name in costs}
    total, left = 0.0, count
    for name in sorted(costs, key=lambda one: costs[one] / wide[one]):
        part = min(left, wide[name])
        total, left = total + costs[name] * part / wide[name], left - part
    return total

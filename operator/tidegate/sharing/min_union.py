"""The cheapest k of many items that share costs: what two of them share is paid once.

Nodes are the items, and a job on several of them is what they share: it dies once, however many of its nodes are taken.
In general the problem is NP-hard (minimum k-union). Here it falls apart: items that share something form groups, and
most groups are one job with its nodes. Each group gets its curve, the least cost for every number of its items, and
one knapsack over the curves does the rest.

What comes out is the true minimum as long as every group is small and k is not large (`EFFORT`, `ROOM`). Beyond that,
- large groups get the best of several greedy curves, and the result is mended by swapping single items;
- of a large k the part that any good choice has is taken by price per item, and only the rest is searched. With true
  curves the result then costs at most one group more than the minimum.
It never costs more than taking the item that adds least, one by one.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

EFFORT = 1 << 10
"""A group is searched completely when it has no more subsets of shared things, or of items, than this."""
EFFORT_OF_ALL = 1 << 14
"""As many subsets are searched in all groups together."""
ROOM = 30_000
"""How many sums the knapsack may make."""
LOOKS = 5_000
"""How many items are looked at for swaps that mend a result of greedy curves."""
FEW = 20
"""Where fewer than one in so many items of a group are wanted, the order that drops one item after the other is not
worth its time."""
DENSE = 10_000
"""With more ties between items and what they share than this, the slower ones of the greedy orders are left out."""


@dataclass(frozen=True, slots=True)
class Item:
    """Something to choose: what it costs by itself, and by name the things it shares with others."""

    own: int
    shares: tuple[int, ...] = ()


def cheapest_union(items: Sequence[Item], costs: Mapping[int, int], count: int) -> list[int]:
    """Positions of exactly `count` items (all, if there are not so many) with the least cost together, in order.

    `costs` has what each shared thing costs once. Costs are whole numbers, at least 0. Between equals the first wins.
    """
    if count <= 0:
        return []
    if count >= len(items):
        return list(range(len(items)))
    alone = sorted((at for at, item in enumerate(items) if not item.shares), key=lambda at: items[at].own)
    curves = _curves(_groups(items), items, costs, count)
    chosen, is_searched = _combined([*accumulate((items[at].own for at in alone), initial=0)], alone, curves, count)
    if not is_searched:
        simple = _forwards(range(len(items)), items, costs, _holders(range(len(items)), items), count, split=False)
        chosen = min(chosen, simple, key=lambda those: union_cost(those, items, costs))
    if not all(curve.is_true for curve in curves):
        chosen = _mended(chosen, items, costs)
    return sorted(chosen)


def union_cost(chosen: Sequence[int], items: Sequence[Item], costs: Mapping[int, int]) -> int:
    """What these items cost together."""
    shared = {name for at in chosen for name in items[at].shares}
    return sum(items[at].own for at in chosen) + sum(costs[name] for name in shared)


# -- groups and their curves --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Curve:
    """The least cost of 0, 1, 2... items of a group, and which these are."""

    cost: list[int]
    members: list[tuple[int, ...]]
    is_true: bool = True


def _groups(items: Sequence[Item]) -> list[list[int]]:
    """Items that share something, also by way of others, by their first item."""
    root: dict[int, int] = {}

    def find(name: int) -> int:
        while root[name] != name:
            root[name] = root[root[name]]
            name = root[name]
        return name

    for item in items:
        for name in item.shares:
            root.setdefault(name, name)
        for name in item.shares[1:]:
            root[find(name)] = find(item.shares[0])
    found: dict[int, list[int]] = {}
    for at, item in enumerate(items):
        if item.shares:
            found.setdefault(find(item.shares[0]), []).append(at)
    return list(found.values())


def _curves(groups: list[list[int]], items: Sequence[Item], costs: Mapping[int, int], count: int) -> list[_Curve]:
    """The smallest groups are searched completely, as far as the effort goes."""
    left, curves = EFFORT_OF_ALL, []
    for group in sorted(groups, key=len):
        names = sorted({name for at in group for name in items[at].shares})
        subsets = 1 << min(len(names), len(group))
        if subsets <= min(EFFORT, left):
            left -= subsets if subsets > 2 else 0
            by = _by_shared if len(names) <= len(group) else _by_items
            curves.append(by(group, names, items, costs))
        else:
            curves.append(_greedy(group, items, costs, min(count, len(group))))
    return curves


def _by_shared(group: list[int], names: list[int], items: Sequence[Item], costs: Mapping[int, int]) -> _Curve:
    """Pay for each subset of the shared things, and see which items that opens."""
    bit = {name: 1 << place for place, name in enumerate(names)}
    ordered = sorted(group, key=lambda at: items[at].own)
    masks = [sum(bit[name] for name in items[at].shares) for at in ordered]
    cost: list[int] = [0] * (len(group) + 1)
    paid: list[int] = [0] * (len(group) + 1)
    known = 0
    for subset in range(1, 1 << len(names)):
        total, count = sum(costs[name] for name, one in bit.items() if one & subset), 0
        for at, mask in zip(ordered, masks, strict=True):
            if mask & ~subset:
                continue
            total, count = total + items[at].own, count + 1
            if count > known or total < cost[count]:
                cost[count], paid[count], known = total, subset, max(count, known)
    members = [
        tuple([at for at, mask in zip(ordered, masks, strict=True) if not mask & ~subset][:count])
        for count, subset in enumerate(paid)
    ]
    return _Curve(cost, members)


def _by_items(group: list[int], names: list[int], items: Sequence[Item], costs: Mapping[int, int]) -> _Curve:
    """Try each subset of the items, each made of a smaller one."""
    bit = {name: 1 << place for place, name in enumerate(names)}
    price = {1 << place: costs[name] for place, name in enumerate(names)}
    masks = [sum(bit[name] for name in items[at].shares) for at in group]
    touched, total = [0] * (1 << len(group)), [0] * (1 << len(group))
    best: list[int] = [0] * (len(group) + 1)
    for subset in range(1, 1 << len(group)):
        place = subset.bit_length() - 1
        before = subset ^ (1 << place)
        new = masks[place] & ~touched[before]
        touched[subset] = touched[before] | new
        more = items[group[place]].own
        while new:
            more += price[new & -new]
            new &= new - 1
        total[subset] = total[before] + more
        size = subset.bit_count()
        if not best[size] or total[subset] < total[best[size]]:
            best[size] = subset
    members = [tuple(at for place, at in enumerate(group) if subset >> place & 1) for subset in best]
    return _Curve([total[subset] for subset in best], members)


# -- greedy curves of large groups --------------------------------------------------------------------------------


def _greedy(group: list[int], items: Sequence[Item], costs: Mapping[int, int], most: int) -> _Curve:
    """For each number of items, up to `most`, the best of three greedy orders."""
    holders = _holders(group, items)
    orders = [_forwards(group, items, costs, holders, most, split=False)]
    if sum(map(len, holders.values())) <= DENSE:
        orders.append(_forwards(group, items, costs, holders, most, split=True))
        if most * FEW >= len(group):
            orders.append(_backwards(group, items, costs, holders)[:most])
    sums = [_running_cost(order, items, costs) for order in orders]
    picks = [min(range(len(orders)), key=lambda one: sums[one][count]) for count in range(most + 1)]
    return _Curve(
        [sums[pick][count] for count, pick in enumerate(picks)],
        [tuple(orders[pick][:count]) for count, pick in enumerate(picks)],
        is_true=False,
    )


def _holders(group: Iterable[int], items: Sequence[Item]) -> dict[int, list[int]]:
    holders: dict[int, list[int]] = {}
    for at in group:
        for name in items[at].shares:
            holders.setdefault(name, []).append(at)
    return holders


def _forwards(
    group: Iterable[int],
    items: Sequence[Item],
    costs: Mapping[int, int],
    holders: dict[int, list[int]],
    most: int,
    *,
    split: bool,
) -> list[int]:
    """Always the item that adds least; with `split`, what is shared counts for each of its items in part."""
    price = {name: costs[name] / len(those) if split else costs[name] for name, those in holders.items()}
    adds = {at: items[at].own + sum([price[name] for name in items[at].shares]) for at in group}
    heap = [(cost, at) for at, cost in adds.items()]
    heapq.heapify(heap)
    order: list[int] = []
    paid: set[int] = set()
    while len(order) < most:
        cost, at = heapq.heappop(heap)
        if at not in adds or cost != adds[at]:
            continue
        del adds[at]
        order.append(at)
        for name in items[at].shares:
            if name in paid:
                continue
            paid.add(name)
            for other in holders[name]:
                if other in adds:
                    adds[other] -= price[name]
                    heapq.heappush(heap, (adds[other], other))
    return order


def _backwards(
    group: list[int], items: Sequence[Item], costs: Mapping[int, int], holders: dict[int, list[int]]
) -> list[int]:
    """From all items, always drop the one that saves most; what is shared counts for each item left with it in part."""
    left = {name: len(those) for name, those in holders.items()}
    price = {name: float(costs[name]) for name in holders}
    saves = {at: items[at].own + sum([price[name] / left[name] for name in items[at].shares]) for at in group}
    heap = [(-saved, -at) for at, saved in saves.items()]
    heapq.heapify(heap)
    dropped: list[int] = []
    while heap:
        saved, minus = heapq.heappop(heap)
        at = -minus
        if at not in saves or -saved != saves[at]:
            continue
        del saves[at]
        dropped.append(at)
        for name in items[at].shares:
            left[name] -= 1
            if left[name] == 0:
                continue
            more = price[name] / left[name] - price[name] / (left[name] + 1)
            for other in holders[name]:
                if other in saves:
                    saves[other] += more
                    heapq.heappush(heap, (-saves[other], -other))
    return dropped[::-1]


def _running_cost(order: list[int], items: Sequence[Item], costs: Mapping[int, int]) -> list[int]:
    total, paid, sums = 0, set[int](), [0]
    for at in order:
        total += items[at].own
        for name in items[at].shares:
            if name not in paid:
                paid.add(name)
                total += costs[name]
        sums.append(total)
    return sums


# -- the knapsack -------------------------------------------------------------------------------------------------


def _combined(prices: list[int], alone: list[int], curves: list[_Curve], count: int) -> tuple[list[int], bool]:
    """So many items of each group, and so many of those that share nothing; `prices` has what the first ones cost.

    The first part of a large count goes to where an item is cheapest on average; the knapsack searches the rest. Also
    whether it searched for all of them.
    """
    rest = min(count, max(ROOM // max(sum(len(curve.cost) for curve in curves), 1), 8))
    is_searched = rest == count
    base, free = _cheapest_on_average(prices, curves, count - rest)
    rest = count - free - sum(base)
    best: list[int | None] = [0] + [None] * rest
    taken: list[list[int]] = []
    for curve, start in zip(curves, base, strict=True):
        steps = [cost - curve.cost[start] for cost in curve.cost[start : start + rest + 1]]
        taken.append(_add(best, steps))
    totals = [
        (cost + prices[free + rest - size], size)
        for size, cost in enumerate(best)
        if cost is not None and free + rest - size < len(prices)
    ]
    _, size = min(totals)
    chosen = list(alone[: free + rest - size])
    for curve, start, steps_of in zip(reversed(curves), reversed(base), reversed(taken), strict=True):
        chosen += curve.members[start + steps_of[size]]
        size -= steps_of[size]
    return chosen, is_searched


def _add(best: list[int | None], steps: list[int]) -> list[int]:
    """Add a group to the least costs so far, in place. How many of its items each sum has."""
    taken = [0] * len(best)
    for size in range(len(best) - 1, 0, -1):
        least, number = best[size], 0
        for more in range(1, min(len(steps) - 1, size) + 1):
            before = best[size - more]
            if before is not None and (least is None or before + steps[more] < least):
                least, number = before + steps[more], more
        best[size], taken[size] = least, number
    return taken


def _cheapest_on_average(prices: list[int], curves: list[_Curve], count: int) -> tuple[list[int], int]:
    """At most `count` items by the price of an item in the steps of each curve's lower hull: which any choice pays."""
    base, free = [0] * len(curves), 0
    if count <= 0:
        return base, free
    steps: list[tuple[float, int, int, int]] = [
        (prices[at + 1] - prices[at], -1, at + 1, 1) for at in range(len(prices) - 1)
    ]
    for number, curve in enumerate(curves):
        hull = _hull(curve.cost)
        for before, after in pairwise(hull):
            slope = (curve.cost[after] - curve.cost[before]) / (after - before)
            steps.append((slope, number, after, after - before))
    for _, number, after, size in sorted(steps):
        if size > count:
            break
        count -= size
        if number < 0:
            free = after
        else:
            base[number] = after
    return base, free


def _hull(cost: list[int]) -> list[int]:
    """Where the curve touches its lower convex hull."""
    hull: list[int] = []
    for at in range(len(cost)):
        while len(hull) > 1:
            first, second = hull[-2], hull[-1]
            if (cost[second] - cost[first]) * (at - second) < (cost[at] - cost[second]) * (second - first):
                break
            hull.pop()
        hull.append(at)
    return hull


# -- mending ------------------------------------------------------------------------------------------------------


def _mended(chosen: list[int], items: Sequence[Item], costs: Mapping[int, int]) -> list[int]:
    """Swap one chosen item for one that is not, as long as that saves something."""
    inside, holders = set(chosen), _holders(range(len(items)), items)
    uses = Counter(name for at in inside for name in items[at].shares)

    def price(at: int) -> int:
        """What a chosen item saves when it goes, and what any other adds when it comes."""
        paid_for_it_alone = int(at in inside)
        return items[at].own + sum([costs[name] for name in items[at].shares if uses[name] == paid_for_it_alone])

    prices = [price(at) for at in range(len(items))]
    for _ in range(max(LOOKS // len(items), 4)):
        dearest = heapq.nsmallest(16, inside, key=lambda at: (-prices[at], at))
        others = sorted([at for at in range(len(items)) if at not in inside], key=prices.__getitem__)
        swap = _best_swap(dearest, others, prices, uses, items, costs)
        if swap is None:
            break
        gone, new = swap
        inside ^= {gone, new}
        uses.subtract(items[gone].shares)
        uses.update(items[new].shares)
        for name in (*items[gone].shares, *items[new].shares):
            for at in holders[name]:
                prices[at] = price(at)
    return list(inside)


def _best_swap(
    dearest: Sequence[int],
    others: Sequence[int],
    prices: Sequence[int],
    uses: Mapping[int, int],
    items: Sequence[Item],
    costs: Mapping[int, int],
) -> tuple[int, int] | None:
    """Which item should go for which of the others, these in the order of their prices."""
    most, best = 0, None
    for gone in dearest:
        alone = {name for name in items[gone].shares if uses[name] == 1}
        for new in others:
            if prices[gone] - prices[new] <= most:
                break
            again = sum([costs[name] for name in items[new].shares if name in alone])
            if prices[gone] - prices[new] - again > most:
                most, best = prices[gone] - prices[new] - again, (gone, new)
    return best

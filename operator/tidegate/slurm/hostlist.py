"""Slurm's short form for many node names: `gpu[01-03,7],login` stands for gpu01, gpu02, gpu03, gpu7 and login."""

from __future__ import annotations

import itertools
import re

_PIECE = re.compile(r"\[([^\]]*)\]|([^\[\]]+)")
_MOST = 65536


def expand(hostlist: str) -> tuple[str, ...]:
    """The names that a hostlist stands for, in its order; none for an empty one. Raises ValueError for what is none."""
    return tuple(name for item in _split(hostlist) for name in _expand_item(item))


def _split(hostlist: str) -> list[str]:
    """The items between the commas that are outside of brackets."""
    items, depth, start = [], 0, 0
    for position, letter in enumerate(hostlist):
        depth += (letter == "[") - (letter == "]")
        if depth not in (0, 1):
            raise ValueError(f"{hostlist!r} is no list of nodes: its brackets do not match")
        if letter == "," and depth == 0:
            items.append(hostlist[start:position])
            start = position + 1
    if depth:
        raise ValueError(f"{hostlist!r} is no list of nodes: its brackets do not match")
    return [item for item in (*items, hostlist[start:]) if item]


def _expand_item(item: str) -> list[str]:
    parts = [_numbers(m[1]) if m[1] is not None else [m[2]] for m in _PIECE.finditer(item)]
    return ["".join(combination) for combination in itertools.product(*parts)]


def _numbers(ranges: str) -> list[str]:
    numbers: list[str] = []
    for part in ranges.split(","):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f"[{ranges}] is no range of node numbers")
        count = int(last or first) - int(first) + 1
        if not 0 < count <= _MOST:
            raise ValueError(f"[{ranges}] is no range of node numbers")
        numbers += [str(int(first) + i).zfill(len(first)) for i in range(count)]
    return numbers

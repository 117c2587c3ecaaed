"""Server-side apply: what one manager said before and does not say now goes, what others said stays."""

from __future__ import annotations

from typing import Any

_KEYS = {
    "containers": "name",
    "env": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
"""Lists whose entries are told apart by a field; other lists are one value each."""


def applied(live: Any, before: Any, now: Any, field: str = "") -> Any:
    """What an object (or a part of it) becomes; `before` is what the same manager applied last."""
    if isinstance(now, dict) and isinstance(live, dict):
        before = before if isinstance(before, dict) else {}
        kept = {key: value for key, value in live.items() if key in now or key not in before}
        # Of what is taken back, that stays which somebody else said.
        for key in before.keys() - now.keys() & live.keys():
            if (rest := _without(live[key], before[key], key)) not in ({}, [], None):
                kept[key] = rest
        return kept | {key: applied(live.get(key), before.get(key), value, key) for key, value in now.items()}
    if isinstance(now, list) and field in _KEYS:
        key = _KEYS[field]
        there, had = _by(key, live), _by(key, before)
        ours = _by(key, now)
        kept = {name: entry for name, entry in there.items() if name in ours or name not in had}
        return list((kept | {name: applied(there.get(name), had.get(name), e) for name, e in ours.items()}).values())
    return now


def _without(live: Any, gone: Any, field: str) -> Any:
    if isinstance(live, dict) and isinstance(gone, dict):
        rest = {key: value if key not in gone else _without(value, gone[key], key) for key, value in live.items()}
        return {key: value for key, value in rest.items() if value not in ({}, [], None)}
    if isinstance(live, list) and isinstance(gone, list) and field in _KEYS:
        had = _by(_KEYS[field], gone)
        return [entry for name, entry in _by(_KEYS[field], live).items() if name not in had]
    return None


def _by(key: str, entries: Any) -> dict[Any, Any]:
    return {entry[key]: entry for entry in entries or []}

"""Curves under the picture of who owned which node, on the same line of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from xml.sax.saxutils import escape

HEIGHT = 92
"""Of one panel, its title and the space below included."""
TITLE = 24


@dataclass(frozen=True)
class Curve:
    """Values over time; a step keeps its value until the next one."""

    name: str
    colour: str
    points: Sequence[tuple[datetime, float]]
    steps: bool = False


@dataclass(frozen=True)
class Panel:
    """One diagram."""

    title: str
    unit: str
    curves: Sequence[Curve]


def draw(panels: Sequence[Panel], x: Callable[[datetime], float], top: float, left: float, right: float) -> list[str]:
    """SVG for the panels, one below the other from `top` on."""
    parts: list[str] = []
    for number, panel in enumerate(panels):
        parts += _panel(panel, x, top + number * HEIGHT, left, right)
    return parts


def _panel(panel: Panel, x: Callable[[datetime], float], top: float, left: float, right: float) -> list[str]:
    low, high = top + HEIGHT - 10, top + TITLE
    most = max((value for curve in panel.curves for _, value in curve.points), default=0) or 1

    def y(value: float) -> float:
        return round(low - value / most * (low - high), 1)

    parts = [
        f'<line x1="{left}" y1="{low}" x2="{right}" y2="{low}" stroke="#999"/>',
        f'<line x1="{left}" y1="{high}" x2="{right}" y2="{high}" stroke="#ddd"/>',
        f'<text x="{left - 12}" y="{high + 4}" text-anchor="end" fill="#555">{most:.3g}{escape(panel.unit)}</text>',
        f'<text x="{left - 12}" y="{low + 4}" text-anchor="end" fill="#555">0</text>',
        f'<text x="{left}" y="{top + 14}" font-weight="bold">{escape(panel.title)}</text>',
    ]
    at = left + 8.5 * len(panel.title) + 16
    for curve in panel.curves:
        parts.append(f'<text x="{at}" y="{top + 14}" fill="{curve.colour}">{escape(curve.name)}</text>')
        at += 7.5 * len(curve.name) + 16
        if curve.points:
            points = " ".join(f"{px},{py}" for px, py in _corners(curve, x, y))
            parts.append(f'<polyline points="{points}" fill="none" stroke="{curve.colour}" stroke-width="2"/>')
    return parts


def _corners(curve: Curve, x: Callable[[datetime], float], y: Callable[[float], float]) -> list[tuple[float, float]]:
    corners: list[tuple[float, float]] = []
    for moment, value in curve.points:
        if curve.steps and corners:
            corners.append((x(moment), corners[-1][1]))
        corners.append((x(moment), y(value)))
    return corners

"""The time line as a picture: one bar for each node, coloured by owner. In a browser with what happened above it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from xml.sax.saxutils import escape

from rich.text import Text

from e2e.demo.panels import HEIGHT, Panel, draw
from e2e.witness import Span

COLOURS = {"Kubernetes": "#326ce5", "claim": "#8fb4f7", "Slurm": "#2e8b57", "none": "#c9ced6"}
WORDS = {
    "Kubernetes": "Kubernetes",
    "claim": "held for a claimant",
    "Slurm": "Slurm",
    "none": "changing hands",
}
LETTERS = {"Kubernetes": "K", "claim": "c", "Slurm": "S", "none": "."}
LEFT, RIGHT, WIDTH, ROW, BAR = 190, 30, 1180, 44, 26
MARK_ROW = 17
LETTER = 7.5
"""About how wide a letter is."""


def svg(
    nodes: Mapping[str, Sequence[Span]],
    marks: Sequence[tuple[datetime, str]],
    title: str,
    panels: Sequence[Panel] = (),
) -> str:
    """An SVG document. `marks` are moments with a few words each, in order; `panels` are drawn below the nodes."""
    start = min(spans[0].start for spans in nodes.values())
    end = max(spans[-1].end for spans in nodes.values())
    total = max((end - start).total_seconds(), 1.0)

    def x(moment: datetime) -> float:
        share = (moment - start).total_seconds() / total
        return round(LEFT + min(max(share, 0), 1) * (WIDTH - LEFT - RIGHT), 1)

    top = 78 + MARK_ROW * len(marks)
    bars_end = top + ROW * len(nodes)
    bottom = bars_end + HEIGHT * len(panels)
    height = bottom + 70
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="20" y="30" font-size="18" font-weight="bold">{escape(title)}</text>',
        *_legend(),
    ]
    for number, (moment, words) in enumerate(marks):
        at, y = x(moment), 78 + MARK_ROW * number
        # Words that would run out of the picture stand on the other side of their line.
        anchor, shift = ("end", -6) if at + 6 + LETTER * len(words) > WIDTH - RIGHT else ("start", 6)
        parts.append(f'<line x1="{at}" y1="{y - 8}" x2="{at}" y2="{bottom}" stroke="#555" stroke-dasharray="2 4"/>')
        parts.append(f'<circle cx="{at}" cy="{y - 5}" r="3" fill="#555"/>')
        style = 'fill="#333" stroke="white" stroke-width="4" paint-order="stroke"'
        parts.append(f'<text x="{at + shift}" y="{y}" text-anchor="{anchor}" {style}>{escape(words)}</text>')
    for number, (name, spans) in enumerate(sorted(nodes.items())):
        y = top + ROW * number
        parts.append(f'<text x="{LEFT - 12}" y="{y + 18}" text-anchor="end">{escape(name)}</text>')
        for span in spans:
            wide = max(x(span.end) - x(span.start), 1)
            tip = f"{name}: {WORDS[span.owner]}, {span.seconds:.1f} s"
            parts.append(
                f'<rect x="{x(span.start)}" y="{y}" width="{wide:.1f}" height="{BAR}" fill="{COLOURS[span.owner]}">'
                f"<title>{escape(tip)}</title></rect>"
            )
    parts += draw(panels, x, bars_end, LEFT, WIDTH - RIGHT)
    parts += _axis(total, bottom)
    return "\n".join([*parts, "</svg>", ""])


def bars(nodes: Mapping[str, Sequence[Span]], width: int) -> Text:
    """The same in `width` letters for a terminal, each letter the one who owned the node at the middle of its time."""
    start = min(spans[0].start for spans in nodes.values())
    total = max(spans[-1].end for spans in nodes.values()) - start
    label = max(map(len, nodes)) + 2
    cells = max(width - label, 10)
    text = Text()
    for name, spans in sorted(nodes.items()):
        text.append(f"{name:{label}}")
        for cell in range(cells):
            moment = start + total * (cell + 0.5) / cells
            owner = next((span.owner for span in spans if span.start <= moment < span.end), spans[-1].owner)
            text.append(LETTERS[owner], f"bold {COLOURS[owner]}")
        text.append("\n")
    legend = "   ".join(f"{LETTERS[owner]} {words}" for owner, words in WORDS.items())
    return text.append(f"{'':{label}}0 to {total.total_seconds():.0f} s   {legend}")


def _legend() -> list[str]:
    parts, at = [], 20
    for owner, words in WORDS.items():
        parts.append(f'<rect x="{at}" y="42" width="14" height="14" fill="{COLOURS[owner]}"/>')
        parts.append(f'<text x="{at + 20}" y="54">{words}</text>')
        at += 44 + 8 * len(words)
    return parts


def _axis(total: float, bottom: int) -> list[str]:
    step = next(size for size in (5, 10, 20, 30, 60, 120, 300, 3600) if total / size <= 14 or size == 3600)
    parts = [f'<line x1="{LEFT}" y1="{bottom + 6}" x2="{WIDTH - RIGHT}" y2="{bottom + 6}" stroke="#333"/>']
    for second in range(0, int(total) + 1, step):
        at = round(LEFT + second / total * (WIDTH - LEFT - RIGHT), 1)
        parts.append(f'<line x1="{at}" y1="{bottom + 6}" x2="{at}" y2="{bottom + 12}" stroke="#333"/>')
        parts.append(f'<text x="{at}" y="{bottom + 28}" text-anchor="middle">{second} s</text>')
    return parts

"""Both columns as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict
from pathlib import Path
from xml.sax.saxutils import escape

from rich.console import Console
from rich.table import Table

from e2e.scenarios.preemption_loop.columns import Column

LEFT, RIGHT, WIDTH, ROW = 150, 30, 1180, 15
WAITS, RUNS, TAKEN, DOUBLE = "#d1495b", "#326ce5", "#555", "#d1495b"


def write(columns: tuple[Column, ...], folder: Path, console: Console) -> None:
    """The table to the console; `preemption-loop.json` and `.svg` into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    data, picture = folder / "preemption-loop.json", folder / "preemption-loop.svg"
    data.write_text(as_json(columns))
    picture.write_text(svg(columns))
    console.print(table(columns))
    console.print(f"picture: {picture}\nfigures: {data}", highlight=False)


def table(columns: tuple[Column, ...]) -> Table:
    """One line for each figure, one column for each way."""
    shown = Table(title=f"the same load for {columns[0].seconds:.0f} s, twice", title_justify="left")
    shown.add_column("")
    for column in columns:
        shown.add_column(column.name, justify="right")
    figures = [_figures(column) for column in columns]
    for name in figures[0]:
        shown.add_row(name, *(words[name] for words in figures))
    return shown


def _figures(column: Column) -> dict[str, str]:
    waits, came, recalls = column.waits, len(column.notebooks), column.recalls
    return {
        "notebooks that came": str(came),
        "notebooks that never ran": str(column.never_ran),
        "seconds until a notebook runs, median": f"{statistics.median(waits):.1f}" if waits else "-",
        "seconds until a notebook runs, longest": f"{waits[-1]:.1f}" if waits else "-",
        "slurmd pods that a scheduler evicted": str(len(column.evictions)),
        "loans recalled / nodes claimed": f"{sum(recalls)} / {len(recalls)}" if recalls else "-",
        "most recalls for one claimed node": str(max(recalls)) if recalls else "-",
        "pods bound to GPUs that were taken": str(len(column.double_bindings)),
        "pods that a kubelet refused (OutOf...)": str(sum(column.refusals.values())),
        "slurmd pods made": str(column.slurmd_pods),
        "Slurm jobs completed": str(column.jobs_completed),
        "runs of jobs cut short": str(column.runs_interrupted),
        "seconds of work lost by them": str(column.seconds_lost),
    }


def as_json(columns: tuple[Column, ...]) -> str:
    """Everything that the table and the picture are made from."""
    return json.dumps({column.name: asdict(column) for column in columns}, indent=1) + "\n"


def svg(columns: tuple[Column, ...]) -> str:
    """Each notebook a bar from coming to going: it waits, it runs. Above them what was taken away meanwhile."""
    total = max(column.seconds for column in columns)
    parts, top = list(_legend()), 70
    for column in columns:
        height = ROW * len(column.notebooks)
        parts.append(f'<text x="20" y="{top}" font-weight="bold">{escape(column.name)}</text>')
        for label, moments, colour in (
            ("evictions", column.evictions, TAKEN),
            ("double bindings", column.double_bindings, DOUBLE),
        ):
            top += 20
            parts.append(f'<text x="{LEFT - 10}" y="{top + 4}" text-anchor="end">{label} ({len(moments)})</text>')
            parts += [_tick(_x(moment, total), top, colour) for moment in moments]
        top += 16
        for row, one in enumerate(column.notebooks):
            y = top + ROW * row
            ran = one.went if one.ran is None else one.ran
            parts.append(
                f'<text x="{LEFT - 10}" y="{y + 10}" text-anchor="end" font-size="11">{escape(one.name)}</text>'
            )
            parts.append(
                _bar(_x(one.came, total), _x(ran, total), y, WAITS, f"{one.name} waits {ran - one.came:.1f} s")
            )
            parts.append(_bar(_x(ran, total), _x(one.went, total), y, RUNS, f"{one.name} runs {one.went - ran:.1f} s"))
        top += height + 40
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="13">'
    )
    return "\n".join([head, f'<rect width="{WIDTH}" height="{top}" fill="white"/>', *parts, "</svg>", ""])


def _legend() -> list[str]:
    words = "Notebooks and slurmd pods on the same nodes: who waits, and what is taken away meanwhile"
    parts = [f'<text x="20" y="26" font-size="18" font-weight="bold">{words}</text>']
    for at, colour, what in ((620, WAITS, "notebook waits"), (760, RUNS, "notebook runs")):
        parts.append(f'<rect x="{at}" y="38" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{at + 18}" y="49">{what}</text>')
    return parts


def _x(moment: float, total: float) -> float:
    return round(LEFT + min(max(moment / total, 0), 1) * (WIDTH - LEFT - RIGHT), 1)


def _tick(x: float, y: int, colour: str) -> str:
    return f'<line x1="{x}" y1="{y - 7}" x2="{x}" y2="{y + 7}" stroke="{colour}" stroke-width="2"/>'


def _bar(start: float, end: float, y: int, colour: str, tip: str) -> str:
    wide = max(end - start, 0)
    return (
        f'<rect x="{start}" y="{y}" width="{wide:.1f}" height="{ROW - 4}" fill="{colour}">'
        f"<title>{escape(tip)}</title></rect>"
    )

"""Plots a benchmark as SVG: each phase with its limit, and sequences with and without a kept context."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from core.bench.report import Report, Table
from core.bench.rows import Row

WIDTH, NAMES, BARS = 820, 230, 400
ROW, BAR, HEAD, GAP = 22, 14, 34, 16
KEPT, OTHER, LIMIT = "#3465a4", "#b8c4d6", "#cc3311"


def write_plot(report: Report, path: Path) -> None:
    """Write the plot of `report`."""
    parts: list[str] = []
    top = GAP
    for table in report.tables:
        if table.kind in ("phases", "reading"):
            parts += _chart(table, top)
            top += HEAD + ROW * len(table.rows) + GAP
    machine = report.machine
    caption = (
        f"{report.setup['model']} on {machine.device}, {machine.dtype}, {machine.threads} threads, {machine.commit}"
    )
    parts.append(_text(GAP, top + GAP, caption, color="#666"))
    size = f'width="{WIDTH}" height="{top + 2 * GAP}" viewBox="0 0 {WIDTH} {top + 2 * GAP}"'
    style = 'font-family="sans-serif" font-size="12"'
    body = "\n".join(parts)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n<rect width="100%" height="100%" fill="white"/>\n'
        f"{body}\n</svg>\n"
    )


def _chart(table: Table, top: int) -> Iterator[str]:
    yield _text(GAP, top + GAP, table.title, weight="bold")
    for place, row in enumerate(table.rows):
        yield from _bar(row, _scale(table.rows, row, table.kind), top + HEAD + ROW * place)


def _scale(rows: Sequence[Row], row: Row, kind: str) -> float:
    """Seconds of the longest bar: phases differ by orders of magnitude, so each has its own scale."""
    if kind == "phases":
        return max(row.median("wall_s"), row.limit_s or 0.0)
    return max(one.median("wall_s") for one in rows)


def _bar(row: Row, longest: float, top: int) -> Iterator[str]:
    seconds = row.median("wall_s")
    color = OTHER if row.name.endswith("read again") else KEPT
    yield _text(GAP, top + BAR - 3, row.name)
    yield _rectangle(NAMES, top, BARS * seconds / longest, BAR, color)
    if row.limit_s is not None:
        yield _rectangle(NAMES + BARS * row.limit_s / longest, top - 2, 2, BAR + 4, LIMIT)
    share = "" if row.limit_s is None else f", limit {_duration(row.limit_s)}"
    yield _text(NAMES + BARS + 8, top + BAR - 3, _duration(seconds) + share)


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _rectangle(x: float, y: int, width: float, height: int, color: str) -> str:
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{color}"/>'


def _text(x: int, y: int, text: str, *, color: str = "black", weight: str = "normal") -> str:
    return f'<text x="{x}" y="{y}" fill="{color}" font-weight="{weight}">{escape(text)}</text>'

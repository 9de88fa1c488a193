"""Writes the tables of docs/measured.md from the benchmark reports and study results in docs/measured/.

Run `python -m tools.measured` in the repository after a measurement. A table is between `<!-- FILE: TABLE -->` and
`<!-- end -->`; FILE.json is either a report of core.bench, whose tables are named by their kind, or a JSON object of
tables, each with a list of columns and a list of rows of texts.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypedDict

from core.bench.report import Report, Table
from core.bench.rows import Row

DOCS = Path(__file__).parents[1] / "docs"
MIB = 2**20
_BLOCK = re.compile(r"(<!-- (?P<file>[a-z-]+): (?P<table>[a-z ]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


class StudyTable(TypedDict):
    """A table of texts."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


Tables: TypeAlias = Mapping[str, StudyTable]


def main() -> int:
    """Write the document. Exit 2 if a file or a table is missing."""
    page = DOCS / "measured.md"
    try:
        page.write_text(with_tables(page.read_text(), DOCS / "measured"))
    except (OSError, KeyError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def with_tables(text: str, folder: Path) -> str:
    """`text` with the tables of the files in `folder`. Raises OSError, KeyError and ValueError."""

    def replaced(match: re.Match[str]) -> str:
        path = folder / f"{match['file']}.json"
        return f"{match[1]}\n{_table(path, match['table'])}\n{match[5]}"

    return _BLOCK.sub(replaced, text)


def _table(path: Path, name: str) -> str:
    document = json.loads(path.read_text())
    if "machine" in document:
        tables: dict[str, Table] = {table.kind: table for table in Report.read(path).tables}
        return _bench_table(tables[name])
    return markdown(document[name])


def _bench_table(table: Table) -> str:
    columns = PHASE_COLUMNS if table.kind == "phases" else USAGE_COLUMNS
    rows = [[row.name, *(cell(row) for cell in columns.values())] for row in table.rows]
    return markdown({"columns": ["", *columns], "rows": rows})


def markdown(table: StudyTable) -> str:
    """A table as Markdown."""
    columns = table["columns"]
    lines = [columns, ["---"] * len(columns), *table["rows"]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _milliseconds(row: Row, field: str) -> str:
    return f"{row.median(field) * 1e3:,.2f}"


def _limit(row: Row) -> str:
    return "" if row.limit_s is None else f"{row.limit_s * 1e3:,.2f}"


def _ratio(field: str) -> Callable[[Row], str]:
    return lambda row: f"{row.ratio(field):.2f}"


PHASE_COLUMNS: Mapping[str, Callable[[Row], str]] = {
    "wall, ms": lambda row: _milliseconds(row, "wall_s"),
    "CPU, ms": lambda row: _milliseconds(row, "cpu_s"),
    "limit, ms": _limit,
}
USAGE_COLUMNS: Mapping[str, Callable[[Row], str]] = {
    "wall, s": lambda row: f"{row.median('wall_s'):.2f}",
    "ratio": _ratio("wall_s"),
    "CPU, s": lambda row: f"{row.median('cpu_s'):.2f}",
    "CPU ratio": _ratio("cpu_s"),
    "tokens read": lambda row: f"{row.median('tokens_read'):,.1f}".removesuffix(".0"),
    "tokens ratio": _ratio("tokens_read"),
    "KV cache, MiB": lambda row: f"{row.median('kv_bytes') / MIB:.2f}",
    "process, MiB": lambda row: f"{row.median('resident_bytes') / MIB:.0f}",
}

if __name__ == "__main__":
    sys.exit(main())

"""The results of a benchmark as JSON: the machine, the setup, and every sample of every row."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from core.bench.machine import Machine
from core.bench.rows import Row
from core.bench.table import Kind, print_table
from core.bench.usage import Usage

VERSION = 1
Setup: TypeAlias = Mapping[str, str | int | float]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows that are shown together."""

    kind: Kind
    title: str
    rows: tuple[Row, ...]


@dataclass
class Report:
    """A benchmark's results, printed as they are measured."""

    machine: Machine
    setup: Setup
    """Model, sizes and options."""
    tables: list[Table] = field(default_factory=list)

    def add(self, kind: Kind, title: str, rows: Iterable[Row]) -> None:
        """Print `rows`, each as soon as it is measured, and keep them."""
        kept: list[Row] = []
        print_table(kind, title, _kept(rows, kept))
        self.tables.append(Table(kind=kind, title=title, rows=tuple(kept)))

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        document = {"version": VERSION, "machine": asdict(self.machine), "setup": dict(self.setup)}
        tables = [asdict(table) for table in self.tables]
        path.write_text(json.dumps({**document, "tables": tables}, indent=1) + "\n")

    @staticmethod
    def read(path: Path) -> "Report":
        """Read a report that `write` wrote. Raises ValueError."""
        document = json.loads(path.read_text())
        if document.get("version") != VERSION:
            raise ValueError(f"{path}: version {document.get('version')!r} of a benchmark; allowed: {VERSION}")
        tables = [_table(table) for table in document["tables"]]
        return Report(machine=Machine(**document["machine"]), setup=document["setup"], tables=tables)


def _kept(rows: Iterable[Row], kept: list[Row]) -> Iterator[Row]:
    for row in rows:
        kept.append(row)
        yield row


def _table(document: Mapping[str, Any]) -> Table:
    rows = (
        Row(
            name=row["name"],
            samples=tuple(Usage(**sample) for sample in row["samples"]),
            baseline=tuple(Usage(**sample) for sample in row["baseline"]),
            limit_s=row["limit_s"],
        )
        for row in document["rows"]
    )
    return Table(kind=document["kind"], title=document["title"], rows=tuple(rows))

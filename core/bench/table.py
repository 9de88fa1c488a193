"""Prints the rows of the benchmark."""

import sys
from collections.abc import Iterable
from typing import Literal, TypeAlias

from core.bench.rows import Row

Kind: TypeAlias = Literal["phases", "reading", "sequences", "last images", "variations", "trees", "long"]
MIB = 2**20
NAME_WIDTH = 32
HEADING = (
    f"{'':{NAME_WIDTH}}  wall s     min     max  ratio   CPU s  ratio"
    "   tokens  ratio  decoded  velocity   KV MiB  ratio  RSS MiB"
)
PHASES_HEADING = f"{'':{NAME_WIDTH}}   wall ms       min       max    CPU ms  limit ms  share"
LEGEND = """\
wall, CPU      median over the rounds; min and max are of the wall time
limit, share   the least time for the phase's products and weights at the machine's measured rates, and its share of
               the wall time
tokens         tokens read into the KV cache
decoded        tokens sampled, including the end token of each text
velocity       velocity evaluations: one for each image, denoising step and guidance branch
KV, RSS MiB    size of the KV cache and resident memory of the process at the end
ratio          of the medians of the value to its left
"""


def print_table(kind: Kind, title: str, rows: Iterable[Row]) -> None:
    """Print the rows, each as soon as it is measured."""
    phases = kind == "phases"
    sys.stdout.write(f"\n{title}\n{PHASES_HEADING if phases else HEADING}\n")
    for row in rows:
        sys.stdout.write(f"{_phase_line(row) if phases else _line(row)}\n")
        sys.stdout.flush()


def _phase_line(row: Row) -> str:
    wall = [seconds * 1e3 for seconds in row.values("wall_s")]
    limit = "" if row.limit_s is None else f"{row.limit_s * 1e3:>10.2f}{row.limit_s / row.median('wall_s'):>7.0%}"
    milliseconds = (row.median("wall_s") * 1e3, min(wall), max(wall), row.median("cpu_s") * 1e3)
    return f"{row.name:<{NAME_WIDTH}}" + "".join(f"{value:>10.2f}" for value in milliseconds) + limit


def _line(row: Row) -> str:
    wall = row.values("wall_s")
    return (
        f"{row.name:<{NAME_WIDTH}}{row.median('wall_s'):>8.2f}{min(wall):>8.2f}{max(wall):>8.2f}{_ratio(row, 'wall_s')}"
        f"{row.median('cpu_s'):>8.2f}{_ratio(row, 'cpu_s')}"
        f"{_count(row, 'tokens_read'):>9}{_ratio(row, 'tokens_read')}"
        f"{_count(row, 'tokens_decoded'):>9}{_count(row, 'velocity_evaluations'):>10}"
        f"{row.median('kv_bytes') / MIB:>9.2f}{_ratio(row, 'kv_bytes')}{row.median('resident_bytes') / MIB:>9.0f}"
    )


def _ratio(row: Row, field: str) -> str:
    return f"{row.ratio(field):>7.2f}"


def _count(row: Row, field: str) -> str:
    return f"{row.median(field):,.1f}".removesuffix(".0")

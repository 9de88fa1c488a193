"""The tables of the benchmark and the times of whole images, as lines."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from core.bagel import Bagel
from core.bench.__main__ import main
from core.bench.machine import Machine
from core.bench.phases import phase_rows, phases_of
from core.bench.report import Report
from core.bench.rows import Row
from core.bench.usage import Meter
from recipes.recipe import ImageSettings

IMAGES = ((512, 20), (1024, 50))
"""Sides and time steps whose times others publish."""


def tables(options: Sequence[str], json: Path | None) -> Iterator[Mapping[str, object]]:
    """Run `python -m core.bench` with `options`; its own output goes to standard error, its report also to `json`."""
    with TemporaryDirectory() as folder:
        path = json or Path(folder) / "bench.json"
        with redirect_stdout(sys.stderr):
            status = main([*options, "--json", str(path)])
        if status:
            raise ValueError(f"the benchmark can't run with {' '.join(options)}")
        report = Report.read(path)
    yield {**asdict(report.machine), **report.setup}
    for table in report.tables:
        for row in table.rows:
            yield {"table": table.title, "row": row.name, **_shares(row)}


def images(model: Bagel, machine: Machine, rounds: int) -> Iterator[Mapping[str, object]]:
    """Seconds of a whole image with text guidance, and the machine's limit for it."""
    for side, timesteps in IMAGES:
        side_px = min(side, model.spec.max_side_px)
        settings = ImageSettings(width=side_px, height=side_px, num_timesteps=timesteps)
        (phase,) = (phase for phase in phases_of(model, settings, ()) if phase.name == "image")
        (row,) = phase_rows(Meter(model), (phase,), machine, rounds)
        yield {"side_px": side_px, "num_timesteps": timesteps, **_shares(row)}


def _shares(row: Row) -> Mapping[str, object]:
    """The median, and its limit with the share of the limit in it if it is known."""
    median_s = row.median("wall_s")
    share = None if row.limit_s is None else row.limit_s / median_s
    return {"median_s": median_s, "cpu_s": row.median("cpu_s"), "limit_s": row.limit_s, "share": share}

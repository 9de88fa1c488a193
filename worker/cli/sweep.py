"""`autoseq sweep`."""

from pathlib import Path
from typing import Annotated

import typer

from worker.cli.arguments import Json
from worker.cli.connection import open_client

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick


def sweep(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP", help="Sweep id.")],
    *,
    follow: Annotated[bool, typer.Option("--watch", help="Follow the runs until all have ended.")] = False,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder for the sweep's contact sheet.")] = Path(
        "out"
    ),
    as_json: Json = False,
) -> None:
    """Show the runs of a sweep. Once all have ended, make one contact sheet of them."""
    from worker.cli import sweep_report

    with open_client() as client:
        sweep_report.show(client, client.sweeps.get(sweep), out=out, follow=follow, as_json=as_json)

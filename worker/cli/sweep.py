"""`autoseq sweep`."""

from pathlib import Path
from typing import Annotated

import typer

from worker.cli.arguments import Json, Out
from worker.cli.connection import open_client


def show_sweep(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP", help="The sweep's id.")],
    *,
    follow: Annotated[bool, typer.Option("--watch", help="Follow its runs to their end.")] = False,
    out: Out = Path("out"),
    as_json: Json = False,
) -> None:
    """The runs of a sweep; once all have ended, one contact sheet of them."""
    from worker.cli import sweep_report  # noqa: PLC0415 - as in main.py

    with open_client() as client:
        sweep_report.show(client, client.sweeps.get(sweep), out=out, follow=follow, as_json=as_json)

"""`autoseq list`."""

from dataclasses import asdict
from typing import Annotated

import typer

from worker.cli.arguments import Json
from worker.cli.boundary import print_json
from worker.cli.connection import open_client

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick


def list_runs(
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of runs.")] = 20,
    as_json: Json = False,
) -> None:
    """List the most recent runs, newest first."""
    from worker.cli.views.console import screen
    from worker.cli.views.tables import print_table, run_table

    with open_client() as client:
        states = client.list(limit)
    if as_json:
        print_json([asdict(state) for state in states])
    elif states:
        print_table(screen(), run_table(states))
    else:
        typer.echo("There are no runs.")

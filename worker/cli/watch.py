"""`autoseq watch`."""

from typing import Annotated

import typer

from worker.cli.arguments import Json, RunOrLast
from worker.cli.connection import find_run, follow_run, open_client


def watch(
    run: RunOrLast = None,
    *,
    after: Annotated[str, typer.Option(metavar="ID", help="Show only events after this event id.")] = "0-0",
    as_json: Json = False,
) -> None:
    """Follow a run from its start until it ends. Ctrl-C stops watching, not the run."""
    with open_client() as client:
        follow_run(client, find_run(client, run), after=after, as_json=as_json)

"""`autoseq cancel`."""

import typer

from worker.cli.arguments import RunArgument
from worker.cli.connection import find_run, open_client, state_phrase


def cancel(run: RunArgument) -> None:
    """Cancel a run. What it has generated is kept."""
    with open_client() as client:
        run_id = find_run(client, run)
        if client.cancel(run_id):
            typer.echo(f"Cancelled run {run_id}.")
        else:
            typer.echo(f"Nothing to cancel: run {run_id} {state_phrase(client.state(run_id))}.")

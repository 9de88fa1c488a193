"""`autoseq resume`."""

import typer

from worker.cli.arguments import RunArgument
from worker.cli.connection import find_run, open_client, state_phrase


def resume(run: RunArgument) -> None:
    """Queue a failed or cancelled run again. It resumes after its last completed step."""
    with open_client() as client:
        run_id = find_run(client, run)
        if client.resume(run_id):
            typer.echo(f"Queued run {run_id} again.")
        else:
            typer.echo(f"Nothing to resume: run {run_id} {state_phrase(client.state(run_id))}.")

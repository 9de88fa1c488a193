"""`autoseq workers`."""

from dataclasses import asdict

import typer

from worker.cli.arguments import Json
from worker.cli.boundary import print_json
from worker.cli.connection import NO_WORKER, open_client

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick


def workers(*, as_json: Json = False) -> None:
    """List the live workers and what each one does, and those that ended as unhealthy within ten minutes."""
    from worker.cli.views.console import screen
    from worker.cli.views.tables import print_table, worker_table

    with open_client() as client:
        found = client.workers()
        runs = {state.run_id: state for state in client.runs.states([one.run_id for one in found if one.run_id])}
    if as_json:
        steps = {run_id: {"step": state.step, "steps": state.steps} for run_id, state in runs.items()}
        print_json([{**asdict(one), **steps.get(one.run_id or "", {})} for one in found])
    elif found:
        print_table(screen(), worker_table(found, runs))
    else:
        typer.echo(f"{NO_WORKER}.")

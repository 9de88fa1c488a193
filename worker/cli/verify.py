"""`autoseq verify`."""

import typer

from worker.cli.arguments import Json, RunArgument, settings_for
from worker.cli.boundary import ExitCode, print_error, print_json
from worker.cli.connection import find_stored_run

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick


def verify(run: RunArgument, *, as_json: Json = False) -> None:
    """Check a run's objects and checksums; exit 1 on any problem."""
    from worker.client import Client
    from worker.history.verify import verify as inspect

    with Client(settings_for()) as client:
        found = inspect(client.journal(find_stored_run(client, run)))
    if as_json:
        print_json(found.to_data())
    else:
        for flaw in found.flaws:
            print_error(str(flaw))
        if found.whole:
            typer.echo(f"OK: {found.steps} steps, {found.objects} objects in {found.folder}")
    if not found.whole:
        raise typer.Exit(ExitCode.RUN_FAILED)

"""`autoseq health`."""

from typing import Annotated

import typer

from worker.cli.arguments import settings_for
from worker.cli.boundary import ExitCode, print_error

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick


def health(
    *, ready: Annotated[bool, typer.Option("--ready", help="Also require that the worker can take runs.")] = False
) -> None:
    """Check the worker on this machine by its file AUTOSEQ_HEALTH_FILE; exit 1 if it is not alive."""
    from worker.serve.health import problem_of

    path = settings_for().health_file
    if path is None:
        raise typer.BadParameter("AUTOSEQ_HEALTH_FILE is not set, for the worker and for this command")
    if problem := problem_of(path, ready=ready):
        print_error(problem)
        raise typer.Exit(ExitCode.RUN_FAILED)
    typer.echo("ready" if ready else "alive")

"""`autoseq doctor`."""

import typer

from worker.cli.arguments import settings_for
from worker.cli.boundary import ExitCode

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick


def doctor() -> None:
    """Check Redis, S3, the workers and the model, and say how to fix each problem; exit 1 on any problem."""
    from worker.cli.doctor_checks import examine
    from worker.client import Client

    healthy = True
    with Client(settings_for()) as client:
        for check in examine(client):
            healthy &= check.problem is None
            mark = typer.style("problem", fg="red") if check.problem else typer.style("ok     ", fg="green")
            typer.echo(f"{mark}  {check.what}: {check.problem or check.fact}")
    if not healthy:
        raise typer.Exit(ExitCode.RUN_FAILED)

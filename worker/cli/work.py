"""`autoseq worker`."""

import os
from typing import Annotated

import typer

from worker.cli.arguments import Gpus, Model, gpu_numbers, model_folder

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick


def work(
    options: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- CELERY_OPTIONS", help="Options of `celery worker`.", show_default=False),
    ] = None,
    *,
    gpus: Gpus = "",
    model: Model = None,
) -> None:
    """Start a worker, or one per GPU. Options after -- go to `celery worker`."""
    from worker.local.fleet import serve

    env = dict(os.environ) if model is None else {**os.environ, "AUTOSEQ_MODEL": model_folder(model)}
    raise typer.Exit(serve(env, gpus=gpu_numbers(gpus), options=options or []))

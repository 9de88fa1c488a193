"""`autoseq submit`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from worker.cli.arguments import (
    Dedupe,
    IdempotencyKey,
    Json,
    Overrides,
    PriorityOption,
    RecipeArgument,
    Swept,
    Variables,
    Watch,
    check_one_key,
    parsed_overrides,
    parsed_variables,
    recipe_file,
)
from worker.cli.boundary import print_json
from worker.cli.connection import follow_run, note_waiting, open_client

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick


def submit(  # noqa: PLR0913 - each option is a parameter
    recipe: RecipeArgument,
    *,
    overrides: Overrides = None,
    variables: Variables = None,
    follow: Watch = False,
    priority: PriorityOption = "normal",
    idempotency_key: IdempotencyKey = None,
    dedupe: Dedupe = False,
    run_id: Annotated[str | None, typer.Option(help="Id of the run or sweep. Default: a random one.")] = None,
    sweep: Swept = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder for a sweep's contact sheet.")] = Path(
        "out"
    ),
    as_json: Json = False,
) -> None:
    """Submit a recipe to the queue and print the run id; with --sweep, one run per combination of values."""
    check_one_key(dedupe=dedupe, idempotency_key=idempotency_key)
    if sweep and (dedupe or idempotency_key):
        raise typer.BadParameter("--sweep can't be used with --dedupe or --idempotency-key; use --run-id")
    given: dict[str, Any] = {
        "overrides": parsed_overrides(overrides),
        "variables": parsed_variables(variables),
        "priority": priority,
    }
    with open_client() as client:
        if sweep:
            from worker.cli import sweep_report

            given["sweep_id"] = run_id
            sweep_report.submit(client, recipe_file(recipe), sweep, out=out, follow=follow, as_json=as_json, **given)
            return
        run_id = client.submit(
            recipe_file(recipe), idempotency_key=idempotency_key, dedupe=dedupe, run_id=run_id, **given
        )
        if as_json:
            print_json({"run_id": run_id})
        else:
            typer.echo(run_id)
        if follow:
            follow_run(client, run_id, as_json=as_json, stderr=True)
        else:
            note_waiting(client, run_id)

"""`autoseq branch`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from worker.cli.arguments import (
    Dedupe,
    IdempotencyKey,
    Json,
    Overrides,
    PriorityOption,
    RunArgument,
    Watch,
    check_one_key,
    parsed_overrides,
    settings_for,
)
from worker.cli.boundary import print_json
from worker.cli.connection import find_run, find_stored_run, follow_run, note_waiting, open_client
from worker.cli.recipe import write_recipe

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick


def branch(  # noqa: PLR0913 - each option is a parameter
    run: RunArgument,
    *,
    at: Annotated[int, typer.Option("--at", metavar="STEP", help="Step of the run to continue from.")],
    variation: Annotated[
        int | None, typer.Option(help="Variation of the step's image to continue from. Default: the selected one.")
    ] = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Also write the new recipe to this file.")
    ] = None,
    submits: Annotated[
        bool, typer.Option("--submit/--no-submit", help="Queue the new run, or only print its recipe.")
    ] = True,
    follow: Watch = False,
    priority: PriorityOption = "normal",
    idempotency_key: IdempotencyKey = None,
    dedupe: Dedupe = False,
    run_id: Annotated[str | None, typer.Option(help="Id of the new run. Default: a random one.")] = None,
    as_json: Json = False,
) -> None:
    """Submit a new run that continues from a step of another run.

    The other run may be in progress, complete, failed or cancelled.
    """
    check_one_key(dedupe=dedupe, idempotency_key=idempotency_key)
    place: dict[str, Any] = {"at": at, "variation": variation, "overrides": parsed_overrides(overrides)}
    if not submits or out:
        _write_branch(run, place, out)
    if not submits:
        return
    options: dict[str, Any] = {
        "priority": priority,
        "idempotency_key": idempotency_key,
        "dedupe": dedupe,
        "run_id": run_id,
    }
    with open_client() as client:
        run = find_run(client, run)
        new = client.branch(run, **place, **options)
        if as_json:
            print_json({"run_id": new, "parent": f"{run}@{at}"})
        else:
            typer.echo(new)
        if follow:
            follow_run(client, new, as_json=as_json, stderr=True)
        else:
            note_waiting(client, new)


def _write_branch(run: str, place: dict[str, Any], out: Path | None) -> None:
    """Write the recipe of a branch; needs the bucket alone."""
    from recipes.load import load
    from worker.client import Client
    from worker.history.branch import branched
    from worker.history.provenance import recipe_yaml

    with Client(settings_for()) as client:
        document = branched(client.journal(find_stored_run(client, run)), **place)
        write_recipe(recipe_yaml(load(document, overrides=place["overrides"])), out)

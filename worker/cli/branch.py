"""`autoseq branch`."""

from pathlib import Path
from typing import Annotated

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
    from recipes.load import load
    from worker.client import Client
    from worker.history.branch import branched
    from worker.history.provenance import recipe_yaml

    check_one_key(dedupe=dedupe, idempotency_key=idempotency_key)
    changes = parsed_overrides(overrides)
    if not submits or out:
        with Client(settings_for()) as client:
            run = find_stored_run(client, run)
            document = branched(client.journal(run), at=at, variation=variation, overrides=changes)
            write_recipe(recipe_yaml(load(document, overrides=changes)), out)
    if not submits:
        return
    with open_client() as client:
        run = find_run(client, run)
        new = client.branch(
            run,
            at=at,
            variation=variation,
            overrides=changes,
            priority=priority,
            idempotency_key=idempotency_key,
            dedupe=dedupe,
            run_id=run_id,
        )
        if as_json:
            print_json({"run_id": new, "parent": f"{run}@{at}"})
        else:
            typer.echo(new)
        if follow:
            follow_run(client, new, as_json=as_json, stderr=True)
        else:
            note_waiting(client)

"""`autoseq validate`."""

from typing import Annotated

import typer

from worker.cli.arguments import Json, Model, Overrides, Variables, parsed_overrides, parsed_variables, settings_for
from worker.cli.boundary import ExitCode, print_error, print_json, print_note
from worker.cli.completion import recipes as recipe_names

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick


def validate(
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE", help="Recipe files, or names of shipped recipes.", autocompletion=recipe_names
        ),
    ],
    *,
    overrides: Overrides = None,
    variables: Variables = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Check recipes and their images without services. Report each error with its position and the allowed values."""
    from worker.cli.recipe_check import check_recipe, known_spec

    spec = known_spec(settings_for(model), required=model is not None)
    changes, values = parsed_overrides(overrides), parsed_variables(variables)
    checks = [check_recipe(recipe, spec, overrides=changes, variables=values) for recipe in recipes]
    if as_json:
        print_json([check.to_data() for check in checks])
    else:
        for check in checks:
            if check.ok:
                typer.echo(f"{check.recipe}: ok")
            for fault in check.faults:
                print_error(str(fault))
            for warning in check.warnings:
                print_note(f"{check.recipe}: warning: {warning}")
    if not all(check.ok for check in checks):
        raise typer.Exit(ExitCode.BAD_INPUT)

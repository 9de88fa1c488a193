"""`autoseq show-recipe`."""

import json

import typer

from worker.cli.arguments import Json, Model, Overrides, RecipeArgument, Variables, given_recipe, settings_for
from worker.cli.boundary import print_json

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick


def show_recipe(
    recipe: RecipeArgument,
    *,
    overrides: Overrides = None,
    variables: Variables = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Print a recipe with all defaults filled in, and the source of each value."""
    from recipes.canonical import to_json
    from recipes.render_yaml import render_yaml
    from worker.cli.recipe_check import known_spec

    spec = known_spec(settings_for(model), required=model is not None)
    given = given_recipe(recipe, overrides, variables)
    if as_json:
        print_json(json.loads(to_json(given.resolve(spec))))
    else:
        typer.echo(render_yaml(given, spec), nl=False)

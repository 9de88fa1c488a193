"""`autoseq plan`."""

from worker.cli.arguments import Json, Model, Overrides, RecipeArgument, Variables, given_recipe, settings_for
from worker.cli.boundary import print_json, print_note

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick


def plan(
    recipe: RecipeArgument,
    *,
    overrides: Overrides = None,
    variables: Variables = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """List the steps of a recipe with their tokens, KV cache memory and forward passes, without running it."""
    from worker.cli.plan_costs import plan_costs
    from worker.cli.views.console import screen
    from worker.cli.views.tables import cost_note, cost_table, print_all

    found = plan_costs(given_recipe(recipe, overrides, variables), settings_for(model))
    if as_json:
        print_json(found.to_data())
    else:
        print_all(screen(), [cost_table(found), "", cost_note(found)])
        for warning in found.warnings:
            print_note(f"warning: {warning}")

"""`autoseq plan`."""

from typing import Annotated

import typer

from worker.cli.arguments import Json, Model, Overrides, RecipeArgument, Variables, given_recipe, settings_for
from worker.cli.boundary import print_json, print_note

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick

Memory = Annotated[
    bool, typer.Option("--memory", help="Show the GPU memory that the recipe needs, and which GPUs have enough.")
]


def plan(
    recipe: RecipeArgument,
    *,
    overrides: Overrides = None,
    variables: Variables = None,
    model: Model = None,
    memory: Memory = False,
    as_json: Json = False,
) -> None:
    """List the steps of a recipe with their tokens, KV cache memory and forward passes, without running it."""
    from worker.cli.plan_costs import plan_costs
    from worker.cli.plan_memory import plan_memory
    from worker.cli.views.console import screen
    from worker.cli.views.memory import memory_note, memory_table
    from worker.cli.views.tables import cost_note, cost_table, print_all

    config = settings_for(model)
    found = plan_costs(given_recipe(recipe, overrides, variables), config)
    if memory:
        needed = plan_memory(found, config)
        data, shown = needed.to_data(), (memory_table(needed), "", memory_note(needed))
    else:
        data, shown = found.to_data(), (cost_table(found), "", cost_note(found))
    if as_json:
        print_json(data)
        return
    print_all(screen(), shown)
    for warning in found.warnings:
        print_note(f"warning: {warning}")

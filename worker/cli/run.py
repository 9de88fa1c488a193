"""`autoseq run`."""

from pathlib import Path

from worker.cli.arguments import Json, Model, Out, Overrides, RecipeArgument, Variables, given_recipe, settings_for
from worker.cli.boundary import print_json, print_note

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick


def run(
    recipe: RecipeArgument,
    *,
    out: Out = Path("out"),
    overrides: Overrides = None,
    variables: Variables = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Run a recipe in this process, without services. Run again to resume after the last completed step."""
    from worker.cli.local_run import run_here
    from worker.cli.run_folder import complete_folder, print_links
    from worker.cli.views.console import RunView, screen

    try:
        with RunView(screen(stderr=True)) as view:
            given = given_recipe(recipe, overrides, variables)
            journal = run_here(given, out=out, config=settings_for(model), show=view.show)
    except KeyboardInterrupt:
        print_note("Stopped. Run the same command again to resume after the last completed step.")
        raise
    folder = complete_folder(journal, out / journal.run_id)
    if as_json:
        print_json(folder.to_data())
    else:
        print_links(screen(), folder)

"""`autoseq recipe from`."""

from pathlib import Path
from typing import Annotated

import typer

from worker.cli.arguments import settings_for
from worker.cli.boundary import print_note
from worker.cli.completion import run_ids
from worker.cli.connection import find_stored_run

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick

recipe_app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@recipe_app.callback()
def recipe() -> None:
    """Recover the recipe of a run or an image."""


@recipe_app.command("from")
def recipe_from(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|IMAGE",
            help="Run id, a unique prefix of it, or an image file that a run generated.",
            autocompletion=run_ids,
        ),
    ],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the recipe to this file instead of stdout.")
    ] = None,
    download: Annotated[
        Path | None,
        typer.Option("--download", metavar="FOLDER", help="Write the recipe and its input images to this folder."),
    ] = None,
) -> None:
    """Print the exact recipe of a run, or of the run that generated an image, ready to submit again."""
    from storage.image_formats import FORMATS
    from worker.client import Client
    from worker.history.provenance import provenance_of_image, provenance_of_run

    if out and download:
        raise typer.BadParameter("--out and --download can't be used together")
    with Client(settings_for()) as client:
        if "/" in source or Path(source).suffix[1:] in FORMATS or Path(source).is_file():
            found, image = provenance_of_image(Path(source), client.journal)
            which = f", variation {image.variation}" if image.variation else ""
            print_note(f"{source}: step {image.step}{which} of run {image.run_id}, generated with seed {image.seed}")
        else:
            found = provenance_of_run(client.journal(find_stored_run(client, source)))
        if download:
            typer.echo(found.download(download))
        else:
            write_recipe(found.to_yaml(), out)


def write_recipe(text: str, file: Path | None) -> None:
    """Write a recipe to a file, or to stdout."""
    if file is None:
        typer.echo(text, nl=False)
        return
    file.write_text(text)
    print_note(f"Recipe written to {file}.")

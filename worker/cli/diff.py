"""`autoseq diff`."""

from pathlib import Path
from typing import Annotated

import typer

from worker.cli.arguments import Json, RunArgument, settings_for
from worker.cli.boundary import print_json, print_note
from worker.cli.completion import run_ids
from worker.cli.connection import find_stored_run

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick


def diff(
    run: RunArgument,
    other: Annotated[
        str,
        typer.Argument(metavar="OTHER", help="Id of the other run, or a unique prefix of it.", autocompletion=run_ids),
    ],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the images side by side to this PNG file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare two runs: recipes by field, texts by word, images by pixel."""
    from worker.cli.sheets.difference_sheet import difference_sheet
    from worker.cli.views.console import screen
    from worker.cli.views.difference import difference_view
    from worker.cli.views.tables import print_all
    from worker.client import Client
    from worker.history.diff import compare

    with Client(settings_for()) as client:
        found = compare(find_stored_run(client, run), find_stored_run(client, other), client.journal)
        sheet = difference_sheet(found) if out else None
    if out and sheet:
        sheet.save(out, format="PNG")
    if as_json:
        print_json({**found.to_data(), "sheet": str(out.resolve()) if out and sheet else None})
        return
    print_all(screen(), difference_view(found))
    if any(pair.is_image and not pair.same for pair in found.pairs):
        print_note(f"Images written to {out}." if out else "Use --out FILE.png to write the images side by side.")
    elif out:
        print_note(f"The images are the same; {out} was not written.")

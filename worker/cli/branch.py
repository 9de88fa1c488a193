"""The commands that go by what runs are to each other: branch off one, compare two, find the recipe of a picture."""

from pathlib import Path
from typing import Annotated

import typer

from worker.cli.arguments import Json, Overrides, RunArgument, parsed, settings_for
from worker.cli.boundary import print_json, print_note
from worker.cli.connection import NO_WORKER, follow_run, open_client
from worker.jobs.request import Priority

# ruff: noqa: PLC0415 - as in main.py: a command imports what it needs when it runs

recipe_app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@recipe_app.callback()
def recipe() -> None:
    """The recipe of something that was made."""


def branch(  # noqa: PLR0913 - each option is a parameter
    run: RunArgument,
    *,
    at: Annotated[int, typer.Option("--at", metavar="STEP", help="Go on behind this step of the run.")],
    variation: Annotated[
        int | None, typer.Option(help="Which of the step's images goes on; by default the one that did.")
    ] = None,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the recipe to a file, too.")] = None,
    submits: Annotated[bool, typer.Option("--submit/--no-submit", help="Queue it, or only give its recipe.")] = True,
    follow: Annotated[bool, typer.Option("--watch", help="Follow the run to its end.")] = False,
    priority: Annotated[Priority, typer.Option(help="Which runs wait for which.")] = "normal",
    idempotency_key: Annotated[str | None, typer.Option(help="The same key again gives the same run.")] = None,
    dedupe: Annotated[bool, typer.Option("--dedupe", help="The same recipe, images and model are one run.")] = False,
    run_id: Annotated[str | None, typer.Option(help="A name for the run, instead of a random one.")] = None,
    as_json: Json = False,
) -> None:
    """Go on from a step of a run as a run of its own, with other settings; the run may be under way or have failed."""
    from worker.client import Client
    from worker.history.branch import branched

    if dedupe and idempotency_key:
        raise typer.BadParameter("--dedupe makes its own --idempotency-key: give one of the two")
    changes = parsed(overrides)
    if not submits or out:
        with Client(settings_for()) as client:
            text = _yaml(branched(client.journal(run), at=at, variation=variation, overrides=changes), changes)
        _write(text, out)
    if not submits:
        return
    with open_client() as client:
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
        elif not client.models():
            print_note(f"the run waits for a worker; {NO_WORKER}")


def diff(
    run: RunArgument,
    other: Annotated[str, typer.Argument(metavar="RUN", help="The other run's id.")],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where the pictures are put, as a PNG.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Where two runs part: recipes field by field, texts word by word, pictures side by side in a file."""
    from worker.cli.views.comparison import comparison, difference_sheet
    from worker.cli.views.console import screen
    from worker.client import Client
    from worker.history.diff import compare

    with Client(settings_for()) as client:
        found = compare(run, other, client.journal)
        sheet = difference_sheet(found)
    file = out or Path(f"diff-{run}-{other}.png")
    if sheet:
        sheet.save(file, format="PNG")
    if as_json:
        print_json({**found.to_data(), "sheet": str(file.resolve()) if sheet else None})
        return
    screen().print(comparison(found))
    print_note(f"the pictures: {file}" if sheet else "no picture differs, so there is no sheet of them")


@recipe_app.command("from")
def recipe_from(
    source: Annotated[str, typer.Argument(metavar="RUN|PICTURE", help="A run's id, or a PNG file that a run left.")],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write it to a file, not to stdout.")
    ] = None,
    download: Annotated[
        Path | None, typer.Option("--download", metavar="FOLDER", help="Write it to a folder, its images beside it.")
    ] = None,
) -> None:
    """The exact recipe of a run, or of the run that drew a picture, to be submitted again."""
    from worker.client import Client
    from worker.history.provenance import provenance_of_picture, provenance_of_run

    if out and download:
        raise typer.BadParameter("--download makes its own file: give one of --out and --download")
    with Client(settings_for()) as client:
        if "/" in source or source.endswith(".png") or Path(source).is_file():
            origin, claim = provenance_of_picture(Path(source), client.journal)
            which = f", variation {claim.variation}" if claim.variation else ""
            print_note(f"{source}: step {claim.step}{which} of run {claim.run_id}, drawn from seed {claim.seed}")
        else:
            origin = provenance_of_run(client.journal(source))
        if download:
            typer.echo(origin.download(download))
        else:
            _write(origin.to_yaml(), out)


def _yaml(document: dict[str, object], changes: dict[str, object]) -> str:
    """A recipe as a file, its changes put in and checked."""
    from recipes.load import load
    from worker.history.provenance import recipe_yaml

    return recipe_yaml(load(document, overrides=changes))


def _write(text: str, file: Path | None) -> None:
    if file is None:
        typer.echo(text, nl=False)
        return
    file.write_text(text)
    print_note(f"written: {file}")

"""Submit, follow and show the runs of a sweep, for `autoseq submit --sweep` and `autoseq sweep`."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from recipes.faults import Fault, RecipeError
from recipes.sweep import parse_sweep
from storage import keys
from storage.sweeps import Sweep
from worker.cli.boundary import ExitCode, print_json, print_note
from worker.cli.sheets.sweep_sheet import sweep_sheet
from worker.cli.views.console import print_link, screen
from worker.cli.views.sweep_view import SweepView, summary, sweep_table
from worker.cli.views.tables import print_all
from worker.client import Client
from worker.client.sweeps import States, follow_sweep, states_of


def parsed_sweeps(texts: Sequence[str]) -> dict[str, list[Any]]:
    """The values of each field that --sweep gives. Raises RecipeError, also when a field is given twice."""
    sweeps: dict[str, list[Any]] = {}
    for field, values in map(parse_sweep, texts):
        if field in sweeps:
            raise RecipeError([Fault(path=(), message=f"{field} is given twice", source="sweep")])
        sweeps[field] = values
    return sweeps


def submit(
    client: Client, recipe: Path, sweeps: Sequence[str], *, out: Path, follow: bool, as_json: bool, **options: Any
) -> None:
    """Queue a sweep, print its id, and follow it to its end if `follow`. `options` are those of Client.sweep."""
    sweep = client.sweep(recipe, parsed_sweeps(sweeps), **options)
    if not as_json:
        typer.echo(sweep.sweep_id)
    if not follow:
        if as_json:
            print_json(sweep_data(sweep, states_of(client, sweep)))
        else:
            print_note(f"{len(sweep.runs)} runs queued. Use `autoseq sweep {sweep.sweep_id} --watch` to follow them.")
        return
    show(client, sweep, out=out, follow=True, as_json=as_json)


def show(client: Client, sweep: Sweep, *, out: Path, follow: bool, as_json: bool) -> None:
    """Show the runs of a sweep, until all have ended if `follow`. Once they have, make their contact sheet."""
    states = _followed(client, sweep, quiet=as_json) if follow else states_of(client, sweep)
    ended = all(state is None or state.is_final for state in states.values())
    sheet = None
    if ended:
        png = sweep_sheet(sweep, states, client.journal)
        sheet = out / sweep.sweep_id / keys.CONTACT_SHEET
        sheet.parent.mkdir(parents=True, exist_ok=True)
        sheet.write_bytes(png)
        url = client.sweeps.put_sheet(sweep.sweep_id, png)
    if as_json:
        found = {"contact_sheet": str(sheet.resolve()), "contact_sheet_url": url} if sheet else {}
        print_json({**sweep_data(sweep, states), **found})
    else:
        print_all(screen(stderr=follow), [sweep_table(sweep, states), summary(states)])
        if sheet:
            print_link(screen(), "contact sheet", sheet.resolve().as_uri())
            print_link(screen(), "in S3", url)
    if follow:
        raise typer.Exit(exit_code(states))


def exit_code(states: States) -> ExitCode:
    """The exit code for runs that have ended."""
    ends = {state.state if state else "failed" for state in states.values()}
    return ExitCode.RUN_FAILED if "failed" in ends else ExitCode.CANCELLED if "cancelled" in ends else ExitCode.OK


def sweep_data(sweep: Sweep, states: States) -> dict[str, Any]:
    """A sweep and its runs as JSON data."""
    runs = [
        {**asdict(run), "state": state.state if state else None, "error": state.error if state else None}
        for run, state in ((run, states[run.run_id]) for run in sweep.runs)
    ]
    return {"sweep_id": sweep.sweep_id, "name": sweep.name, "fields": dict(sweep.fields), "runs": runs}


def _followed(client: Client, sweep: Sweep, *, quiet: bool) -> States:
    """The final states of the runs. Shows each change unless `quiet`."""
    states: States = {}
    view = SweepView(screen(stderr=True), sweep)
    try:
        with nullcontext() if quiet else view:
            for states in follow_sweep(client, sweep):
                if not quiet:
                    view.show(states)
    except KeyboardInterrupt:
        print_note(
            f"Stopped watching; the runs continue. Use `autoseq sweep {sweep.sweep_id} --watch` to watch them again."
        )
        raise
    return states

"""`autoseq`, the command line: each command reads its arguments, has a noun do the work, and shows what came of it.

Exit codes: 0 all is well; 1 the run failed; 2 bad input or usage; 3 Redis, S3 or a package is not there; 4 the run was
cancelled; 130 Ctrl-C. Results go to stdout, progress and errors to stderr.
"""

import os
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from worker.cli import kinship
from worker.cli.arguments import (
    Gpus,
    Json,
    Model,
    Out,
    Overrides,
    RecipeArgument,
    RunArgument,
    Swept,
    Variables,
    given_recipe,
    gpu_numbers,
    parsed,
    recipe_file,
    settings_for,
    values_of,
)
from worker.cli.boundary import Boundary, ExitCode, print_error, print_json, print_note
from worker.cli.connection import NO_WORKER, follow_run, open_client
from worker.cli.sweep_command import show_sweep
from worker.jobs.request import Priority

# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that --help and completion are quick


EPILOG = (
    "Exit codes: 0 all is well, 1 the run failed, 2 bad input or usage, 3 Redis, S3 or a package is not there, "
    "4 the run was cancelled, 130 Ctrl-C. Settings: AUTOSEQ_… in the environment, in .env or in .autoseq/env."
)
MAKE, FOLLOW, CHECK = "Make", "Follow", "Check"

app = typer.Typer(cls=Boundary, no_args_is_help=True, pretty_exceptions_enable=False, epilog=EPILOG)


def main() -> None:
    """The entry point `autoseq`."""
    app(prog_name="autoseq")


@app.callback(invoke_without_command=True)
def about(*, show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Automatic interleaved text-image sequences on BAGEL: a recipe in, texts and pictures out."""
    if show_version:
        typer.echo(f"autoseq {version('autosequence')}")
        raise typer.Exit


@app.command(rich_help_panel=MAKE)
def demo(
    recipe: RecipeArgument = "magical-forest",
    *,
    overrides: Overrides = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running until Ctrl-C.")] = False,
    out: Out = Path("out"),
) -> None:
    """See it all on this machine: Redis, S3, a worker, one recipe; ends with links to the pictures."""
    from worker.cli import dev
    from worker.cli.console import screen

    dev.demo(recipe_file(recipe), parsed(overrides), out=out, keep=keep, console=screen())


@app.command("dev", rich_help_panel=MAKE)
def develop(gpus: Gpus = "") -> None:
    """Redis, S3 and a worker on this machine until Ctrl-C; the other commands, in this folder, find them."""
    from worker.cli import dev
    from worker.cli.console import screen

    dev.dev(gpu_numbers(gpus), console=screen())


@app.command("worker", rich_help_panel=MAKE)
def work(
    options: Annotated[list[str] | None, typer.Argument(metavar="[-- CELERY OPTIONS]", show_default=False)] = None,
    *,
    gpus: Gpus = "",
    model: Model = None,
) -> None:
    """Serve the queue: one worker, or one for each GPU. Options after -- go to `celery worker`."""
    from worker.local.fleet import serve

    env = dict(os.environ) if model is None else {**os.environ, "AUTOSEQ_MODEL": str(model)}
    raise typer.Exit(serve(env, gpus=gpu_numbers(gpus), options=options or []))


@app.command(rich_help_panel=MAKE)
def run(
    recipe: RecipeArgument,
    *,
    out: Out = Path("out"),
    overrides: Overrides = None,
    variables: Variables = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Run a recipe in this process, without services. The same again goes on where it was left."""
    from worker.cli.album import make_album, print_links
    from worker.cli.console import RunView, screen
    from worker.cli.solo import run_here

    try:
        with RunView(screen(stderr=True)) as view:
            given = given_recipe(recipe, overrides, variables)
            journal = run_here(given, out=out, config=settings_for(model), show=view.show)
    except KeyboardInterrupt:
        print_note("stopped; the same command goes on after the last finished step")
        raise
    album = make_album(journal, out / journal.run_id)
    if as_json:
        print_json(album.to_data())
    else:
        print_links(screen(), album)


@app.command(rich_help_panel=MAKE)
def submit(  # noqa: PLR0913 - each option is a parameter
    recipe: RecipeArgument,
    *,
    overrides: Overrides = None,
    variables: Variables = None,
    follow: Annotated[bool, typer.Option("--watch", help="Follow the run to its end.")] = False,
    priority: Annotated[Priority, typer.Option(help="Which runs wait for which.")] = "normal",
    idempotency_key: Annotated[str | None, typer.Option(help="The same key again gives the same run.")] = None,
    dedupe: Annotated[bool, typer.Option("--dedupe", help="The same recipe, images and model are one run.")] = False,
    run_id: Annotated[str | None, typer.Option(help="A name for the run or sweep, instead of a random one.")] = None,
    sweep: Swept = None,
    out: Annotated[Path, typer.Option("--out", help="Where a sweep's contact sheet goes.")] = Path("out"),
    as_json: Json = False,
) -> None:
    """Queue a recipe for a worker and print the run's id; with --sweep a run for each combination of values."""
    if dedupe and idempotency_key:
        raise typer.BadParameter("--dedupe makes its own --idempotency-key: give one of the two")
    if sweep and (dedupe or idempotency_key):
        raise typer.BadParameter("--sweep doubles nothing by its --run-id: leave the other out")
    given: dict[str, Any] = {
        "overrides": parsed(overrides),
        "variables": values_of(variables),
        "priority": priority,
    }
    with open_client() as client:
        if sweep:
            from worker.cli import sweep_report

            given["sweep_id"] = run_id
            sweep_report.submit(client, recipe_file(recipe), sweep, out=out, follow=follow, as_json=as_json, **given)
            return
        run_id = client.submit(
            recipe_file(recipe), idempotency_key=idempotency_key, dedupe=dedupe, run_id=run_id, **given
        )
        if as_json:
            print_json({"run_id": run_id})
        else:
            typer.echo(run_id)
        if follow:
            follow_run(client, run_id, as_json=as_json, stderr=True)
        elif not client.models():
            print_note(f"the run waits for a worker; {NO_WORKER}")


@app.command(rich_help_panel=FOLLOW)
def watch(
    run: RunArgument,
    *,
    after: Annotated[str, typer.Option(metavar="ID", help="Only what came after this event.")] = "0-0",
    as_json: Json = False,
) -> None:
    """Follow a run to its end, from its beginning. Ctrl-C stops watching, not the run."""
    with open_client() as client:
        follow_run(client, run, after=after, as_json=as_json)


@app.command("list", rich_help_panel=FOLLOW)
def list_runs(
    *, limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many.")] = 20, as_json: Json = False
) -> None:
    """The runs submitted last, the newest first."""
    with open_client() as client:
        states = client.list(limit)
    if as_json:
        print_json([asdict(state) for state in states])
        return
    from worker.cli.console import screen
    from worker.cli.tables import run_table

    screen().print(run_table(states) if states else "There are no runs.")


@app.command(rich_help_panel=FOLLOW)
def show(run: RunArgument, *, as_json: Json = False) -> None:
    """A run's state, its texts, and links to its pictures."""
    from worker.cli.console import screen
    from worker.cli.tables import artifact_lines, state_lines
    from worker.client.lookup import look_up

    with open_client() as client:
        found = look_up(client, run)
        if as_json:
            print_json(found.to_data())
            return
        screen().print(state_lines(found.state), soft_wrap=True)
        if found.artifacts:
            screen().print()
            screen().print(artifact_lines(found.artifacts, found.journal), soft_wrap=True)


app.command("sweep", rich_help_panel=FOLLOW)(show_sweep)


@app.command(rich_help_panel=FOLLOW)
def cancel(run: RunArgument) -> None:
    """Stop a run; what it has made is kept."""
    with open_client() as client:
        typer.echo("cancelled" if client.cancel(run) else f"nothing to cancel: the run has {client.state(run).state}")


@app.command(rich_help_panel=FOLLOW)
def resume(run: RunArgument) -> None:
    """Let a failed or cancelled run go on after its last finished step."""
    with open_client() as client:
        typer.echo("queued" if client.resume(run) else f"nothing to resume: the run has {client.state(run).state}")


@app.command(rich_help_panel=CHECK)
def verify(run: RunArgument, *, as_json: Json = False) -> None:
    """Is a run in the bucket whole? Every record, object and checksum, and nothing extra; leaves with 1 if not."""
    from worker.client import Client
    from worker.history.verify import verify as inspect

    with Client(settings_for()) as client:
        found = inspect(client.journal(run))
    if as_json:
        print_json(found.to_data())
    else:
        for flaw in found.flaws:
            print_error(str(flaw))
        if found.whole:
            typer.echo(f"whole: {found.steps} steps, {found.objects} objects in {found.folder}")
    if not found.whole:
        raise typer.Exit(ExitCode.RUN_FAILED)


@app.command(rich_help_panel=CHECK)
def validate(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE...", help="Recipe files or shipped recipes' names.")],
    *,
    overrides: Overrides = None,
    variables: Variables = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Check recipes and their images, offline: every fault with its place and what is allowed."""
    from worker.cli.verdict import known_spec, verdict_on

    spec = known_spec(settings_for(model), required=model is not None)
    given = values_of(variables), parsed(overrides)
    verdicts = [verdict_on(recipe, spec, *given) for recipe in recipes]
    if as_json:
        print_json([asdict(verdict) for verdict in verdicts])
    else:
        for verdict in verdicts:
            if verdict.ok:
                typer.echo(f"{verdict.recipe}: ok")
            for fault in verdict.faults:
                print_error(fault)
    if not all(verdict.ok for verdict in verdicts):
        raise typer.Exit(ExitCode.BAD_INPUT)


@app.command(rich_help_panel=CHECK)
def plan(
    recipe: RecipeArgument,
    *,
    overrides: Overrides = None,
    variables: Variables = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Every step of a recipe before it runs: tokens, KV memory and forward passes."""
    from worker.cli.console import screen
    from worker.cli.estimate import estimate
    from worker.cli.tables import cost_note, cost_table

    found = estimate(given_recipe(recipe, overrides, variables), settings_for(model))
    if as_json:
        print_json(found.to_data())
    else:
        screen().print(cost_table(found), "", cost_note(found), sep="\n")


@app.command("show-recipe", rich_help_panel=CHECK)
def show_recipe(
    recipe: RecipeArgument,
    *,
    overrides: Overrides = None,
    variables: Variables = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """A recipe with every default filled in, as a recipe, and where each value comes from."""
    from recipes.canonical import to_json
    from recipes.render_yaml import render_yaml
    from worker.cli.verdict import known_spec

    spec = known_spec(settings_for(model), required=model is not None)
    given = given_recipe(recipe, overrides, variables)
    if as_json:
        typer.echo(to_json(given.resolve(spec)))
    else:
        typer.echo(render_yaml(given, spec), nl=False)


@app.command(rich_help_panel=CHECK)
def schema() -> None:
    """The JSON Schema of recipes, for editors."""
    from recipes.schema import schema_text

    typer.echo(schema_text(), nl=False)


@app.command(rich_help_panel=CHECK)
def doctor() -> None:
    """Is everything there that a run needs? One line for each thing, with what helps."""
    from worker.cli.doctor import examine
    from worker.client import Client

    healthy = True
    with Client(settings_for()) as client:
        for finding in examine(client):
            healthy &= finding.problem is None
            mark = typer.style("problem", fg="red") if finding.problem else typer.style("ok     ", fg="green")
            typer.echo(f"{mark}  {finding.what}: {finding.problem or finding.fact}")
    if not healthy:
        raise typer.Exit(ExitCode.RUN_FAILED)


app.command(rich_help_panel=MAKE)(kinship.branch)
app.command(rich_help_panel=CHECK)(kinship.diff)
app.add_typer(kinship.recipe_app, name="recipe", rich_help_panel=CHECK)


if __name__ == "__main__":
    main()

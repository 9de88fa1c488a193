"""`autoseq`, the command line: registers the commands, one module each.

Exit codes: 0 success; 1 the run failed; 2 bad input or usage; 3 Redis, S3 or a package is not available; 4 the run was
cancelled; 130 Ctrl-C. Results go to stdout, progress and errors to stderr.
"""

from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from worker.cli.bench import PASS_ON, bench
from worker.cli.boundary import Boundary
from worker.cli.branch import branch
from worker.cli.cancel import cancel
from worker.cli.demo import demo
from worker.cli.dev import dev
from worker.cli.diff import diff
from worker.cli.doctor import doctor
from worker.cli.health import health
from worker.cli.list_runs import list_runs
from worker.cli.plan import plan
from worker.cli.recipe import recipe_app
from worker.cli.resume import resume
from worker.cli.run import run
from worker.cli.schema import schema
from worker.cli.show import show
from worker.cli.show_recipe import show_recipe
from worker.cli.submit import submit
from worker.cli.sweep import sweep
from worker.cli.validate import validate
from worker.cli.verify import verify
from worker.cli.watch import watch
from worker.cli.work import work
from worker.cli.workers import workers

EPILOG = (
    "Exit codes: 0 success, 1 the run failed, 2 bad input or usage, 3 Redis, S3 or a package is not available, "
    "4 the run was cancelled, 130 Ctrl-C. Settings: AUTOSEQ_* in the environment, in .env or in .autoseq/env."
)
PANELS: dict[str, dict[str, Callable[..., None]]] = {
    "Make": {"demo": demo, "dev": dev, "worker": work, "run": run, "submit": submit, "branch": branch},
    "Follow": {"watch": watch, "list": list_runs, "show": show, "sweep": sweep, "cancel": cancel, "resume": resume},
    "Check": {
        "verify": verify,
        "validate": validate,
        "plan": plan,
        "show-recipe": show_recipe,
        "diff": diff,
        "schema": schema,
        "doctor": doctor,
        "workers": workers,
        "health": health,
    },
}

app = typer.Typer(cls=Boundary, no_args_is_help=True, pretty_exceptions_enable=False, epilog=EPILOG)
for panel, commands in PANELS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(command)
app.command("bench", rich_help_panel="Check", context_settings=PASS_ON)(bench)
app.add_typer(recipe_app, name="recipe", rich_help_panel="Check")


def main() -> None:
    """The entry point `autoseq`."""
    app(prog_name="autoseq")


@app.callback(invoke_without_command=True)
def about(
    *, show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False
) -> None:
    """Generate interleaved text-image sequences with BAGEL from a recipe."""
    if show_version:
        typer.echo(f"autoseq {version('autosequence')}")
        raise typer.Exit


if __name__ == "__main__":
    main()

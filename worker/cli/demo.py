"""`autoseq demo`: one recipe from the queue to the images, with Redis, S3 and a worker on this machine."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.arguments import Out, Overrides, RecipeArgument, parsed_overrides, recipe_file, settings_for

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick

if TYPE_CHECKING:
    from storage.events import RunEvent
    from worker.client import Client
    from worker.local.stack import Stack

LIVENESS_S = 1.0
"""How often the worker is checked while no event arrives."""
SHORT_ID = 8
SETTLE_TIMEOUT_S = 5.0


def demo(
    recipe: RecipeArgument = "magical-forest",
    *,
    overrides: Overrides = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the services running until Ctrl-C.")] = False,
    out: Out = Path("out"),
) -> None:
    """Start Redis, S3 and a worker on this machine, run one recipe, and print links to the images.

    While `autoseq dev` runs in this folder, the demo uses its services.
    """
    from recipes.load import load
    from worker.cli.boundary import print_note
    from worker.cli.dev import serve
    from worker.local.servers import describe_programs
    from worker.local.stack import running_stack, stack
    from worker.serve.engine import Engine

    source, changes = recipe_file(recipe), parsed_overrides(overrides)
    running = running_stack()
    if running:
        print_note("Using the services of `autoseq dev` in this folder.")
        with running as client:
            run_demo(client, source, changes, out=out)
        return
    load(source, overrides=changes, spec=Engine(settings_for()).spec())
    print_note(f"Starting a worker, {describe_programs()}.")
    with stack() as up:
        try:
            run_demo(up.client, source, changes, out=out, check=up.workers.check)
        finally:
            _settle(up)
        if keep:
            serve(up)


def run_demo(
    client: "Client",
    source: Path,
    overrides: Mapping[str, Any],
    *,
    out: Path,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Submit a recipe, follow the run, download its objects to `out`, and print links to them.

    Raises RunFailed, RunCancelled, and what `check` raises when the worker has ended.
    """
    from worker.cli.run_folder import complete_folder, download, print_links
    from worker.cli.views.console import RunView, print_link, screen

    # High priority: an earlier demo that was killed may have left a run in the queue.
    run_id = client.submit(source, overrides=overrides, priority="high")
    journal = client.journal(run_id)
    try:
        with RunView(screen()) as view:
            for event in _events(client, run_id, check):
                view.show(event)
    except KeyboardInterrupt:
        client.cancel(run_id)
        raise
    client.result(run_id)  # raises RunFailed or RunCancelled
    folder = out / f"{client.state(run_id).name}-{run_id[:SHORT_ID]}"
    print_links(screen(), complete_folder(download(journal, folder), folder))
    print_link(screen(), "in S3", journal.address(""))


def _settle(up: "Stack") -> None:
    """Wait until the worker has acknowledged every message: with one in progress it stops slowly."""
    from storage import keys
    from worker.local.fleet import POLL_S

    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while up.client.redis.zcard(keys.BROKER_CLAIMS) and not up.workers.ended() and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _events(client: "Client", run_id: str, check: Callable[[], None]) -> "Iterator[RunEvent]":
    """The run's events to its end. Calls `check` while none arrives."""
    from storage.redis.follow import START

    last = START
    while True:
        try:
            for event in client.watch(run_id, after=last, timeout_s=LIVENESS_S):
                last = event.id
                yield event
        except TimeoutError:
            check()
        else:
            return

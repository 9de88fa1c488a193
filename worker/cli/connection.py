"""What several commands do with the servers: reach them, and follow a run."""

from contextlib import nullcontext
from typing import TYPE_CHECKING

import typer

from worker.cli.arguments import settings_for
from worker.cli.boundary import ExitCode, print_json, print_note

# ruff: noqa: PLC0415 - here as in main.py: only what a command needs is imported, when it runs

if TYPE_CHECKING:
    from worker.client import Client

NO_WORKER = "none has announced itself yet (autoseq worker starts one)"


def open_client() -> "Client":
    """A client of the servers in the settings. Raises ServiceUnavailableError when Redis does not answer."""
    from worker.client import Client
    from worker.connections import check_redis

    client = Client(settings_for())
    check_redis(client.redis)
    return client


def follow_run(client: "Client", run_id: str, *, after: str = "0-0", as_json: bool, stderr: bool = False) -> None:
    """Show a run until its end, and leave with what that means."""
    from worker.cli.console import RunView, screen

    ended = "succeeded"
    view = RunView(screen(stderr=stderr), hint="" if client.models() else f"; {NO_WORKER}")
    try:
        with nullcontext() if as_json else view:
            for event in client.watch(run_id, after=after):
                ended = event.type
                if as_json:
                    print_json(event.to_document())
                else:
                    view.show(event)
    except KeyboardInterrupt:
        print_note(f"the run goes on; autoseq watch {run_id} shows it again, autoseq cancel {run_id} stops it")
        raise
    meaning = {"failed": ExitCode.RUN_FAILED, "cancelled": ExitCode.CANCELLED}
    raise typer.Exit(meaning.get(ended, ExitCode.OK))

"""The use of the services that several commands share: connect, find a run, follow a run."""

from contextlib import nullcontext
from typing import TYPE_CHECKING

import typer

from worker.cli.arguments import settings_for
from worker.cli.boundary import ExitCode, print_json, print_note

# ruff: noqa: PLC0415 - imported when a command needs it, so that --help and completion are quick

if TYPE_CHECKING:
    from storage.redis.state import RunState
    from worker.client import Client

NO_WORKER = "No worker is running; start one with `autoseq worker`"
NO_SETTINGS = (
    "AUTOSEQ_REDIS_URL is not set and this folder has no .autoseq/env: run `autoseq dev` here, "
    "or change to the folder in which it runs"
)
STATE_PHRASES = {
    "queued": "is already queued",
    "running": "is already running",
    "succeeded": "has already succeeded",
    "failed": "has already failed",
    "cancelled": "is already cancelled",
}


def open_client() -> "Client":
    """A client of the services in the settings. Raises ServiceUnavailableError when Redis does not answer.

    Without settings, Redis at the default address may belong to another program: if it is empty, a note says so.
    """
    from worker.client import Client
    from worker.connections import ServiceUnavailableError, check_redis

    config = settings_for()
    client = Client(config)
    if "redis_url" in config.model_fields_set:
        check_redis(client.redis)
        return client
    try:
        check_redis(client.redis)
    except ServiceUnavailableError as error:
        raise ServiceUnavailableError(f"{error}. {NO_SETTINGS}") from error
    if not client.list(1) and not client.models():
        print_note(f"note: Redis at the default address, 127.0.0.1:6379, holds no runs and no workers. {NO_SETTINGS}")
    return client


def find_run(client: "Client", text: str | None) -> str:
    """The id of the run that an argument names; of the last run without an argument. Raises RunNotFoundError."""
    from storage.errors import RunNotFoundError

    if text is None:
        last = client.list(1)
        if not last:
            raise RunNotFoundError("there are no runs yet; `autoseq submit` queues one")
        return last[0].run_id
    run_id = client.find_run(text)
    if run_id != text:
        print_note(f"run {run_id}")
    return run_id


def find_stored_run(client: "Client", text: str) -> str:
    """The id of a run in the bucket. Without Redis, and for runs that expired in it, `text` must be the whole id.

    Raises RunNotFoundError for an ambiguous prefix.
    """
    from redis.exceptions import RedisError

    from worker.connections import ServiceUnavailableError

    try:
        return find_run(client, text)
    except (RedisError, ServiceUnavailableError):
        return text


def follow_run(client: "Client", run_id: str, *, after: str = "0-0", as_json: bool, stderr: bool = False) -> None:
    """Show a run until it ends, and exit with the code of its final state."""
    from worker.cli.views.console import RunView, screen

    ended = "succeeded"
    view = RunView(screen(stderr=stderr), hint=f". {missing}" if (missing := missing_worker(client, run_id)) else "")
    try:
        with nullcontext() if as_json else view:
            for event in client.watch(run_id, after=after):
                ended = event.type
                if as_json:
                    print_json(event.to_document())
                else:
                    view.show(event)
    except KeyboardInterrupt:
        print_note(
            f"Stopped watching; the run continues. "
            f"Use `autoseq watch {run_id}` to watch it again, `autoseq cancel {run_id}` to stop it."
        )
        raise
    codes = {"failed": ExitCode.RUN_FAILED, "cancelled": ExitCode.CANCELLED}
    raise typer.Exit(codes.get(ended, ExitCode.OK))


def note_waiting(client: "Client", run_id: str) -> None:
    """Print a note if a queued run has to wait because no worker serves it."""
    if missing := missing_worker(client, run_id):
        print_note(f"The run is queued. {missing}.")


def missing_worker(client: "Client", run_id: str) -> str:
    """Why no worker can take the run now; empty when one can."""
    served = client.live_workers.served_models()
    state = client.runs.state(client.runs.resolve_alias(run_id))
    if not served:
        return NO_WORKER
    if state is None or state.model in served:
        return ""
    return f"No running worker serves {state.model}; {', '.join(sorted(served))} can be used"


def state_phrase(state: "RunState") -> str:
    """The state of a run as the reason for doing nothing."""
    return STATE_PHRASES[state.state]

"""`autoseq demo` and `autoseq dev`: Redis, S3 and a worker on this machine, for one run or until Ctrl-C."""

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from recipes.load import load
from storage import keys
from storage.events import Cancelled, Failed, RunEvent
from storage.redis.follow import START
from worker.cli.album import Album, download, make_album, print_link, print_links
from worker.cli.console import RunView
from worker.client import Client
from worker.errors import RunCancelled, RunFailed
from worker.local.fleet import POLL_S, WorkerFleet, signals_to
from worker.local.services import LocalServices, write_private
from worker.serve.engine import Engine
from worker.settings import Settings, settings

DATA = Path(".autoseq")
ENV_FILE = DATA / "env"
LOG_FILE = DATA / "worker.log"
LIVENESS_S = 1.0
"""How often a watcher looks whether the worker is alive, while nothing happens."""
SHORT_ID = 8
SETTLE_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Everything that a run needs, up on this machine."""

    services: LocalServices
    workers: WorkerFleet
    client: Client


@contextmanager
def stack(gpus: Sequence[int] = ()) -> Iterator[Stack]:
    """Local services and a worker over `.autoseq/` in the current folder; stopped at the end, whatever ends it.

    Raises LocalServiceError when something does not start.
    """
    with signals_to(signal.default_int_handler), LocalServices.start(DATA) as services:
        env = services.env()
        given: dict[str, Any] = {name.removeprefix("AUTOSEQ_").lower(): value for name, value in env.items()}
        with (
            WorkerFleet({**os.environ, **env}, gpus=gpus, log=LOG_FILE) as workers,
            Client(Settings(**given)) as client,
        ):
            yield Stack(services=services, workers=workers, client=client)


def demo(source: Path, overrides: Mapping[str, Any], *, out: Path, keep: bool, console: Console) -> None:
    """One recipe from the queue to the pictures, shown as it goes; with `keep` everything stays up until Ctrl-C.

    Raises RecipeError or ModelFolderError before anything is started; LocalServiceError, RunFailed.
    """
    load(source, overrides=overrides, spec=Engine(settings()).spec())
    console.print(Text("starting Redis, S3 and a worker", style="dim"))
    with stack() as up:
        with RunView(console) as view:
            run_id, album = run_demo(up, source, view, out=out, overrides=overrides)
        print_links(console, album)
        print_link(console, "in S3", up.client.journal(run_id).address(""))
        if keep:
            serve(up, console)


def dev(gpus: Sequence[int], *, console: Console) -> None:
    """Everything that a run needs, until Ctrl-C. Raises ModelFolderError or LocalServiceError."""
    Engine(settings()).spec()
    console.print(Text("starting Redis, S3 and a worker", style="dim"))
    with stack(gpus) as up:
        serve(up, console)


def run_demo(
    up: Stack, source: Path, view: RunView, *, out: Path, overrides: Mapping[str, Any] | None = None
) -> tuple[str, Album]:
    """Run a recipe through queue, worker and bucket, show it, and bring what it made to `out`: its id, its album.

    Raises RunFailed, or LocalServiceError when the worker ends before the run does.
    """
    # First in line: an earlier demo that was killed may have left a run.
    run_id = up.client.submit(source, overrides=overrides, priority="high")
    try:
        for event in _events(up, run_id):
            view.show(event)
            if isinstance(event, Failed):
                raise RunFailed(event.error)
            if isinstance(event, Cancelled):
                raise RunCancelled(f"run {run_id} was cancelled")
    except KeyboardInterrupt:
        up.client.cancel(run_id)
        raise
    finally:
        _settle(up)
    folder = out / f"{up.client.state(run_id).name}-{run_id[:SHORT_ID]}"
    return run_id, make_album(download(up.client.journal(run_id), folder), folder)


def _settle(up: Stack) -> None:
    """Wait until the worker is done with every message, for it takes its time to stop while it has one."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while up.client.redis.zcard(keys.BROKER_CLAIMS) and not up.workers.ended() and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _events(up: Stack, run_id: str) -> Iterator[RunEvent]:
    """The run's events to its end, for as long as its worker lives."""
    last = START
    while True:
        try:
            for event in up.client.watch(run_id, after=last, timeout_s=LIVENESS_S):
                last = event.id
                yield event
        except TimeoutError:
            up.workers.check()
        else:
            return


def serve(up: Stack, console: Console) -> None:
    """Let the workers work until Ctrl-C, findable by other terminals in this folder.

    Raises LocalServiceError when a worker ends by itself.
    """
    write_private(ENV_FILE, "".join(f"{name}={value}\n" for name, value in up.services.env().items()))
    try:
        _print_ways(console)
        while True:
            time.sleep(LIVENESS_S)
            up.workers.check()
    except KeyboardInterrupt:
        console.print(Text("stopping; a run under way goes on at the next start", style="dim"))
    finally:
        ENV_FILE.unlink(missing_ok=True)


def _print_ways(console: Console) -> None:
    kwargs = """--kwargs '{"recipe": "magical-forest"}'"""
    ways = (
        ("from a shell", "autoseq submit magical-forest --watch"),
        ("through Celery", f"celery -A worker call worker.run {kwargs}"),
        ("from Python", "from worker import client; client.submit('magical-forest')"),
    )
    console.print(Text("Redis, S3 and a worker are up. In this folder, in another terminal:"))
    for name, command in ways:
        print_link(console, name, command)
    console.print(
        Text(f"The worker writes to {LOG_FILE}. Ctrl-C stops everything; the data stays in {DATA}/.", style="dim")
    )

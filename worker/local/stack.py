"""Redis, S3 and workers on this machine, for `autoseq demo`, `autoseq dev` and the benchmark."""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from worker.client import Client
from worker.local.fleet import WorkerFleet, signals_to
from worker.local.services import LocalServices
from worker.settings import Settings

DATA = Path(".autoseq")
ENV_FILE = DATA / "env"
"""The settings of a running stack; `autoseq dev` writes and removes this file."""
LOG_FILE = DATA / "worker.log"


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Running services and workers on this machine, and a client of them."""

    services: LocalServices
    workers: WorkerFleet
    client: Client


@contextmanager
def stack(gpus: Sequence[int] = ()) -> Iterator[Stack]:
    """Local services and workers, with their data in `.autoseq/` in the current folder; always stopped at the end.

    Raises LocalServiceError when something does not start.
    """
    with signals_to(signal.default_int_handler), LocalServices.start(DATA) as services:
        env = services.env()
        # Redis and S3 end with this process, and without them a worker can't drain.
        killed = signal.SIGKILL
        with (
            WorkerFleet({**os.environ, **env}, gpus=gpus, log=LOG_FILE, orphan_signal=killed) as workers,
            Client(settings_of(env)) as client,
        ):
            yield Stack(services=services, workers=workers, client=client)


def running_stack() -> Client | None:
    """A client of the stack that `autoseq dev` runs in the current folder; None if it is not running."""
    try:
        lines = ENV_FILE.read_text().splitlines()
    except FileNotFoundError:
        return None
    client = Client(settings_of(dict(line.split("=", 1) for line in lines)))
    try:
        client.redis.ping()
    except RedisError:  # a killed process left its file
        client.close()
        return None
    return client


def settings_of(env: Mapping[str, str]) -> Settings:
    """The settings in a stack's environment, which override all others."""
    given: dict[str, Any] = {name.removeprefix("AUTOSEQ_").lower(): value for name, value in env.items()}
    return Settings(**given)

"""Redis, S3 and workers on this machine as one: what `autoseq demo`, `autoseq dev` and the benchmark run on."""

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
"""The settings that reach a running stack; `serve` of `autoseq dev` writes it and removes it."""
LOG_FILE = DATA / "worker.log"


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
        killed = signal.SIGKILL  # when this process is, so are Redis and S3, without which a worker can't drain
        with (
            WorkerFleet({**os.environ, **env}, gpus=gpus, log=LOG_FILE, orphan_signal=killed) as workers,
            Client(settings_of(env)) as client,
        ):
            yield Stack(services=services, workers=workers, client=client)


def running_stack() -> Client | None:
    """A client of the stack that `autoseq dev` runs over the current folder; None when it does not run."""
    try:
        lines = ENV_FILE.read_text().splitlines()
    except FileNotFoundError:
        return None
    client = Client(settings_of(dict(line.split("=", 1) for line in lines)))
    try:
        client.redis.ping()
    except RedisError:  # left by a process that was killed
        client.close()
        return None
    return client


def settings_of(env: Mapping[str, str]) -> Settings:
    """The settings in a stack's environment, which win over all others."""
    given: dict[str, Any] = {name.removeprefix("AUTOSEQ_").lower(): value for name, value in env.items()}
    return Settings(**given)

"""Submit, watch, cancel and read runs, for web backends and scripts. Loads no torch.

The functions use the settings of the environment; a `Client` takes its own.
"""

import builtins
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from recipes.faults import RecipeError
from storage.errors import RunNotFoundError
from storage.events import RunEvent
from storage.redis.state import RunState
from storage.redis.workers import WorkerInfo
from storage.sweeps import Sweep
from worker.client.client import Client
from worker.connections import ServiceUnavailableError
from worker.errors import RunCancelled, RunFailed
from worker.jobs.inputs import InputError
from worker.settings import settings

__all__ = [
    "Client",
    "InputError",
    "RecipeError",
    "RunCancelled",
    "RunFailed",
    "RunNotFoundError",
    "ServiceUnavailableError",
    "branch",
    "cancel",
    "list",
    "result",
    "resume",
    "state",
    "submit",
    "sweep",
    "watch",
    "workers",
]


@lru_cache(maxsize=1)
def _default() -> Client:
    return Client(settings())


def submit(recipe: Path | str | Mapping[str, Any], **options: Any) -> str:
    """`Client.submit` with the settings of the environment."""
    return _default().submit(recipe, **options)


def sweep(recipe: Path | str | Mapping[str, Any], sweeps: Mapping[str, Sequence[Any]], **options: Any) -> Sweep:
    """`Client.sweep` with the settings of the environment."""
    return _default().sweep(recipe, sweeps, **options)


def branch(run: str, *, at: int, **options: Any) -> str:
    """`Client.branch` with the settings of the environment."""
    return _default().branch(run, at=at, **options)


def watch(run_id: str, **options: Any) -> Iterator[RunEvent]:
    """`Client.watch` with the settings of the environment."""
    return _default().watch(run_id, **options)


def result(run_id: str, **options: Any) -> dict[str, Any]:
    """`Client.result` with the settings of the environment."""
    return _default().result(run_id, **options)


def state(run_id: str) -> RunState:
    """`Client.state` with the settings of the environment."""
    return _default().state(run_id)


def list(limit: int = 20) -> builtins.list[RunState]:  # noqa: A001 - called as `client.list()`
    """`Client.list` with the settings of the environment."""
    return _default().list(limit)


def cancel(run_id: str) -> bool:
    """`Client.cancel` with the settings of the environment."""
    return _default().cancel(run_id)


def resume(run_id: str) -> bool:
    """`Client.resume` with the settings of the environment."""
    return _default().resume(run_id)


def workers() -> builtins.list[WorkerInfo]:
    """`Client.workers` with the settings of the environment."""
    return _default().workers()

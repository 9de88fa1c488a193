"""Submit, watch, cancel and read runs: for web backends and scripts. Loads no torch."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from storage.events import RunEvent
from storage.sweeps import Sweep
from worker.client.client import Client
from worker.settings import settings

__all__ = ["Client", "branch", "cancel", "result", "submit", "sweep", "watch"]


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


def cancel(run_id: str) -> bool:
    """`Client.cancel` with the settings of the environment."""
    return _default().cancel(run_id)

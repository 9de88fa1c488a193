"""Celery's remote control of a worker process, in its parent: a revoke is a cancel of the run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from celery import signals
from celery.utils.functional import maybe_list
from celery.worker import control
from celery.worker import state as worker_state

from storage.errors import InvalidNameError, RunNotFoundError
from storage.events import Cancelled, Queued
from storage.redis.progress import Progress
from storage.redis.runs import Runs
from worker.connections import connect_redis
from worker.settings import settings

if TYPE_CHECKING:
    from celery.app.task import Context

Reply: TypeAlias = dict[str, str]

_celery: Any = control  # the stubs lack its functions
UNSAFE = ("pool_grow", "pool_shrink", "autoscale", "time_limit")
"""Commands that break "one run at a time, in one child process", or end a run and acknowledge its message."""


def install() -> None:
    """Replace Celery's commands, and follow each revoke that Celery itself makes."""
    _celery.Panel.data |= {"revoke": revoke, "terminate": terminate, **dict.fromkeys(UNSAFE, refuse)}
    signals.task_revoked.connect(cancel_revoked, weak=False)


def refuse(_state: object, **_: object) -> Reply:
    """Do nothing."""
    return {"error": "not supported: a worker executes one run at a time, in one process, without time limits"}


def revoke(
    state: object, task_id: str | Iterable[str], *, terminate: bool = False, signal: str | None = None, **_: object
) -> Reply:
    """Cancel runs. Ids that are no run are left to Celery.

    Celery would discard the message of a revoked run for hours, also after `autoseq resume`, and would do nothing about
    a run in progress. `terminate` also kills the child process that executes one of these runs.
    """
    ids = set(maybe_list(task_id) or ())
    with connect_redis(settings()) as redis:
        runs = Runs(redis, ttl_s=settings().keep_progress_s)
        cancelled = {run_id for run_id in ids if _cancel(runs, run_id)}
    executed_here = cancelled & worker_state.requests.keys() if terminate else set()
    left_to_celery = (ids - cancelled) | executed_here
    if not left_to_celery:
        return {"ok": f"runs {cancelled} cancelled"}
    reply: Reply = _celery.revoke(state, left_to_celery, terminate=terminate, signal=signal)
    for run_id in executed_here:
        worker_state.revoked.discard(run_id)
    return reply


def terminate(state: object, signal: str, task_id: str | Iterable[str], **_: object) -> Reply:
    """Cancel runs, and kill the child process that executes one of them."""
    return revoke(state, task_id, terminate=True, signal=signal)


def cancel_revoked(request: Context, *, terminated: bool, expired: bool, **_: object) -> None:
    """Cancel the run of a message that Celery acknowledged unserved, or whose child process it killed."""
    config, run_id = settings(), str(request.id)
    worker_state.revoked.discard(run_id)  # else this worker discards the run's message after `autoseq resume`, too
    with connect_redis(config) as redis:
        if not expired:  # an expired message only isn't to start its run
            _cancel(Runs(redis, ttl_s=config.keep_progress_s), run_id)
        progress = Progress(redis, run_id, ttl_s=config.keep_progress_s)
        if terminated:
            progress.publish(Queued(reason="its process was terminated"), only_from="running")
        progress.publish(Cancelled(), only_from="queued")


def _cancel(runs: Runs, run_id: str) -> bool:
    """Request the cancel of a run. False if there is no such run."""
    try:
        runs.request_cancel(runs.resolve_alias(run_id))
    except (RunNotFoundError, InvalidNameError):
        return False
    return True

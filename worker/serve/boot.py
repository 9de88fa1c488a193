"""The start of a worker process: Celery's, without gossip and mingle, and with a check of its pool."""

from typing import Any

from celery import Celery
from celery.apps.worker import Worker
from celery.concurrency import get_implementation
from celery.concurrency.prefork import TaskPool


class QuietWorker(Worker):
    """A worker without gossip and mingle: workers coordinate through Redis, and start a second sooner."""

    def __init__(self, app: Celery | None = None, hostname: str | None = None, **options: Any) -> None:
        super().__init__(app, hostname, **{**options, "without_gossip": True, "without_mingle": True})


def check_pool(worker: Worker) -> None:
    """Raises SystemExit for pools that lose runs: solo when it is stopped, threads because they can't be stopped."""
    pool: Any = get_implementation(worker.pool_cls)  # type: ignore[attr-defined]  # the stubs lack it
    if not (isinstance(pool, type) and issubclass(pool, TaskPool)):
        raise SystemExit(f"autosequence: this worker can't start: its pool is {pool.__module__}; allowed: prefork")

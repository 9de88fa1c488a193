"""How a worker process starts: as Celery's own, without the parts that only fleets of many small workers need."""

from typing import Any

from celery import Celery
from celery.apps.worker import Worker


class QuietWorker(Worker):
    """Neither gossips nor mingles: workers learn of each other's runs from Redis, and start a second sooner."""

    def __init__(self, app: Celery | None = None, hostname: str | None = None, **options: Any) -> None:
        super().__init__(app, hostname, **{**options, "without_gossip": True, "without_mingle": True})

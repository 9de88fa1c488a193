"""The wiring: Celery, one process a GPU, and the ways to enqueue."""

from worker.app import app as celery

__all__ = ["celery"]

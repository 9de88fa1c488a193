"""The wiring: Celery, one process a GPU, and the ways to enqueue."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery import Celery

    celery: Celery
    """The app, where `celery -A worker` looks for it; made when it is first asked for, with the settings of then."""


def __getattr__(name: str) -> object:
    if name == "celery":
        from worker.app import app  # noqa: PLC0415 (importing this package should cost nothing)

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

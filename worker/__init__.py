"""The Celery workers, one process for each GPU, and the ways to submit runs to them."""

from typing import TYPE_CHECKING

from autosequence import check_origin

if TYPE_CHECKING:
    from celery import Celery

    celery: Celery
    """The app, where `celery -A worker` looks for it; created on first use, with the settings of that moment."""

check_origin()


def __getattr__(name: str) -> object:
    if name == "celery":
        from worker.app import app  # noqa: PLC0415 - importing this package alone stays cheap

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

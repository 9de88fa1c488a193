"""The start and the stop of a worker process: Celery's, without what loses runs."""

import sys
from typing import Any, NoReturn

from celery import Celery, signals
from celery.apps import worker as celery_worker
from celery.apps.worker import Worker
from celery.concurrency import get_implementation
from celery.concurrency.prefork import TaskPool
from celery.worker import WorkController

from worker.errors import BAD_CONFIGURATION
from worker.serve import control

_celery: Any = celery_worker  # the stubs lack much of it


class QuietWorker(Worker):
    """A worker without gossip and mingle: workers coordinate through Redis, and start a second sooner.

    Whatever stops it, it announces its shutdown, so that the drain flag is raised. A revoke is a cancel.
    """

    def __init__(self, app: Celery | None = None, hostname: str | None = None, **options: Any) -> None:
        control.install()
        super().__init__(app, hostname, **{**options, "without_gossip": True, "without_mingle": True})

    def install_platform_tweaks(self, worker: WorkController) -> None:
        super().install_platform_tweaks(worker)
        # On SIGHUP Celery waits for the run to end, and then starts itself again.
        _celery.install_worker_term_handler(worker, sig="SIGHUP")

    def stop(self, in_sighandler: bool = False, exitcode: int | None = None) -> None:  # noqa: FBT001, FBT002 - Celery's
        # Celery announces only a shutdown by a signal, and none by `celery control shutdown` or by an error.
        signals.worker_shutting_down.send(sender=self, sig=None, how="Warm", exitcode=exitcode)
        super().stop(in_sighandler, exitcode)


def refuse(reason: object, exit_code: int = BAD_CONFIGURATION) -> NoReturn:
    """End this worker before it takes a message."""
    sys.stderr.write(f"autosequence: this worker can't start: {reason}\n")
    raise SystemExit(exit_code)


def check_options(worker: Worker) -> None:
    """Refuse what breaks "one run at a time, in one child process", or loses runs.

    The solo pool loses its run when it is stopped, and threads can't be stopped. A time limit of Celery acknowledges
    the message of the run that it ends. A worker is not the place for beat: with several, each would start every task.
    """
    started: Any = worker  # the stubs lack its attributes
    pool: Any = get_implementation(started.pool_cls)
    if not (isinstance(pool, type) and issubclass(pool, TaskPool)):
        refuse(f"its pool is {pool.__module__}; allowed: prefork")
    given_and_allowed = {
        "--concurrency": (started.concurrency, 1),
        "--autoscale": (started.options.get("autoscale"), None),
        "--prefetch-multiplier": (started.prefetch_multiplier, 1),
        "--pool-start-method": (started.pool_start_method, "spawn"),
        "--time-limit": (started.time_limit, None),
        "--soft-time-limit": (started.soft_time_limit, None),
        "--beat": (started.options.get("beat") or None, None),
    }
    for option, (given, allowed) in given_and_allowed.items():
        if given != allowed:
            refuse(f"{option} is {given}; allowed: {'none' if allowed is None else allowed}")

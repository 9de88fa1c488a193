"""The task `worker.run`: what a message asks for is served, and what went wrong becomes Celery's word for it."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from celery import Task, signals
from celery.exceptions import Ignore, Reject
from redis.exceptions import RedisError

from core.model_folder import ModelFolderError
from storage.errors import InvalidNameError
from storage.events import Failed
from storage.redis.lease import LeaseLost
from storage.redis.progress import Progress
from storage.redis.reconcile import Reconciler
from worker.app import TASK, app, broker_list, publish_again, write_record
from worker.connections import ServiceUnavailableError
from worker.errors import RunCancelled, RunEnded, RunFailed, RunHandedBack
from worker.jobs.request import RequestError, RunRequest
from worker.serve.claim import DrainFlag
from worker.serve.delivery import Delivery, WorkerRuntime
from worker.serve.parent import Watch
from worker.settings import queue_of, settings

log = logging.getLogger(__name__)

LOGGED_CHARS = 160
"""Of a result in Celery's log: enough for the run and its state, too few for the signed links that follow."""

if TYPE_CHECKING:
    from celery.apps.worker import Worker

    RunTask: TypeAlias = Task[..., Any]


@lru_cache(maxsize=1)
def host() -> WorkerRuntime:
    """This process's Redis, bucket and model."""
    return WorkerRuntime(settings())


@app.task(name=TASK, bind=True, throws=(RunFailed, RunCancelled), resultrepr_maxsize=LOGGED_CHARS)
def run_task(self: RunTask, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Run a recipe to its end and return where everything is; RunRequest.parse says what it takes."""
    run_id = str(self.request.id)
    try:
        request = RunRequest.parse(run_id, args, kwargs)
    except RequestError as error:
        Progress(host().redis, run_id).publish(Failed(error=str(error)))
        raise RunFailed(str(error)) from error
    return _serve(self, request)


def _serve(task: RunTask, request: RunRequest) -> dict[str, Any]:
    here = host()
    run_id = request.run_id
    tag = (task.request.properties or {}).get("delivery_tag")

    def celery_state(step: int, steps: int) -> None:
        task.update_state(state="PROGRESS", meta={"step": step, "steps": steps})

    def record() -> None:
        write_record(here.runs, request, queue=queue_of(here.config.served_model), model=here.config.served_model)

    try:
        record()  # a message that was published without our app, or before Redis lost its data, has none yet
        owner = here.runs.claim_key(request.idempotency_key, run_id) if request.idempotency_key else run_id
        if owner != run_id:
            return {"run_id": owner, "state": "duplicate", "manifest": here.journal(owner).address("manifest.json")}
        return here.serve(request, Delivery(tag=tag, celery_state=celery_state, record=record))
    except (LeaseLost, RunHandedBack) as error:
        # Another worker answers for the run; a state written here would be taken for the run's own.
        raise Ignore(str(error)) from error
    except RedisError as error:
        # Nothing can be said of the run now; its message goes back, and whoever gets it goes on from the last commit.
        raise Reject(str(error), requeue=True) from error
    except RunEnded:
        raise
    except Exception as error:
        words = f"internal error: {type(error).__name__}: {error}"
        # Our lease is given back by now: one that is there is another worker's, and the run with it.
        progress = Progress(here.redis, run_id, ttl_s=here.config.keep_progress_s, owner="nobody")
        progress.publish(Failed(error=words))
        raise


class Parent:
    """What a worker's parent process does beside Celery: it sees that services are there, and looks for lost runs."""

    def __init__(self) -> None:
        self.drain = DrainFlag.create()
        here = host()
        reconciler = Reconciler(
            here.redis,
            publish_again,
            patience_s=here.config.lease_s,
            broker_list=broker_list,
        )
        self.watch = Watch(reconciler, interval_s=here.config.reconcile_interval_s)


@lru_cache(maxsize=1)
def parent() -> Parent:
    """This process's, when it is a worker's parent."""
    return Parent()


@signals.worker_init.connect(weak=False)
def check_services(sender: Worker, **_: object) -> None:
    """Refuse to start where no run could succeed, before a message is taken."""
    from worker.serve.boot import check_pool  # noqa: PLC0415 (what starts a worker is slow to import; a child starts none)

    check_pool(sender)
    try:
        host().open()
    except (ServiceUnavailableError, ModelFolderError, InvalidNameError) as error:
        raise SystemExit(f"autosequence: this worker can't start: {error}") from error
    parent()  # before the child is spawned, which learns of the drain flag from its environment


@signals.worker_ready.connect(weak=False)
def look_for_lost_runs(**_: object) -> None:
    """Now and then, while this worker lives."""
    parent().watch.start()


@signals.worker_shutting_down.connect(weak=False)
def drain(**_: object) -> None:
    """Celery tells its parent process alone; the child sees the flag."""
    parent().drain.raise_()


@signals.worker_shutdown.connect(weak=False)
def leave(**_: object) -> None:
    """The last look for lost runs is over before the process ends."""
    parent().watch.stop()
    parent().drain.remove()

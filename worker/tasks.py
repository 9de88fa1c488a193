"""The Celery task `worker.run`: serves a message, and turns the exception that ended it into Celery's task state."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias

from celery import Task, signals
from celery.exceptions import Ignore, Reject
from redis.exceptions import RedisError

from core.model_folder import ModelFolderError
from storage import keys
from storage.errors import CorruptRecordError, InvalidNameError, NewerRecordError, RunNotFoundError
from storage.events import Failed
from storage.redis.dead_letters import DeadLetters
from storage.redis.progress import Progress
from worker.app import TASK, app, publish_again, write_record
from worker.connections import ServiceUnavailableError
from worker.errors import UNAVAILABLE, ClaimLost, RunCancelled, RunFailed, RunHandedBack, RunNotServable, WorkerFaulty
from worker.jobs.request import RequestError, RunRequest
from worker.serve.damage import DamagedRuns
from worker.serve.delivery import Delivery, Message
from worker.serve.faults import FaultCount, WorkerUnhealthy, fault_of, loading_model, unhealthy
from worker.serve.parent import Parent
from worker.serve.runtime import WorkerRuntime
from worker.settings import queue_of, settings

log = logging.getLogger(__name__)

LOGGED_CHARS = 160
"""Length of a result in Celery's log: enough for the run and its state, without the presigned URLs that follow."""

REQUEST = "worker.serve.celery_request:RunTaskRequest"
"""By name, since only the parent process needs it."""

if TYPE_CHECKING:
    from celery.apps.worker import Worker
    from celery.worker.consumer import Consumer

    RunTask: TypeAlias = Task[..., Any]


@lru_cache(maxsize=1)
def runtime() -> WorkerRuntime:
    """This process's Redis, bucket and model."""
    return WorkerRuntime.connect(settings())


@lru_cache(maxsize=1)
def faults() -> FaultCount:
    """The faults of this worker, as this child process counts them."""
    return FaultCount(runtime().drain.folder)


@lru_cache(maxsize=1)
def damaged_runs() -> DamagedRuns:
    """The runs that Redis can't serve, as this process sees them."""
    return DamagedRuns(runtime())


@lru_cache(maxsize=1)
def parent() -> Parent:
    """The state of this process as a worker's parent."""
    return Parent(runtime(), publish_again)


@app.task(name=TASK, bind=True, throws=(RunFailed, RunCancelled), resultrepr_maxsize=LOGGED_CHARS, Request=REQUEST)
def run_task(self: RunTask, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Run a recipe to its end and return its result. RunRequest.parse defines the arguments."""
    try:
        result = _serve(self, _request(str(self.request.id), args, kwargs))
    except RunNotServable as error:
        _give_way(error, _requeue_time_s())
        raise Ignore(str(error)) from error
    except (WorkerFaulty, OSError) as error:
        fault = fault_of(error)
        if fault is None:
            raise
        if faults().add(fault):
            raise WorkerUnhealthy(str(fault)) from error  # the parent process ends this worker
        if fault.is_lasting:
            log.warning("%s; the run is given back, and the process that computes is replaced", fault)
            raise SystemExit(str(fault)) from error
        _give_way(fault, faults().pause_s(_requeue_time_s()))
        raise Ignore(str(fault)) from error
    except (ClaimLost, RunHandedBack) as error:
        # Another worker reports the run; a state written here would be taken for the run's.
        raise Ignore(str(error)) from error
    except (RedisError, CorruptRecordError, UnicodeDecodeError) as error:
        if damaged_runs().give_up(str(self.request.id), kwargs, error):
            raise Ignore(str(error)) from error
        # Nothing can be reported now. The message goes back to the queue; its next worker resumes the run.
        raise Reject(str(error), requeue=True) from error
    except MemoryError as error:
        # Celery would end the whole worker for this error. Only this process ends, as if the kernel had killed it.
        log.warning("run %s: out of memory; the process that computes is replaced", self.request.id)
        raise SystemExit("out of memory") from error
    faults().clear()
    return result


def _requeue_time_s() -> float:
    """How long the reconciler takes at most to queue a run again that was given back."""
    return 2 * runtime().config.reconcile_interval_s


def _give_way(reason: Exception, pause_s: float) -> None:
    """Stay busy until the reconciler has queued the run again, so that another worker gets it next."""
    log.warning("%s; the run is given back", reason)
    runtime().drain.wait(pause_s)


def _request(run_id: str, args: Sequence[object], kwargs: Mapping[str, object]) -> RunRequest:
    """The request of the run: that of its record, if it has one, since a message under its id may say anything else.

    Raises RunFailed, Ignore for a message with wrong arguments and an id without a record.
    """
    here = runtime()
    try:
        return RunRequest.of(here.runs.record(run_id))
    except (RunNotFoundError, CorruptRecordError, NewerRecordError, RequestError):
        pass  # only the message is left
    try:
        return RunRequest.parse(run_id, args, kwargs)
    except RequestError as error:
        message, queue = repr((args, kwargs)), queue_of(here.config.served_model)
        DeadLetters(here.redis).add(f"wrong arguments: {error}", task_id=run_id, message=message, queue=queue)
        failed = Failed(error=str(error))
        # Without a lease this ends no run that exists.
        if Progress(here.redis, run_id, ttl_s=here.config.keep_progress_s).publish(failed):
            raise RunFailed(str(error)) from error
        state = here.runs.state(run_id)
        if state and state.state == "failed":  # by this message, which comes again
            raise RunFailed(state.error or str(error)) from error
        log.warning("a message under the id of run %s has wrong arguments and is dropped: %s", run_id, error)
        raise Ignore(str(error)) from error


def _serve(task: RunTask, request: RunRequest) -> dict[str, Any]:
    here = runtime()
    model = here.config.served_model

    record = partial(write_record, here.runs, request, queue=queue_of(model), model=model)

    def update_state(step: int, steps: int) -> None:
        task.update_state(state="PROGRESS", meta={"step": step, "steps": steps})

    record()  # there is none if the message was published without our app, or if Redis lost its data
    owner = here.runs.resolve_alias(request.run_id)
    if owner != request.run_id:
        return {"run_id": owner, "state": "duplicate", "manifest": here.journal(owner).address(keys.MANIFEST)}
    tag = (task.request.properties or {}).get("delivery_tag")
    message = Message(tag=tag, update_state=update_state, write_record=partial(record, claimed=True))
    return Delivery(request, message, here).run_to_completion()


@signals.worker_init.connect(weak=False)
def check_services(sender: Worker, **_: object) -> None:
    """Refuse to start, before a message is taken, if no run could succeed here."""
    from worker.serve import boot  # noqa: PLC0415 (slow to import, and only a parent process needs it)

    boot.check_options(sender)
    try:
        runtime().start()
    except (ModelFolderError, InvalidNameError) as error:
        boot.refuse(error)
    except ServiceUnavailableError as error:
        boot.refuse(error, UNAVAILABLE)
    parent()


@signals.worker_process_init.connect(weak=False)
def warm_up(**_: object) -> None:
    """Load the model in the child process, and compute with it, before the parent takes a message."""
    here = runtime()

    def on_progress(_done_bytes: int, _total_bytes: int) -> None:
        if here.drain.is_raised:
            raise SystemExit

    try:
        with loading_model():
            here.engine.warm_up(on_progress)
    except WorkerFaulty as fault:
        log.error("%s", fault)  # noqa: TRY400 - Celery's log of what a child can't do has no traceback either
        if not faults().add(fault):  # else the parent process ends this worker
            here.drain.wait(faults().pause_s(_requeue_time_s()))
        raise SystemExit(1) from fault
    log.info("the model is loaded; this worker can take runs")


@signals.worker_ready.connect(weak=False)
def start_threads(sender: Consumer, **_: object) -> None:
    """Start the reconciler and the heartbeat when the worker is ready."""
    parent().start(sender.hostname, sender.pool)


@unhealthy.connect(weak=False)
def end(reason: str, **_: object) -> None:
    """End this worker after too many faults in a row."""
    parent().end_unhealthy(reason)


@signals.worker_shutting_down.connect(weak=False)
def drain(**_: object) -> None:
    """Raise the drain flag for the child: Celery notifies only the parent process."""
    parent().drain.raise_()


@signals.worker_shutdown.connect(weak=False)
def stop_threads(**_: object) -> None:
    """Stop the threads of the parent process before it ends."""
    parent().stop()

"""The Celery app: `celery -A worker …`, configured for tasks that take minutes to hours."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from celery import Celery, signals
from kombu import Connection

from recipes.faults import RecipeError
from recipes.load import Given, find, read
from storage import keys
from storage.errors import CorruptRecordError
from storage.redis.record import RunRecord
from storage.redis.runs import Runs
from storage.redis.workers import Workers
from worker.connections import connect_redis
from worker.jobs.request import RequestError, RunRequest
from worker.settings import Settings, queue_of, settings

TASK = "worker.run"
PRIORITIES = {"high": 0, "normal": 3, "low": 9}  # Redis serves the lowest number first
RECORDED = "autoseq_recorded"
"""Message header: the run's record is already written."""

BROKER = {
    # Restore the messages of dead workers soon: the default adds up to 100 s to the visibility timeout.
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    # A worker that is killed while it restores keeps this lock. The default, 300 s, would delay all others that long.
    "unacked_mutex_expire": 10,
    "queue_order_strategy": "priority",
    "global_keyprefix": keys.BROKER_PREFIX,
    # kombu's default socket_timeout is None: a dead connection would block forever.
    "socket_timeout": 30,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 25,
}


class App(Celery):
    """Celery that starts workers of class QuietWorker."""

    events_cls = "worker.serve.broker:Events"

    @cached_property
    def Worker(self) -> type:  # noqa: N802 (Celery's name)
        from worker.serve.boot import QuietWorker  # noqa: PLC0415 - a client starts no worker, and this import is slow

        worker: type = self.subclass_with_self(QuietWorker, name="Worker")
        return worker


def make_app(config: Settings, *, reads_results: bool = True) -> Celery:
    """The app for the servers of `config`.

    With `reads_results`, the app subscribes to the result of each task that it sends. A client that sends many tasks
    and reads no result saves this cost.
    """
    url = _celery_url(config.redis_url.get_secret_value())
    # Not the current app: a program that imports the client may have an app of its own.
    configured = App("autosequence", broker=url, backend=url if reads_results else "disabled", set_as_current=False)
    timeout_s = config.visibility_timeout_s
    configured.conf.update(
        imports=("worker.tasks",),
        task_default_queue=queue_of(config.served_model),
        task_routes=(route,),
        task_serializer="json",
        accept_content=["json"],
        # A message is acknowledged when its run has ended, so that the message of a dead worker is delivered again.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_track_started=True,
        result_extended=True,
        result_expires=config.keep_progress_s,
        # One run at a time, in one child that is spawned: CUDA can't be used after a fork.
        worker_pool="prefork",
        worker_consumer="worker.serve.broker:ReconnectingConsumer",
        worker_concurrency=1,
        worker_pool_start_method="spawn",
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_proc_alive_timeout=3_600,  # the child loads its model first
        # Celery's soft shutdown always waits for its full time; DrainFlag in worker.serve.drain stops after a step.
        worker_soft_shutdown_timeout=0,
        # True, the default from Celery 6 on, loses the run when Redis restarts.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        # The shortest visibility timeout of any consumer applies to all of them, and Celery reads it in three places.
        visibility_timeout=timeout_s,
        broker_transport_options={"visibility_timeout": timeout_s, **BROKER},
        result_backend_transport_options={"visibility_timeout": timeout_s, "global_keyprefix": keys.BROKER_PREFIX},
    )
    return configured


def _celery_url(url: str) -> str:
    """The URL of Redis for Celery, which requires ssl_cert_reqs for TLS."""
    if not url.startswith("rediss://") or "ssl_cert_reqs=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"


def route(
    name: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, options: Mapping[str, Any], **_: object
) -> dict[str, Any] | None:
    """The queue and priority of a run. An invalid request goes to the default queue, where a worker fails it."""
    if name != TASK or options.get("queue"):
        return None
    config = settings()
    try:
        request = RunRequest.parse("", args or (), kwargs or {})
        wanted = _wanted_model(request, config)
    except (RequestError, RecipeError):
        return {"queue": queue_of(config.served_model)}
    with connect_redis(config) as redis:
        known = Runs(redis).models()
        model = choose_model(wanted, config, known, Workers(redis).served_models)
    queue = queue_of(model if not known or model in known else config.served_model)
    return {"queue": queue, "priority": PRIORITIES[request.priority]}


def choose_model(
    wanted: str | None, config: Settings, known: Collection[str], served: Callable[[], Collection[str]]
) -> str:
    """The model of a run: the one it names, else the default of `config`; the only one if that is unknown.

    Args:
        wanted: the model that the recipe names.
        config: the settings of the client.
        known: every model that workers have announced. The default does not change while its workers restart.
        served: the models that live workers serve; called if they matter.
    """
    if wanted is None and known and config.served_model not in known:
        candidates = served() or known
        if len(candidates) == 1:
            return next(iter(candidates))
    return wanted or config.served_model


def model_named_in(given: Given) -> str | None:
    """The model that a recipe names, if it names one."""
    model = given.data.get("model")
    return model if isinstance(model, str) else None


def _wanted_model(request: RunRequest, config: Settings) -> str | None:
    recipe = request.recipe
    source = find(recipe, config.recipes) if isinstance(recipe, str) else recipe
    return model_named_in(read(source, overrides=request.overrides, variables=request.variables))


@signals.before_task_publish.connect(weak=False)
def record_run(sender: str, headers: Mapping[str, Any], body: Sequence[Any], routing_key: str, **_: object) -> None:
    """Write a run's record before its message is published, so that the run survives the loss of the message."""
    if sender != TASK or headers.get(RECORDED):
        return
    args, kwargs, *_rest = body
    try:
        request = RunRequest.parse(headers["id"], args or (), kwargs or {})
    except RequestError:
        return  # the worker fails the run with the same error
    with connect_redis(settings()) as redis:
        write_record(Runs(redis), request, queue=routing_key, model=routing_key.removeprefix(queue_of("")))


def write_record(runs: Runs, request: RunRequest, *, queue: str, model: str, claimed: bool = False) -> bool:
    """Write the run's record and claim its idempotency key. Returns False if the run exists.

    If another run owns the key, the id of this request becomes an alias of that run, and the record is written for it:
    who claimed the key may have died before it wrote one. A run that exists itself, or that a worker has `claimed`,
    stays a run of its own.
    """
    owner = run_id = request.run_id
    if request.idempotency_key and not claimed:
        owner = runs.claim_key(request.idempotency_key, run_id)
        if owner != run_id and runs.state(run_id):
            return False
    name = request.recipe if isinstance(request.recipe, str) else request.recipe.get("name", "")
    created = runs.create(
        RunRecord(
            run_id=owner,
            document=request.recipe,
            overrides=request.overrides,
            variables=request.variables,
            name=str(name),
            model=model,
            queue=queue,
            priority=request.priority,
            queue_slot=keys.queue_slot(queue, PRIORITIES[request.priority]),
            idempotency_key=request.idempotency_key,
            submitted_at=time.time(),
        )
    )
    if owner != run_id:
        runs.add_alias(run_id, owner)
    return created


def publish(through: Celery, request: RunRequest, queue: str, connection: Connection | None = None) -> None:
    """Publish the message of a run whose record is written already."""
    through.send_task(
        TASK,
        kwargs=request.kwargs(),
        task_id=request.run_id,
        queue=queue,
        priority=PRIORITIES[request.priority],
        headers={RECORDED: True},
        group_id=request.group,
        connection=connection,
    )


def publish_again(record: RunRecord) -> None:
    """Publish the message of a run that lost its message or its worker. Raises CorruptRecordError."""
    try:
        request = RunRequest.of(record)
    except RequestError as error:
        raise CorruptRecordError(str(error)) from error
    publish(app, request, record.queue)


app = make_app(settings())

"""The heartbeat of a worker: its parent process announces what it serves and does, to Redis and in the health file."""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version

from redis.exceptions import RedisError

from storage.errors import StorageError
from storage.redis.runs import Runs
from storage.redis.workers import ANNOUNCE_INTERVAL_S, WorkerInfo, Workers, WorkerState
from worker.connections import connect_redis
from worker.serve.health import Health
from worker.serve.runtime import WorkerRuntime
from worker.settings import Settings

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 0.5
"""Time between two looks at the worker's state."""
RETRY_INTERVAL_S = 1.0
"""Time between two announcements while Redis can't be used."""
STOP_TIMEOUT_S = 5.0
STORE_INTERVAL_S = 30.0
"""Time between two checks of S3, for the health file."""


class Heartbeat:
    """A thread that announces the worker every ANNOUNCE_INTERVAL_S and at each change of its state.

    Args:
        runtime: the services and the model.
        name: of the worker.
        ready: whether the child process has loaded the model.
        draining: whether the worker shuts down.
        current_run: the id of the run that it serves, if any.
    """

    def __init__(
        self,
        runtime: WorkerRuntime,
        name: str,
        *,
        ready: Callable[[], bool],
        draining: Callable[[], bool],
        current_run: Callable[[], str | None],
    ) -> None:
        self._runtime = runtime
        self._ready = ready
        self._draining = draining
        self._current_run = current_run
        self._redis = connect_redis(runtime.config)  # gives up soon, so that the health file is written in an outage
        self._workers = Workers(self._redis)
        self._runs = Runs(self._redis)
        self._spec = runtime.engine.identified_spec()
        self._info = WorkerInfo(
            name=name,
            model=self._spec.name,
            model_sha256=self._spec.sha256,
            device=device_of(runtime.config),
            pid=os.getpid(),
            version=version("autosequence"),
        )
        self._unhealthy = ""
        self._redis_error = self._store_error = ""
        self._store_checked = -STORE_INTERVAL_S
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop, and remove the worker from the list unless it is unhealthy."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)
        if not self._thread.is_alive() and not self._redis_error:  # else Redis may be silent, and a call would wait
            self._announce_end()
        if self._runtime.config.health_file:
            self._runtime.config.health_file.unlink(missing_ok=True)
        self._redis.close()

    def _announce_end(self) -> None:
        try:
            if self._unhealthy:
                self._workers.announce(self._observe())
            else:
                self._workers.leave(self._info.name)
        except RedisError as error:
            log.warning("this worker can't be removed from the list of live workers: %s", error)

    def end_unhealthy(self, reason: str) -> None:
        """From now on the worker is unhealthy."""
        self._unhealthy = reason

    def _run(self) -> None:
        announced_at = -ANNOUNCE_INTERVAL_S
        while not self._stop.is_set():
            now, before, self._info = time.monotonic(), self._info, self._observe()
            interval_s = RETRY_INTERVAL_S if self._redis_error else ANNOUNCE_INTERVAL_S
            if self._info != before or now - announced_at >= interval_s:
                announced_at = now
                self._announce()
            self._stop.wait(LOOK_INTERVAL_S)

    def _observe(self) -> WorkerInfo:
        """What the worker does now."""
        run_id = self._current_run()
        state: WorkerState
        if self._unhealthy:
            state = "unhealthy"
        elif self._draining():
            state = "draining"
        elif run_id:
            state = "busy"
        else:
            state = "idle" if self._ready() else "starting"
        before = self._info
        if (state, run_id) == (before.state, before.run_id) and before.since:
            return before
        return replace(before, state=state, reason=self._unhealthy, run_id=run_id, since=round(time.time(), 3))

    def _announce(self) -> None:
        self._write_health()  # before any call that may wait for a service
        try:
            self._workers.announce(self._info)
            self._runs.announce(self._spec.name, self._spec.to_json(), self._spec.to_json_0_1())
            self._redis_error = ""
        except RedisError as error:
            if not self._redis_error:
                log.warning("this worker can't announce itself now: %s", error)
            self._redis_error = f"Redis can't be used: {error}"
        self._check_store()
        self._write_health()

    def _check_store(self) -> None:
        now = time.monotonic()
        if self._runtime.config.health_file is None or now - self._store_checked < STORE_INTERVAL_S:
            return
        self._store_checked = now
        try:
            self._runtime.objects.ensure_bucket()
            self._store_error = ""
        except StorageError as error:
            self._store_error = f"S3 can't be used: {error}"

    def _write_health(self) -> None:
        path = self._runtime.config.health_file
        if path is None:
            return
        health = Health(
            state=self._info.state,
            reason=self._info.reason,
            unavailable="; ".join(filter(None, (self._redis_error, self._store_error))),
            at=round(time.time(), 3),
            monotonic_s=time.monotonic(),
            pid=self._info.pid,
        )
        try:
            health.write(path)
        except OSError as error:
            log.warning("the health file can't be written: %s", error)


def device_of(config: Settings) -> str:
    """The configured device, as people read it; `auto` when torch chooses: a GPU if there is one, else the CPU."""
    chosen = config.device or ",".join(f"cuda:{number}" for number in config.gpus)
    pinned = os.environ.get("CUDA_VISIBLE_DEVICES")
    return " ".join(filter(None, (chosen, f"GPU {pinned}" if pinned else ""))) or "auto"

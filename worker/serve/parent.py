"""The parent process of a worker: it asks the child to drain, announces the worker, and searches for lost runs."""

import logging
import math
import threading
from collections.abc import Callable
from typing import Any

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from storage.redis.reconcile import Reconciler
from storage.redis.record import RunRecord
from worker.errors import EXIT_UNHEALTHY
from worker.serve import child
from worker.serve.drain import DrainFlag
from worker.serve.faults import MAX_IN_A_ROW, FaultCount
from worker.serve.heartbeat import STOP_TIMEOUT_S, Heartbeat
from worker.serve.runtime import WorkerRuntime

log = logging.getLogger(__name__)

MAX_CHILD_STARTS = 4
"""A child process that ends so often without accepting a run can't start."""


class Parent:
    """The parent's own state. Create it before the child is spawned, which finds the drain flag in its environment."""

    def __init__(self, runtime: WorkerRuntime, publish: Callable[[RunRecord], None]) -> None:
        self.drain = DrainFlag.create()
        self._runtime = runtime
        self._faults = FaultCount(self.drain.folder)
        reconciler = Reconciler(runtime.redis, publish, grace_s=runtime.config.lease_s)
        self.reconciler = ReconcilerThread(reconciler, interval_s=runtime.config.reconcile_interval_s)
        self._heartbeat: Heartbeat | None = None
        self._child_starts: Any = None

    def start(self, name: str, pool: Any) -> None:  # noqa: ANN401 - Celery's TaskPool; its stubs lack the pool in it
        """Start the threads of the worker `name`. `pool` has the child process."""
        self._child_starts = pool._pool.restart_state  # billiard's count, which begins anew when a run is accepted
        self._child_starts.maxT = math.inf  # each start may load a model for minutes
        self._heartbeat = Heartbeat(
            self._runtime,
            name,
            ready=lambda: child.is_ready(pool),
            draining=lambda: self.drain.is_raised,
            current_run=self._current_run,
        )
        self._heartbeat.start()
        self.reconciler.start()

    def end_unhealthy(self, reason: str) -> None:
        """End this worker with EXIT_UNHEALTHY. Its run was given back."""
        from celery.worker import state  # noqa: PLC0415 - slow to import, and only a parent process needs it

        if state.should_stop is not None:
            return
        log.error("this worker is unhealthy and ends: %s", reason)
        state.should_stop = EXIT_UNHEALTHY  # type: ignore[assignment]  # the stubs know only None
        if self._heartbeat:
            self._heartbeat.end_unhealthy(reason)
        self.drain.raise_()  # a run that was received meanwhile is handed back before its first step

    def stop(self) -> None:
        """Stop the threads and remove the drain flag."""
        self.reconciler.stop()
        if self._heartbeat:
            self._heartbeat.stop()
        self.drain.remove()

    def _current_run(self) -> str | None:
        from celery.worker import state  # noqa: PLC0415 - slow to import, and only a parent process needs it

        faults, starts = self._faults.reasons(), self._child_starts.R
        if len(faults) >= MAX_IN_A_ROW:
            self.end_unhealthy(faults[-1])
        elif starts >= MAX_CHILD_STARTS:
            self.end_unhealthy(f"its child process can't start: it was started {starts} times in a row")
        return next(iter(list(state.requests)), None)  # a dict, whose copy is safe in this thread


class ReconcilerThread:
    """A thread that lets a reconciler search for lost runs every `interval_s` seconds."""

    def __init__(self, reconciler: Reconciler, *, interval_s: float) -> None:
        self._reconciler = reconciler
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)  # while Redis is away, a search takes as long as the outage

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                if self._reconciler.elect(3 * self._interval_s):
                    self._reconciler.requeue_lost()
            except (RedisError, KombuError) as error:
                log.warning("can't search for lost runs now: %s", error)

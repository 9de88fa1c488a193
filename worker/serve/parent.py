"""The parent process of a worker: it asks the child to drain, and searches for lost runs."""

import logging
import threading
from collections.abc import Callable

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from storage.redis.reconcile import Reconciler
from storage.redis.record import RunRecord
from worker.serve.drain import DrainFlag
from worker.serve.runtime import WorkerRuntime

log = logging.getLogger(__name__)


class Parent:
    """The parent's own state. Create it before the child is spawned, which finds the drain flag in its environment."""

    def __init__(self, runtime: WorkerRuntime, publish: Callable[[RunRecord], None]) -> None:
        self.drain = DrainFlag.create()
        reconciler = Reconciler(runtime.redis, publish, grace_s=runtime.config.lease_s)
        self.reconciler = ReconcilerThread(reconciler, interval_s=runtime.config.reconcile_interval_s)

    def stop(self) -> None:
        """Stop the reconciler and remove the drain flag."""
        self.reconciler.stop()
        self.drain.remove()


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
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                if self._reconciler.elect(3 * self._interval_s):
                    self._reconciler.requeue_lost()
            except (RedisError, KombuError) as error:
                log.warning("can't search for lost runs now: %s", error)

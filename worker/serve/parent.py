"""What a worker's parent process does beside Celery: it looks for lost runs."""

import logging
import threading

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from storage.redis.reconcile import Reconciler

log = logging.getLogger(__name__)


class Watch:
    """A thread that lets a reconciler look, now and then, while this process lives."""

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
                if self._reconciler.lead(3 * self._interval_s):
                    self._reconciler.look()
            except (RedisError, KombuError) as error:
                log.warning("can't look for lost runs now: %s", error)

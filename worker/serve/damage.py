"""A run that Redis can't serve: tried again after growing pauses, and given up if its keys stay damaged."""

import json
import logging
from collections.abc import Callable

from redis.exceptions import RedisError

from storage import keys
from storage.errors import CorruptRecordError
from storage.events import Failed
from storage.redis.dead_letters import DeadLetters
from storage.redis.outage import is_damage
from storage.redis.progress import Progress
from worker.jobs.request import RunRequest
from worker.serve.runtime import WorkerRuntime

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0


class DamagedRuns:
    """Counts the errors with which Redis ended the runs of this process."""

    def __init__(self, runtime: WorkerRuntime) -> None:
        self._runtime = runtime
        self._errors: dict[str, int] = {}  # run id -> how many there were

    def give_up(self, request: RunRequest, error: Exception) -> bool:
        """Wait before the run's message goes back to its queue. True if the run was given up instead.

        A run is given up after `max_attempts` errors if a key is damaged: its message is set aside, the run fails, and
        it leaves the indexes, so that the reconciler does not queue it again.
        """
        run_id = request.run_id
        count = self._errors[run_id] = self._errors.get(run_id, 0) + 1
        damaged = isinstance(error, CorruptRecordError) or is_damage(error)
        limit = self._runtime.config.max_attempts
        if damaged and count >= limit:
            reason = f"giving up after {count} attempts: the run's keys in Redis are damaged: {error}"
            if count == limit:  # once, even if the run had two messages
                DeadLetters(self._runtime.redis).add(reason, message=json.dumps(request.kwargs()), task_id=run_id)
            self._end(request, reason)
            return True
        if count == 1:
            log.warning("run %s: Redis can't serve it; it is tried again: %s", run_id, error)
        self._runtime.drain.wait(min(FIRST_PAUSE_S * 2 ** (count - 1), LONGEST_PAUSE_S))
        return False

    def _end(self, request: RunRequest, reason: str) -> None:
        run_id, redis, ttl_s = request.run_id, self._runtime.redis, self._runtime.config.keep_progress_s
        self._try(lambda: Progress(redis, run_id, ttl_s=ttl_s).publish(Failed(error=reason)))
        self._try(lambda: redis.zrem(keys.LEASES, run_id))
        self._try(lambda: redis.zrem(keys.OPEN_RUNS, run_id))
        self._try(lambda: [redis.zrem(keys.waiting(str(slot)), run_id) for slot in redis.smembers(keys.QUEUE_SLOTS)])
        for key in (keys.run_state, keys.run_events, keys.run_cancel, keys.run_record, keys.run_lease):
            redis.expire(key(run_id), ttl_s)
        if request.idempotency_key:
            redis.expire(keys.idempotency(request.idempotency_key), ttl_s)

    @staticmethod
    def _try(write: Callable[[], object]) -> None:
        """Write what can be written."""
        try:
            write()
        except RedisError as error:
            log.warning("not written: %s", error)

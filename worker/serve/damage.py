"""A run that Redis can't serve: tried again after growing pauses, and given up if its keys stay damaged."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

from redis.exceptions import RedisError

from storage import keys
from storage.errors import CorruptRecordError
from storage.events import Failed, Queued
from storage.redis.dead_letters import DeadLetters
from storage.redis.outage import is_damage
from storage.redis.progress import Progress
from worker.serve.runtime import WorkerRuntime

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0


class DamagedRuns:
    """Counts the errors with which Redis ended the runs of this process."""

    def __init__(self, runtime: WorkerRuntime) -> None:
        self._runtime = runtime
        self._errors = Counter[tuple[str, bool]]()  # of a run, by whether a key is damaged
        self._given_up: set[str] = set()

    def give_up(self, run_id: str, arguments: Mapping[str, object], error: Exception) -> bool:
        """Wait before the run's message goes back to its queue. True if the run was given up instead.

        A run is given up after `max_attempts` errors if a key is damaged and no worker has it: its message is set
        aside, the run fails, and it leaves the indexes, so that the reconciler does not queue it again.

        Args:
            run_id: the run.
            arguments: of its message.
            error: which ended this attempt.
        """
        damaged = isinstance(error, CorruptRecordError) or is_damage(error)
        self._errors[run_id, damaged] += 1
        count = self._errors[run_id, damaged]
        if damaged and count >= self._runtime.config.max_attempts and not self._is_claimed(run_id):
            reason = f"giving up after {count} attempts: the run's keys in Redis are damaged: {error}"
            if run_id not in self._given_up:  # once, even if the run had two messages
                self._given_up.add(run_id)
                DeadLetters(self._runtime.redis).add(reason, message=json.dumps(arguments), task_id=run_id)
            self._end(run_id, reason)
            return True
        if count == 1:
            log.warning("run %s: its keys in Redis can't be used; trying again: %s", run_id, error)
        self._runtime.drain.wait(min(FIRST_PAUSE_S * 2.0 ** min(count - 1, 10), LONGEST_PAUSE_S))
        return False

    def _is_claimed(self, run_id: str) -> bool:
        """Whether another worker has the run, as far as its lease can be read."""
        try:
            return self._runtime.redis.get(keys.run_lease(run_id)) is not None
        except (RedisError, UnicodeDecodeError) as error:
            return not is_damage(error)

    def _end(self, run_id: str, reason: str) -> None:
        redis, ttl_s = self._runtime.redis, self._runtime.config.keep_progress_s
        progress = Progress(redis, run_id, ttl_s=ttl_s)
        self._try(lambda: progress.publish(Queued(reason=reason)))  # without a claim, only a queued run can be ended
        self._try(lambda: progress.publish(Failed(error=reason), only_from="queued"))
        self._try(lambda: redis.zrem(keys.LEASES, run_id))
        self._try(lambda: redis.zrem(keys.OPEN_RUNS, run_id))
        self._try(lambda: [redis.zrem(keys.waiting(str(slot)), run_id) for slot in redis.smembers(keys.QUEUE_SLOTS)])
        self._try(lambda: [redis.expire(name, ttl_s) for name in redis.smembers(keys.run_names(run_id))])
        for key in (keys.run_state, keys.run_events, keys.run_cancel, keys.run_record, keys.run_names, keys.run_lease):
            self._try(partial(redis.expire, key(run_id), ttl_s))

    @staticmethod
    def _try(write: Callable[[], object]) -> None:
        """Write what can be written."""
        try:
            write()
        except RedisError as error:
            log.warning("not written: %s", error)

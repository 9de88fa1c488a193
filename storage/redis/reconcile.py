"""Finds runs that lost their worker or their message, and queues them again. One worker at a time does this."""

import logging
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar, cast

from redis import Redis
from redis.exceptions import ResponseError

from storage import keys
from storage.errors import CorruptRecordError, NewerRecordError, RunNotFoundError
from storage.events import Queued
from storage.redis.outage import is_damage
from storage.redis.progress import Progress
from storage.redis.record import RunRecord
from storage.redis.runs import Runs
from storage.redis.scripts import Arguments, load_script

log = logging.getLogger(__name__)

BATCH: Final = 100
"""The maximum number of lapsed runs, and of runs of one queue slot, that one `requeue_lost` handles."""
DAMAGED_S: Final = 60.0
"""How long a run or an index that can't be read is left alone before it is tried, and logged, again."""

T = TypeVar("T")


class Reconciler:
    """Queues a run again if it was started but has no lease, or if it waits but has no message.

    It needs no scan: leases are indexed by when they lapse, waiting runs by when they joined their queue slot. A
    message counts as lost if the broker's list of the slot is empty, or if a run that joined it later was started.

    Args:
        redis: a client with decode_responses.
        publish: publishes the message of a run.
        grace_s: how long a message must seem lost before the run is queued again. A message that a worker has just
            received also seems lost. A run that is queued twice is still executed once.
        clock: seconds.
    """

    def __init__(
        self,
        redis: Redis,
        publish: Callable[[RunRecord], None],
        *,
        grace_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._runs = Runs(redis)
        self._publish = publish
        self._grace_s = grace_s
        self._clock = clock
        self._token = secrets.token_hex(8)
        self._seen: dict[str, float] = {}  # run id -> since when its message seems lost
        self._damaged: dict[str, float] = {}  # what can't be read -> when that was logged
        self._elect_script = load_script(redis, "elect_reconciler")
        self._find_lapsed = load_script(redis, "find_lapsed")
        self._find_overtaken = load_script(redis, "find_overtaken")
        self._requeue = load_script(redis, "requeue_run")

    def elect(self, ttl_s: float) -> bool:
        """Become or remain the elected reconciler for `ttl_s` seconds. False when another one is elected."""
        args: Arguments = {"token": self._token, "ttl_ms": int(ttl_s * 1000)}
        try:
            return bool(self._elect_script(keys={"reconciler": keys.RECONCILER}, args=args))
        except (ResponseError, UnicodeDecodeError) as error:
            if not is_damage(error):
                raise
            log.warning("the election of the reconciler is repeated: %s", error)
            self._redis.delete(keys.RECONCILER)
            return False

    def requeue_lost(self) -> list[str]:
        """Queue the lost runs again, and return their ids. A damaged run or index does not stop the others."""
        now = self._clock()
        self._damaged = {what: at for what, at in self._damaged.items() if now - at < DAMAGED_S}
        lost = dict.fromkeys([*self._lapsed(), *self._long_overtaken()])
        return [
            run_id
            for run_id in lost
            if self._tolerate(f"run {run_id}", partial(self._queue_again, run_id), otherwise=False)
        ]

    def _tolerate(self, what: str, call: Callable[[], T], *, otherwise: T) -> T:
        """`call()`, or `otherwise` for `what` is damaged, which is then left alone for a while."""
        if what in self._damaged:
            return otherwise
        try:
            return call()
        except (CorruptRecordError, NewerRecordError) as error:  # it stays in the index for a release that can read it
            log.warning("%s can't be queued again by this worker: %s", what, error)
        except (ResponseError, ValueError) as error:  # ValueError: no text, no run id, or no queue slot
            if isinstance(error, ResponseError) and not is_damage(error):
                raise
            log.warning("%s can't be used, its content in Redis is damaged: %s", what, error)
        self._damaged[what] = self._clock()
        return otherwise

    def _lapsed(self) -> list[str]:
        args = {"limit": BATCH + len(self._damaged)}  # those that are left alone hide no others
        return self._tolerate(
            keys.LEASES,
            lambda: cast("list[str]", self._find_lapsed(keys={"leases": keys.LEASES}, args=args)),
            otherwise=[],
        )

    def _long_overtaken(self) -> list[str]:
        """The runs whose message has seemed lost for `grace_s`."""
        now = self._clock()
        nothing: list[str] = []
        found = [
            self._tolerate(f"queue slot {slot}", partial(self._overtaken, slot), otherwise=nothing)
            for slot in self._queue_slots()
        ]
        overtaken = {run_id for run_ids in found for run_id in run_ids}
        self._seen = {run_id: self._seen.get(run_id, now) for run_id in overtaken}
        return [run_id for run_id, since in self._seen.items() if now - since >= self._grace_s]

    def _overtaken(self, queue_slot: str) -> list[str]:
        slot_keys = {
            "waiting": keys.waiting(queue_slot),
            "started": keys.STARTED,
            "broker_list": keys.broker_list(queue_slot),
        }
        args: Arguments = {"queue_slot": queue_slot, "limit": BATCH + len(self._damaged)}
        found = self._find_overtaken(keys=slot_keys, args=args)
        return cast("list[str]", found)

    def _queue_slots(self) -> set[str]:
        read = partial(self._redis.smembers, keys.QUEUE_SLOTS)
        nothing: set[bytes | str] = set()
        return cast("set[str]", self._tolerate(keys.QUEUE_SLOTS, read, otherwise=nothing))

    def _queue_again(self, run_id: str) -> bool:
        self._seen.pop(run_id, None)
        try:
            record = self._runs.record(run_id)
            state = self._requeue(keys=_requeue_keys(record), args={"run_id": run_id})
            if not state:
                return False
            if state == "queued":
                log.info("run %s waits without a worker or a message; queued again", run_id)
            else:
                log.warning("run %s lost its worker; queued again", run_id)
                Progress(self._redis, run_id).publish(Queued(name=record.name, model=record.model))
            self._publish(record)
        except RunNotFoundError:
            self._remove(run_id)
            return False
        return True

    def _remove(self, run_id: str) -> None:
        """Remove a run without a record from the indexes."""
        self._redis.zrem(keys.LEASES, run_id)
        for queue_slot in self._queue_slots():
            self._redis.zrem(keys.waiting(queue_slot), run_id)


def _requeue_keys(record: RunRecord) -> dict[str, str]:
    return {
        "lease": keys.run_lease(record.run_id),
        "leases": keys.LEASES,
        "state": keys.run_state(record.run_id),
        "waiting": keys.waiting(record.queue_slot),
    }

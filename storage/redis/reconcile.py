"""Finds runs that lost their worker or their message, and queues them again; every worker looks, one at a time."""

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Final, cast

from redis import Redis

from storage import keys
from storage.errors import CorruptRecordError, RunNotFoundError
from storage.events import Queued
from storage.redis.progress import Progress
from storage.redis.runs import Runs
from storage.redis.state import RunRecord

log = logging.getLogger(__name__)

BATCH: Final = 100
"""How many runs of one kind are looked at in one go."""

# KEYS: the election. ARGV: token, time to live in ms.
_ELECT = """
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

# KEYS: all leases. ARGV: how many at most. Returns the run ids whose lease lapsed.
_LAPSED = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
"""

# KEYS: waiting in the line, when each line was last started from, the broker's list. ARGV: line, how many at most.
# Returns the run ids that later ones overtook; when the broker's list is empty, all that believe to wait in it.
_OVERTAKEN = """
if redis.call('LLEN', KEYS[3]) == 0 then return redis.call('ZRANGE', KEYS[1], 0, ARGV[2] - 1) end
local latest = redis.call('HGET', KEYS[2], ARGV[1])
if not latest then return {} end
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. latest, 'LIMIT', 0, ARGV[2])
"""

# KEYS: lease, all leases, state, waiting in the line. ARGV: run id.
# Returns the run's state when it is to be queued again, by whoever was told so; nothing when it is held, or ended.
_REJOIN = """
if redis.call('EXISTS', KEYS[1]) == 1 then return false end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
local state = redis.call('HGET', KEYS[3], 'state')
if state ~= 'queued' and state ~= 'running' then return false end
local now = redis.call('TIME')
redis.call('ZADD', KEYS[4], now[1] * 1000 + math.floor(now[2] / 1000), ARGV[1])
return state
"""


class Reconciler:
    """Queues again what is without a lease though it was started, or without a message though it waits.

    It needs no scan: leases are indexed by when they lapse, waiting runs by when they joined their line. A run whose
    message is lost shows itself when the line is empty, or when a run that joined later is started.

    Args:
        redis: a client with decode_responses.
        publish: puts a run's message into its queue.
        patience_s: how long a run may seem lost before it counts as lost; a message under way to a worker that is
            still starting seems lost, too. Queued twice by mistake, a run is still run once.
        broker_list: the broker's list behind a line.
        clock: seconds.
    """

    def __init__(
        self,
        redis: Redis,
        publish: Callable[[RunRecord], None],
        *,
        patience_s: float,
        broker_list: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._runs = Runs(redis)
        self._publish = publish
        self._patience_s = patience_s
        self._broker_list = broker_list
        self._clock = clock
        self._token = secrets.token_hex(8)
        self._seen: dict[str, float] = {}  # run id -> since when it seems lost
        self._elect = redis.register_script(_ELECT)
        self._lapsed = redis.register_script(_LAPSED)
        self._overtaken = redis.register_script(_OVERTAKEN)
        self._rejoin = redis.register_script(_REJOIN)

    def lead(self, ttl_s: float) -> bool:
        """Whether this is the one reconciler for the next `ttl_s` seconds."""
        return bool(self._elect(keys=[keys.RECONCILER], args=[self._token, int(ttl_s * 1000)]))

    def look(self) -> list[str]:
        """Queue again what is lost by now; returns those run ids."""
        lapsed = cast("list[str]", self._lapsed(keys=[keys.LEASES], args=[BATCH]))
        lost = self._lost_for_long()
        return [run_id for run_id in dict.fromkeys([*lapsed, *lost]) if self._queue_again(run_id)]

    def _lost_for_long(self) -> Iterable[str]:
        now = self._clock()
        seeming = {
            run_id for line in cast("set[str]", self._redis.smembers(keys.QUEUE_SLOTS)) for run_id in self._gone(line)
        }
        self._seen = {run_id: self._seen.get(run_id, now) for run_id in seeming}
        return [run_id for run_id, since in self._seen.items() if now - since >= self._patience_s]

    def _gone(self, line: str) -> list[str]:
        of_line = [keys.waiting(line), keys.STARTED, self._broker_list(line)]
        return cast("list[str]", self._overtaken(keys=of_line, args=[line, BATCH]))

    def _queue_again(self, run_id: str) -> bool:
        self._seen.pop(run_id, None)
        try:
            record = self._runs.record(run_id)
        except RunNotFoundError:  # its time to live is over, or Redis lost it
            self._redis.zrem(keys.LEASES, run_id)
            for line in cast("set[str]", self._redis.smembers(keys.QUEUE_SLOTS)):
                self._redis.zrem(keys.waiting(line), run_id)
            return False
        except CorruptRecordError as error:  # another release may know it: it stays where that one finds it
            log.warning("%s; it is not queued again from here", error)
            return False
        of_run = [keys.run_lease(run_id), keys.LEASES, keys.run_state(run_id), keys.waiting(record.queue_slot)]
        state = self._rejoin(keys=of_run, args=[run_id])
        if not state:
            return False
        log.warning("run %s lost its worker or its message; it is queued again", run_id)
        if state == "running":
            Progress(self._redis, run_id).publish(Queued(name=record.name, model=record.model))
        try:
            self._publish(record)
        except CorruptRecordError as error:  # it still waits, for a release that can read it
            log.warning("run %s can't be queued again from here: %s", run_id, error)
            return False
        return True

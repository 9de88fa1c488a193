"""Who may write a run: a lease in Redis, renewed together with the broker's claim on the message while work goes on."""

import secrets
import time
from collections.abc import Callable
from typing import cast

from redis import Redis

from storage import keys

# Time is the server's, so that a worker whose clock is off neither keeps a run too long nor loses it too soon.
# KEYS: lease, all leases, state, when each line was last started from.
# ARGV: token, time to live in ms, run id, '1' to hold it on or '' to take it anew.
# Returns 1 when the lease is ours now, 2 when it is and Redis has forgotten the run itself, 0 when another has it, or
# had it while ours had lapsed, or brought the run to its end.
# A lease that lapsed without a new owner is taken again: a pause, or a Redis that lost its data, costs nothing when
# nobody else went on with the run. Who did is the run's last owner, whatever became of its lease.
_TAKE = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
if not owner and ARGV[4] ~= '' then
  local state = redis.call('HGET', KEYS[3], 'state')
  if state == 'succeeded' or state == 'failed' or state == 'cancelled' then return 0 end
end
local last = redis.call('HGET', KEYS[3], 'owner')
if ARGV[4] ~= '' and last and last ~= ARGV[1] then return 0 end
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[3])
local line = redis.call('HGET', KEYS[3], 'line')
if line then
  local waiting = 'autoseq:waiting:' .. line
  local joined = redis.call('ZSCORE', waiting, ARGV[3])
  if joined then
    redis.call('ZREM', waiting, ARGV[3])
    local latest = redis.call('HGET', KEYS[4], line)
    if not latest or tonumber(joined) > tonumber(latest) then redis.call('HSET', KEYS[4], line, joined) end
  end
end
if redis.call('HEXISTS', KEYS[3], 'state') == 0 then return 2 end
redis.call('HSET', KEYS[3], 'owner', ARGV[1])
return 1
"""
_FORGOTTEN = 2

# KEYS: lease, all leases, state. ARGV: token, run id.
# A run without an end stays in the index, as lapsed: whatever stopped its worker, it is found there.
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local state = redis.call('HGET', KEYS[3], 'state')
if state == 'queued' or state == 'running' then redis.call('ZADD', KEYS[2], 0, ARGV[2])
else redis.call('ZREM', KEYS[2], ARGV[2]) end
return redis.call('DEL', KEYS[1])
"""


class LeaseLost(Exception):  # noqa: N818 (it says what happened)
    """Another worker owns the run by now, or has brought it to its end: this one stops."""


class Lease:
    """The right to write one run, for `ttl_s` seconds from the last renewal."""

    def __init__(self, redis: Redis, run_id: str, *, ttl_s: float) -> None:
        self._run_id = run_id
        self._ttl_ms = int(ttl_s * 1000)
        self.token = secrets.token_hex(16)
        """What the lease holds while it is ours."""
        self._keys = [keys.run_lease(run_id), keys.LEASES, keys.run_state(run_id), keys.STARTED]
        self._take = redis.register_script(_TAKE)
        self._release = redis.register_script(_RELEASE)

    def acquire(self) -> bool:
        """Take the lease. False when another worker holds it."""
        return bool(self._taken(again=False))

    def renew(self) -> bool:
        """Hold the lease for its whole time again. False when Redis has forgotten the run. Raises LeaseLost."""
        taken = self._taken(again=True)
        if not taken:
            raise LeaseLost(f"run {self._run_id}: its lease lapsed, and another worker owns it or has ended it")
        return taken != _FORGOTTEN

    def _taken(self, *, again: bool) -> int:
        args: list[str | int] = [self.token, self._ttl_ms, self._run_id, "1" if again else ""]
        return cast("int", self._take(keys=self._keys, args=args))

    def release(self) -> None:
        """Give the lease back, when it is still ours; a run that has no end yet is for the next worker at once."""
        self._release(keys=self._keys[:3], args=[self.token, self._run_id])


class Heartbeat:
    """Renews what keeps a run ours, from within the work itself: a hung device renews nothing and so lets go.

    Args:
        lease: ours.
        redis: the broker's database.
        delivery_tag: the broker's name for the message under way; None when there is none.
        interval_s: how often to renew.
        on_forgotten: called when Redis has lost its data, and the run with it.
        clock: seconds.
    """

    def __init__(
        self,
        lease: Lease,
        redis: Redis,
        *,
        delivery_tag: str | None,
        interval_s: float,
        on_forgotten: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lease = lease
        self._redis = redis
        self._tag = delivery_tag
        self._interval_s = interval_s
        self._on_forgotten = on_forgotten
        self._clock = clock
        self._due = clock()

    def beat(self) -> None:
        """Call often: renews when it is time to. Raises LeaseLost."""
        now = self._clock()
        if now < self._due:
            return
        self._due = now + self._interval_s
        if not self._lease.renew():
            self._on_forgotten()
            self._lease.renew()
        if self._tag is not None:
            # The broker gives a message to another worker when its score here is older than the visibility timeout.
            self._redis.zadd(keys.BROKER_CLAIMS, {self._tag: time.time()}, xx=True)

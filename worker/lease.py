"""Who may write a run: a lease in Redis, renewed together with the broker's claim on the message while work goes on."""

import secrets
import time
from collections.abc import Callable

from redis import Redis

from storage import keys

# One round trip each, and never on a lease that someone else holds by now.
_RENEW = (
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) else return 0 end"
)
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end"


class LeaseLost(Exception):  # noqa: N818 (it says what happened)
    """Another worker owns the run by now: this one stops."""


class Lease:
    """The right to write one run, for `ttl_s` seconds from the last renewal."""

    def __init__(self, redis: Redis, run_id: str, *, ttl_s: float) -> None:
        self._redis = redis
        self._key = keys.run_lease(run_id)
        self._run_id = run_id
        self._ttl_ms = int(ttl_s * 1000)
        self._token = secrets.token_hex(16)

    def acquire(self) -> bool:
        """Take the lease. False when another worker holds it."""
        return bool(self._redis.set(self._key, self._token, nx=True, px=self._ttl_ms))

    def renew(self) -> None:
        """Hold the lease for its whole time again. Raises LeaseLost."""
        if not self._redis.eval(_RENEW, 1, self._key, self._token, self._ttl_ms):
            raise LeaseLost(f"run {self._run_id}: its lease lapsed and another worker may own it")

    def release(self) -> None:
        """Give the lease back, when it is still ours."""
        self._redis.eval(_RELEASE, 1, self._key, self._token)


class Heartbeat:
    """Renews what keeps a run ours, from within the work itself: a hung device renews nothing and so lets go.

    Args:
        lease: ours.
        redis: the broker's database.
        delivery_tag: the broker's name for the message under way; None when there is none.
        interval_s: how often to renew.
    """

    def __init__(
        self,
        lease: Lease,
        redis: Redis,
        *,
        delivery_tag: str | None,
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lease = lease
        self._redis = redis
        self._tag = delivery_tag
        self._interval_s = interval_s
        self._clock = clock
        self._due = clock()

    def beat(self) -> None:
        """Call often: renews when it is time to. Raises LeaseLost."""
        now = self._clock()
        if now < self._due:
            return
        self._due = now + self._interval_s
        self._lease.renew()
        if self._tag is not None:
            # The broker gives a message to another worker when its score here is older than the visibility timeout.
            self._redis.zadd(keys.BROKER_CLAIMS, {self._tag: time.time()}, xx=True)

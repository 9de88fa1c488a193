"""Who may write a run: a lease in Redis, renewed together with the broker's claim on the message while work goes on."""

import secrets
import time
from collections.abc import Callable
from typing import Final, cast

from redis import Redis

from storage import keys
from storage.redis.scripts import Arguments, load_script

_FORGOTTEN: Final = 2
"""What take_lease returns when Redis holds nothing of the run but the lease."""


class LeaseLost(Exception):  # noqa: N818 (it says what happened)
    """Another worker owns the run by now, or has brought it to its end: this one stops."""


class Lease:
    """The right to write one run, for `ttl_s` seconds after the last renewal."""

    def __init__(self, redis: Redis, run_id: str, *, ttl_s: float) -> None:
        self.run_id = run_id
        self.token = secrets.token_hex(16)
        """The value of the lease's key while it is ours."""
        self._ttl_ms = int(ttl_s * 1000)
        self._keys = {"lease": keys.run_lease(run_id), "leases": keys.LEASES, "state": keys.run_state(run_id)}
        self._take_lease = load_script(redis, "take_lease")
        self._release_lease = load_script(redis, "release_lease")

    def acquire(self) -> bool:
        """Take the lease. False when another worker has it."""
        return bool(self._take(renew=False))

    def renew(self) -> bool:
        """Extend the lease to its full time. False when Redis holds nothing else of the run. Raises LeaseLost."""
        taken = self._take(renew=True)
        if not taken:
            raise LeaseLost(f"run {self.run_id}: its lease lapsed, and another worker owns it or has ended it")
        return taken != _FORGOTTEN

    def release(self) -> None:
        """Release the lease, if it is still ours. A run that has not ended is then free for the next worker."""
        self._release_lease(keys=self._keys, args={"token": self.token, "run_id": self.run_id})

    def _take(self, *, renew: bool) -> int:
        args: Arguments = {
            "token": self.token,
            "ttl_ms": self._ttl_ms,
            "run_id": self.run_id,
            "renew": "1" if renew else "",
            "waiting_prefix": keys.WAITING_PREFIX,
        }
        return cast("int", self._take_lease(keys={**self._keys, "started": keys.STARTED}, args=args))


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

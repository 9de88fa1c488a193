"""The lease of a run: the right of one worker to write it. It is renewed with the broker's claim on the message."""

import secrets
from typing import Final, cast

from redis import Redis

from storage import keys
from storage.redis.scripts import Arguments, load_script

_LEASE_ONLY: Final = 2
"""The result of take_lease if Redis has nothing of the run but the lease."""


class LeaseLost(Exception):  # noqa: N818 - control flow
    """Another worker has the run, or the run has ended; this worker must stop."""


class Lease:
    """The right to write one run, for `ttl_s` seconds after the last renewal.

    Args:
        redis: a client with decode_responses, of the broker's database.
        run_id: the run.
        ttl_s: how long the lease lasts.
        delivery_tag: the broker's name of the message; None without a message.
    """

    def __init__(self, redis: Redis, run_id: str, *, ttl_s: float, delivery_tag: str | None = None) -> None:
        self.run_id = run_id
        self._tag = delivery_tag or ""
        self.token = secrets.token_hex(16)
        """The value of the lease's key while this worker has it."""
        self._ttl_ms = int(ttl_s * 1000)
        self._keys = {"lease": keys.run_lease(run_id), "leases": keys.LEASES, "state": keys.run_state(run_id)}
        self._take_lease = load_script(redis, "take_lease")
        self._release_lease = load_script(redis, "release_lease")

    def acquire(self) -> bool:
        """Take the lease, and renew the broker's claim on the message. False when another worker has it."""
        return bool(self._take(renew=False))

    def renew(self) -> bool:
        """Extend the lease to its full time, and the broker's claim on the message.

        False when Redis has nothing else of the run. Raises LeaseLost.
        """
        taken = self._take(renew=True)
        if not taken:
            raise LeaseLost(f"run {self.run_id}: its lease lapsed, and another worker owns it or has ended it")
        return taken != _LEASE_ONLY

    def release(self) -> None:
        """Release the lease, if this worker still has it. The next worker can then take a run that has not ended."""
        self._release_lease(keys=self._keys, args={"token": self.token, "run_id": self.run_id})

    def _take(self, *, renew: bool) -> int:
        args: Arguments = {
            "token": self.token,
            "ttl_ms": self._ttl_ms,
            "run_id": self.run_id,
            "renew": "1" if renew else "",
            "waiting_prefix": keys.WAITING_PREFIX,
            "tag": self._tag,
        }
        taken = {**self._keys, "started": keys.STARTED, "broker_claims": keys.BROKER_CLAIMS}
        return cast("int", self._take_lease(keys=taken, args=args))

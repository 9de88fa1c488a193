"""How long a store may be away: the same call again, with growing pauses, until it is back or too long gone."""

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from storage.errors import StoreUnavailableError

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
T = TypeVar("T")


class RetryPolicy:
    """Repeats a call while it raises StoreUnavailableError. The call must be one that may be repeated.

    Args:
        timeout_s: how long an outage may last before its error is raised.
        stop: once set, no call is repeated.
        on_wait: told of each failed call and the pause after it, in seconds.
    """

    def __init__(
        self,
        timeout_s: float = 600.0,
        *,
        stop: threading.Event | None = None,
        on_wait: Callable[[StoreUnavailableError, float], None] | None = None,
    ) -> None:
        self.timeout_s = timeout_s
        self.stop = stop or threading.Event()
        self.on_wait = on_wait

    def __call__(self, call: Callable[[], T]) -> T:
        deadline = time.monotonic() + self.timeout_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return call()
            except StoreUnavailableError as error:
                left_s = deadline - time.monotonic()
                if left_s <= 0 or self.stop.is_set():
                    raise
                # Half of it is chance, so that many workers do not come back at once.
                wait_s = min(pause_s * random.uniform(0.5, 1.0), left_s)  # noqa: S311 - no secret
                if self.on_wait is not None:
                    self.on_wait(error, wait_s)
            self.stop.wait(wait_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

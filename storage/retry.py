"""Retries with growing pauses: repeats a call while a store is unavailable, for a limited time."""

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from storage.errors import StoreUnavailableError

T = TypeVar("T")


class Backoff:
    """The pauses between the attempts at one call. They double up to a limit.

    Args:
        timeout_s: how long to retry, from now on.
        first_s: the first pause.
        longest_s: the limit.
    """

    def __init__(self, timeout_s: float, *, first_s: float = 0.1, longest_s: float = 5.0) -> None:
        self._deadline = time.monotonic() + timeout_s
        self._pause_s = first_s
        self._longest_s = longest_s

    def next_pause_s(self) -> float | None:
        """The pause before the next attempt; None when the time is over."""
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            return None
        # Up to half of it is random, so that many workers do not retry at once.
        pause_s = min(self._pause_s * random.uniform(0.5, 1.0), left_s)  # noqa: S311 - not a secret
        self._pause_s = min(2 * self._pause_s, self._longest_s)
        return pause_s


class RetryPolicy:
    """Repeats a call while it raises StoreUnavailableError. The call must be idempotent.

    Args:
        timeout_s: how long an outage may last before its error is raised.
        stop: once it is set, no call is repeated.
        on_wait: called with the error of each failed attempt and the pause after it, in seconds.
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
        backoff = Backoff(self.timeout_s)
        while True:
            try:
                return call()
            except StoreUnavailableError as error:
                pause_s = backoff.next_pause_s()
                if pause_s is None or self.stop.is_set():
                    raise
                if self.on_wait is not None:
                    self.on_wait(error, pause_s)
            self.stop.wait(pause_s)

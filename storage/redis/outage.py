"""Repeats a Redis command while Redis is unavailable or refuses writes, for a limited time."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,  # noqa: A004 - redis-py's own, which is not the built-in one
    NoPermissionError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004 - as above
    TryAgainError,
)
from redis.retry import Retry

from storage.retry import Backoff

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
REFUSALS = (
    "command not allowed when used memory",  # out of memory; in the middle of a script's error
    "MISCONF",  # its disk is full
    "NOREPLICAS",  # too few replicas follow it
    "READONLY",  # its primary is being replaced
    "You can't write against a read only replica",
    "MASTERDOWN",  # it has lost its primary
    "Link with MASTER is down",
    "CLUSTERDOWN",  # the cluster elects a primary
    "The cluster is down",
    "TRYAGAIN",  # the cluster moves a slot
    "BUSY Redis is busy running a script",
)
"""Parts of the errors with which Redis refuses writes that it may accept later."""

T = TypeVar("T")


class OutageRetry(Retry):
    """Repeats a command for `timeout_s` while Redis is unavailable; wrong credentials are not retried."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(NoBackoff(), retries=-1)
        self.timeout_s = timeout_s

    def call_with_retry(
        self,
        do: Callable[[], T],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,  # noqa: FBT001, FBT002 - redis-py's signature
    ) -> T:
        backoff = Backoff(self.timeout_s, first_s=FIRST_PAUSE_S, longest_s=LONGEST_PAUSE_S)
        failures = 0
        while True:
            try:
                return do()
            except (RedisError, OSError) as error:
                if not is_outage(error) or (is_retryable and not is_retryable(error)):
                    raise
                failures += 1
                fail(*((error, failures) if with_failure_count else (error,)))
                pause_s = backoff.next_pause_s()
                if pause_s is None:
                    raise
            time.sleep(pause_s)


def is_damage(error: Exception) -> bool:
    """Whether a key has a content that this program did not write, so that the same command fails again."""
    if isinstance(error, ResponseError):
        return not isinstance(error, NoPermissionError) and not is_outage(error)
    return isinstance(error, UnicodeDecodeError)


def is_outage(error: Exception) -> bool:
    """Whether the same command may succeed later."""
    if isinstance(error, AuthenticationError | AuthorizationError):
        return False
    if isinstance(error, ResponseError):
        return isinstance(error, TryAgainError) or any(words in str(error) for words in REFUSALS)
    return isinstance(error, ConnectionError | TimeoutError | OSError)

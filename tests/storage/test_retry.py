"""A call is repeated while the store is away, until the policy gives up."""

import threading

import pytest

from storage.errors import StoreRefusedError, StoreUnavailableError
from storage.retry import Backoff, RetryPolicy


def failing(times: int, error: Exception) -> list[Exception]:
    return [error] * times


def call(errors: list[Exception]) -> str:
    if errors:
        raise errors.pop()
    return "done"


def test_a_call_is_repeated_until_the_store_is_back() -> None:
    waits: list[float] = []
    errors = failing(3, StoreUnavailableError("away"))
    retry = RetryPolicy(60, on_wait=lambda _error, wait_s: waits.append(wait_s))
    assert retry(lambda: call(errors)) == "done"
    assert len(waits) == 3
    assert 0.05 <= waits[0] <= 0.1 <= waits[1] <= 0.2 <= waits[2] <= 0.4


def test_a_refusal_is_not_repeated() -> None:
    errors = failing(2, StoreRefusedError("no"))
    with pytest.raises(StoreRefusedError):
        RetryPolicy(60)(lambda: call(errors))
    assert len(errors) == 1


def test_a_policy_gives_up_with_the_last_error() -> None:
    with pytest.raises(StoreUnavailableError, match="away"):
        RetryPolicy(0.3)(lambda: call(failing(1, StoreUnavailableError("away"))))


def test_a_stop_ends_the_wait() -> None:
    stop = threading.Event()
    retry = RetryPolicy(60, stop=stop, on_wait=lambda _error, _wait_s: stop.set())
    with pytest.raises(StoreUnavailableError):
        retry(lambda: call(failing(1, StoreUnavailableError("away"))))


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(60, first_s=1, longest_s=4)
    pauses = [backoff.next_pause_s() or 0 for _ in range(5)]
    for pause_s, most_s in zip(pauses, (1, 2, 4, 4, 4), strict=True):
        assert most_s / 2 <= pause_s <= most_s


def test_a_pause_does_not_exceed_the_time_that_is_left() -> None:
    assert Backoff(0).next_pause_s() is None
    assert 0 < (Backoff(5, first_s=100).next_pause_s() or 0) <= 5

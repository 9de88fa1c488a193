"""A Redis command is repeated while Redis may serve it later, and no longer."""

from collections.abc import Callable

import pytest
from redis import AuthenticationError, ConnectionError, RedisError, ResponseError  # noqa: A004 - redis-py's own

from storage.redis.outage import REFUSALS, OutageRetry


def failing(*errors: RedisError) -> Callable[[], str]:
    left = list(errors)

    def command() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return command


@pytest.mark.parametrize("error", [ConnectionError("away"), *map(ResponseError, REFUSALS)])
def test_a_command_is_repeated_until_redis_serves_it(error: RedisError) -> None:
    failures: list[int] = []
    retry = OutageRetry(60)
    done = retry.call_with_retry(
        failing(error, error), lambda _error, count: failures.append(count), with_failure_count=True
    )
    assert (done, failures) == ("done", [1, 2])


@pytest.mark.parametrize("error", [AuthenticationError("no"), ResponseError("unknown command")])
def test_what_fails_again_is_not_repeated(error: RedisError) -> None:
    with pytest.raises(type(error)):
        OutageRetry(60).call_with_retry(failing(error), pytest.fail)


def test_a_command_fails_when_the_time_is_over() -> None:
    with pytest.raises(ConnectionError, match="away"):
        OutageRetry(0).call_with_retry(failing(ConnectionError("away")), lambda _error: None)

"""Messages that are set aside: the latest, clipped, with their reasons, and not for ever."""

from collections.abc import Iterator

import pytest
from redis import Redis

from storage import keys
from storage.redis.dead_letters import MAX_MESSAGE_CHARS, MAX_REASON_CHARS, DeadLetter, DeadLetters


@pytest.fixture
def letters(redis_client: Redis) -> Iterator[DeadLetters]:
    redis_client.delete(keys.DEAD_LETTERS)
    yield DeadLetters(redis_client, clock=lambda: 12.3456)
    redis_client.delete(keys.DEAD_LETTERS)


def test_the_latest_are_kept_and_clipped(letters: DeadLetters, redis_client: Redis) -> None:
    redis_client.lpush(keys.DEAD_LETTERS, *["{}"] * keys.MAX_DEAD_LETTERS)
    letters.add("x" * 10_000, message=b"\xff" * 100_000, queue="q", task_id="run-1")
    letters.add("no JSON", message="{")
    assert letters.count() == keys.MAX_DEAD_LETTERS
    assert letters.newest(2) == [
        DeadLetter(at=12.346, reason="no JSON", message="{"),
        DeadLetter(
            at=12.346,
            reason="x" * MAX_REASON_CHARS,
            message="\ufffd" * MAX_MESSAGE_CHARS,
            queue="q",
            task_id="run-1",
        ),
    ]
    assert 0 < redis_client.ttl(keys.DEAD_LETTERS) <= keys.DEAD_LETTERS_TTL_S


def test_an_entry_that_is_none_hides_no_other(letters: DeadLetters, redis_client: Redis) -> None:
    letters.add("first")
    redis_client.lpush(keys.DEAD_LETTERS, "[]", "{}", "no JSON")
    assert [letter.reason for letter in letters.newest()] == ["first"]


def test_a_message_is_only_logged_while_their_key_is_damaged(
    letters: DeadLetters, redis_client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis_client.set(keys.DEAD_LETTERS, "damage")
    letters.add("no JSON", message="{this one")
    assert f"{keys.DEAD_LETTERS} is damaged" in caplog.text
    assert "{this one" in caplog.text

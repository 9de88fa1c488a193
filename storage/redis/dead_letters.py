"""The messages that no worker can execute: set aside with the reason, instead of delivered again."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Final, cast

from redis import Redis
from redis.exceptions import ResponseError

from storage import keys
from storage.errors import CorruptRecordError
from storage.redis.outage import is_damage
from storage.redis.state import reading

log = logging.getLogger(__name__)

MAX_REASON_CHARS: Final = 500
MAX_MESSAGE_CHARS: Final = 4_000


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """One message that was set aside."""

    at: float
    """In unix seconds."""
    reason: str
    queue: str = ""
    task_id: str | None = None
    """The id in the message, which is the id of its run; None if it can't be read."""
    message: str = ""
    """The message as text, clipped to MAX_MESSAGE_CHARS."""

    @staticmethod
    def from_json(text: str) -> "DeadLetter":
        """The dead letter in an entry of the list; unknown fields are ignored. Raises CorruptRecordError."""
        with reading("a dead letter"):
            document = json.loads(text)
            return DeadLetter(**{one.name: document[one.name] for one in fields(DeadLetter) if one.name in document})


class DeadLetters:
    """The dead letters in one Redis: the latest MAX_DEAD_LETTERS of them.

    Args:
        redis: a client with decode_responses.
        clock: unix seconds.
    """

    def __init__(self, redis: Redis, *, clock: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._clock = clock

    def add(self, reason: str, *, message: str | bytes = "", queue: str = "", task_id: str | None = None) -> None:
        """Set a message aside, and log the reason."""
        text = message[: 4 * MAX_MESSAGE_CHARS].decode(errors="replace") if isinstance(message, bytes) else message
        letter = DeadLetter(
            at=round(self._clock(), 3),
            reason=reason[:MAX_REASON_CHARS],
            queue=queue,
            task_id=task_id,
            message=text[:MAX_MESSAGE_CHARS],
        )
        log.error("a message of queue %s was moved to the dead letters: %s", queue or "?", letter.reason)
        try:
            with self._redis.pipeline() as together:
                together.lpush(keys.DEAD_LETTERS, json.dumps(asdict(letter)))
                together.ltrim(keys.DEAD_LETTERS, 0, keys.MAX_DEAD_LETTERS - 1)
                together.expire(keys.DEAD_LETTERS, keys.DEAD_LETTERS_TTL_S)
                together.execute()
        except ResponseError as error:
            if not is_damage(error):
                raise
            log.warning("%s is damaged: %s; only this log has the message %s", keys.DEAD_LETTERS, error, letter.message)

    def count(self) -> int:
        """The number of dead letters."""
        return self._redis.llen(keys.DEAD_LETTERS)

    def newest(self, limit: int = 20) -> list[DeadLetter]:
        """The latest dead letters, the newest first, without those that can't be read."""
        letters = []
        for text in cast("list[str]", self._redis.lrange(keys.DEAD_LETTERS, 0, limit - 1)):
            try:
                letters.append(DeadLetter.from_json(text))
            except CorruptRecordError as error:
                log.warning("%s; it is not listed", error)
        return letters

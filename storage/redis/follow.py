"""Follows the events of a run: those after a stream id, then new ones, until the run ends."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, cast

from redis import ConnectionError as RedisConnectionError
from redis import Redis
from redis import TimeoutError as RedisTimeoutError

from storage import keys
from storage.errors import CorruptRecordError, InvalidNameError, RunNotFoundError, StoreUnavailableError
from storage.events import Cancelled, Denoised, Failed, Gap, RunEvent, Succeeded, parse
from storage.redis.runs import Runs
from storage.redis.state import RunState
from storage.retry import Backoff

START = "0-0"
_STREAM_ID = re.compile(r"\d{1,20}-\d{1,20}")
# Below redis-py's socket timeout of 5 s.
BLOCK_MS = 2_000
BATCH = 500
LONGEST_PAUSE_S = 2.0

Entry: TypeAlias = tuple[str, dict[str, str]]


def follow(
    redis: Redis, run_id: str, *, after: str = START, timeout_s: float | None = None, outage_s: float = 60.0
) -> Iterator[RunEvent]:
    """The run's events after the stream id `after`, up to its final event (the last one, if the run was resumed).

    A Gap replaces events that the stream no longer has. A final event that expired is derived from the run's state.
    An outage of Redis of up to `outage_s` causes no loss or repetition. If Redis loses its data, the worker of the run
    publishes a new stream, which is read from its start: the numbers of the events begin at 1 again.

    Args:
        redis: a client with decode_responses, its socket_timeout above 2 s.
        run_id: the run.
        after: the id of the last event that the caller has; by default, all events are read.
        timeout_s: maximum time to follow the run; None is unlimited.
        outage_s: maximum duration of an outage of Redis, and of the absence of a run that it had.

    Raises:
        InvalidNameError: `after` is not the id of an event.
        RunNotFoundError: Redis does not have the run, or no longer.
        TimeoutError: the run did not end within `timeout_s`.
        StoreUnavailableError: Redis stayed unavailable.
        CorruptRecordError: the run's data in Redis was not written by this program.
    """
    follower = _Follower(redis, run_id, after)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    backoff = Backoff(outage_s, longest_s=LONGEST_PAUSE_S)
    ended = False
    while True:
        left_s = BLOCK_MS / 1000 if deadline is None else deadline - time.monotonic()
        try:
            if ended and follower.is_over():
                return
            events = follower.read(block_ms=max(1, min(BLOCK_MS, int(left_s * 1000))))
        except (RedisConnectionError, RedisTimeoutError) as error:
            pause_s = backoff.next_pause_s()
            if pause_s is None:
                raise StoreUnavailableError(f"Redis was unavailable for {outage_s:g} s: {error}") from error
            time.sleep(pause_s)
            continue
        except RunNotFoundError:
            if not follower.is_under_way or backoff.next_pause_s() is None:
                raise
            events = []  # Redis lost its data; the read waited for the worker to publish the run again
        else:
            backoff = Backoff(outage_s, longest_s=LONGEST_PAUSE_S)
        for event in events:
            yield event
            ended = event.is_final
        if not events and left_s <= 0:
            raise TimeoutError(f"run {run_id}: no end within {timeout_s:g} s")


class _Follower:
    """The position of one reader in the stream of a run."""

    def __init__(self, redis: Redis, run_id: str, after: str) -> None:
        if not _STREAM_ID.fullmatch(after):
            raise InvalidNameError(f"event id {after!r}: must be the id of an event, such as 1700000000000-0")
        self._redis = redis
        self._runs = Runs(redis)
        self._run_id = run_id
        self._stream = keys.run_events(run_id)
        self._last = after
        self._began = False
        self._over = False
        """Whether the run has ended; then reads do not wait for more events."""
        self._next: int | None = 1 if after == START else None
        """The number of the next event; None while it is unknown."""

    def read(self, block_ms: int) -> Sequence[RunEvent]:
        """The next events; empty if none arrives within `block_ms`. Raises RunNotFoundError."""
        if not self._began:
            gap = self._begin()
            self._began = True
            if gap:
                return gap
        entries = self._entries(1 if self._over else block_ms)
        if self._has_new_stream(entries):
            self._last, self._next = START, 1
            entries = self._entries(1)
        return self._with_preview([event for entry in entries for event in self._events(entry)]) or self._lost_end()

    @property
    def is_under_way(self) -> bool:
        """Whether Redis had the run, which had not ended."""
        return self._began and not self._over

    def is_over(self) -> bool:
        """Whether the run has ended and has no later event; a failed or cancelled run may have been resumed."""
        later = self._redis.xrange(self._stream, f"({self._last}", "+", count=1)
        state = self._runs.state(self._run_id)
        self._over = state is None or state.is_final
        return self._over and not later

    def _begin(self) -> list[RunEvent]:
        """Find the caller's last event; a gap if the stream dropped it, since later events may be dropped too."""
        state = self._state()
        self._over = state.is_final
        if self._next is not None:
            return []
        entries = cast("list[Entry]", self._redis.xrange(self._stream, self._last, self._last))
        if not entries:
            return [_gap(self._last, state)]
        self._next = self._parse(entries[0]).n + 1
        return []

    def _has_new_stream(self, entries: Sequence[Entry]) -> bool:
        """Whether `entries`, those after the last event, show that the stream was lost and begun again."""
        if entries:
            return self._next is not None and self._parse(entries[0]).n < self._next
        newest = cast("list[Entry]", self._redis.xrevrange(self._stream, count=1))
        # The ids are times: those of another Redis, or after a clock was set back, may be lower.
        return bool(newest) and _order(newest[0][0]) < _order(self._last)

    def _events(self, entry: Entry) -> list[RunEvent]:
        """The event of an entry, after a gap if events before it were dropped."""
        event = self._parse(entry)
        dropped = self._next is not None and event.n > self._next
        gap = [_gap(self._last, self._state())] if dropped else []
        self._last, self._next = event.id, event.n + 1
        return [*gap, event]

    def _parse(self, entry: Entry) -> RunEvent:
        event_id, fields = entry
        try:
            return parse(event_id, fields.get("event", ""))
        except CorruptRecordError as error:
            raise CorruptRecordError(f"run {self._run_id}: its {error}") from error

    def _with_preview(self, events: list[RunEvent]) -> list[RunEvent]:
        """The events, with the last preview in its event; earlier previews are not stored."""
        if not any(isinstance(event, Denoised) and event.preview is not None for event in events):
            return events
        text = cast("str | None", self._redis.get(keys.run_preview(self._run_id))) or ""
        number, _, preview = text.partition(" ")
        return [
            replace(event, preview=preview if number == str(event.n) else None)
            if isinstance(event, Denoised) and event.preview is not None
            else event
            for event in events
        ]

    def _lost_end(self) -> list[RunEvent]:
        """The final event, derived from the state, if the run has ended but its stream has expired."""
        state = self._state()
        if not state.is_final or self._entries(1):  # the next read returns what arrived just now
            return []
        return [_end(self._last, state)]

    def _entries(self, block_ms: int) -> list[Entry]:
        answer: Any = self._redis.xread({self._stream: self._last}, count=BATCH, block=block_ms)
        return [entry for _stream, entries in answer for entry in entries]

    def _state(self) -> RunState:
        state = self._runs.state(self._run_id)
        if state is None:
            raise RunNotFoundError(f"run {self._run_id}: there is no such run, or it ended long ago")
        return state


def _order(event_id: str) -> tuple[int, ...]:
    """Sorts the ids of a stream."""
    return tuple(map(int, event_id.split("-")))


def _gap(event_id: str, state: RunState) -> Gap:
    """The gap that replaces the dropped events after `event_id`."""
    return Gap(
        id=event_id,
        at=state.updated_at or 0.0,
        fraction=state.fraction,
        eta_s=state.eta_s,
        state=state.state,
        name=state.name,
        model=state.model,
        step=state.step,
        steps=state.steps,
        error=state.error,
        manifest=state.manifest,
    )


def _end(event_id: str, state: RunState) -> RunEvent:
    """The final event, derived from the state of an ended run."""
    at, fraction = state.finished_at or state.updated_at or 0.0, state.fraction
    match state.state:
        case "succeeded":
            return Succeeded(id=event_id, at=at, fraction=fraction, manifest=state.manifest or "")
        case "failed":
            return Failed(id=event_id, at=at, fraction=fraction, error=state.error or "")
        case _:
            return Cancelled(id=event_id, at=at, fraction=fraction)

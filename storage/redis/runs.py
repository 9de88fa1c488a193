"""All the runs that Redis knows: what was asked for, which there are, and the wish to stop one."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from redis import Redis

from storage import keys
from storage.errors import CorruptRecordError, RunNotFoundError
from storage.redis.progress import Progress
from storage.redis.state import RunRecord, RunState

log = logging.getLogger(__name__)

# KEYS: record, state, events, all runs, runs without an end, lines, waiting in the line.
# ARGV: run id, record, submitted at, how many runs are listed, line, event, then field, value, ... of the hash.
# Returns 1, or 0 when the run is there already.
_CREATE: Final = """
if redis.call('SET', KEYS[1], ARGV[2], 'NX') == false then return 0 end
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('HSET', KEYS[2], 'state', 'queued', 'fraction', '0', 'events', '1', 'line', ARGV[5], unpack(ARGV, 7))
redis.call('XADD', KEYS[3], '*', 'event', ARGV[6])
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -1 - tonumber(ARGV[4]))
redis.call('ZADD', KEYS[5], ARGV[3], ARGV[1])
local now = redis.call('TIME')
redis.call('SADD', KEYS[6], ARGV[5])
redis.call('ZADD', KEYS[7], now[1] * 1000 + math.floor(now[2] / 1000), ARGV[1])
return 1
"""

# KEYS: state, cancel flag. Returns the state it found, or nothing.
_CANCEL: Final = """
local state = redis.call('HGET', KEYS[1], 'state')
if state == 'queued' or state == 'running' then redis.call('SET', KEYS[2], '1') end
return state
"""

# KEYS: state. ARGV: how many steps are committed.
# Returns how many times the run was started since it last got a step further.
_ATTEMPT: Final = """
local before = redis.call('HGET', KEYS[1], 'attempt_steps')
if before and tonumber(before) >= tonumber(ARGV[1]) then return redis.call('HINCRBY', KEYS[1], 'attempts', 1) end
redis.call('HSET', KEYS[1], 'attempts', 1, 'attempt_steps', ARGV[1])
return 1
"""

# KEYS: state, cancel flag, record, events, runs without an end, lines, waiting in the line.
# ARGV: run id, line. Returns 1 when the run waits again; 0 when it has no end yet, or succeeded.
_REOPEN: Final = """
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'failed' and state ~= 'cancelled' then return 0 end
redis.call('HSET', KEYS[1], 'state', 'queued', 'error', '', 'finished_at', '', 'line', ARGV[2])
redis.call('HDEL', KEYS[1], 'attempts', 'attempt_steps')
redis.call('DEL', KEYS[2])
for _, key in ipairs({KEYS[1], KEYS[3], KEYS[4]}) do redis.call('PERSIST', key) end
local now = redis.call('TIME')
redis.call('ZADD', KEYS[5], now[1] + now[2] / 1000000, ARGV[1])
redis.call('SADD', KEYS[6], ARGV[2])
redis.call('ZADD', KEYS[7], now[1] * 1000 + math.floor(now[2] / 1000), ARGV[1])
return 1
"""

# KEYS: idempotency key. ARGV: run id, time to live. Returns the run id that owns it.
_CLAIM: Final = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'EX', ARGV[2]) then return ARGV[1] end
return redis.call('GET', KEYS[1])
"""


class Runs:
    """The runs in one Redis. Every method is one round trip, `cancel` of a waiting run two.

    Args:
        redis: a client with decode_responses.
        ttl_s: how long idempotency keys hold, and a run that is cancelled here stays known.
        clock: unix seconds.
    """

    def __init__(self, redis: Redis, *, ttl_s: int = keys.RUN_TTL_S, clock: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._ttl_s = ttl_s
        self._clock = clock
        self._create = redis.register_script(_CREATE)
        self._cancel = redis.register_script(_CANCEL)
        self._claim = redis.register_script(_CLAIM)
        self._attempt = redis.register_script(_ATTEMPT)
        self._reopen = redis.register_script(_REOPEN)

    def claim_key(self, key: str, run_id: str) -> str:
        """The run id that owns an idempotency key: `run_id` itself, unless another came first.

        Then create the record under the id it returns: should the owner have died before doing so, it is made good.
        """
        keys.check_run_id(run_id)
        return cast("str", self._claim(keys=[keys.idempotency(key)], args=[run_id, self._ttl_s]))

    def add_alias(self, alias: str, run_id: str) -> None:
        """Let `alias`, a message id that repeated an idempotency key of `run_id`, also name that run."""
        self._redis.set(keys.run_alias(alias), run_id, ex=self._ttl_s)

    def resolve_alias(self, run_id: str) -> str:
        """The run that `run_id` names: itself, unless there is no such run and it is an alias of another."""
        with self._redis.pipeline(transaction=False) as together:
            together.exists(keys.run_state(run_id))
            together.get(keys.run_alias(run_id))
            exists, owner = together.execute()
        return run_id if exists or owner is None else cast("str", owner)

    def create(self, record: RunRecord) -> bool:
        """Write down a new run, queued, before its message is published. False when that run id is there already."""
        run_id, at = record.run_id, round(record.submitted_at, 3)
        of_run = (keys.run_record, keys.run_state, keys.run_events)
        told = {"type": "queued", "at": at, "name": record.name, "model": record.model, "n": 1, "fraction": 0}
        hashed = {"name": record.name, "model": record.model, "submitted_at": f"{at:.3f}", "updated_at": f"{at:.3f}"}
        flat = [part for field in hashed.items() for part in field]
        event = json.dumps(told, ensure_ascii=False)
        return bool(
            self._create(
                keys=[
                    *(key(run_id) for key in of_run),
                    keys.RUNS,
                    keys.OPEN_RUNS,
                    keys.QUEUE_SLOTS,
                    keys.waiting(record.queue_slot),
                ],
                args=[run_id, record.to_json(), at, keys.MAX_RECENT, record.queue_slot, event, *flat],
            )
        )

    def record(self, run_id: str) -> RunRecord:
        """What was asked for. Raises RunNotFoundError, CorruptRecordError."""
        text = cast("str | None", self._redis.get(keys.run_record(run_id)))
        if text is None:
            raise RunNotFoundError(f"run {run_id}: there is no record of it; it never was, or it ended long ago")
        return RunRecord.from_json(run_id, text)

    def state(self, run_id: str) -> RunState | None:
        """How a run is going; None when Redis holds nothing of it. Raises CorruptRecordError."""
        fields = cast("dict[str, str]", self._redis.hgetall(keys.run_state(run_id)))
        return RunState.parse(run_id, fields) if "state" in fields else None

    def recent(self, limit: int = 20) -> list[RunState]:
        """The runs submitted last, the newest first."""
        return self.states(cast("list[str]", self._redis.zrange(keys.RUNS, 0, limit - 1, desc=True)))

    def count_open(self) -> int:
        """How many runs have no end yet: those that wait and those that run."""
        return self._redis.zcard(keys.OPEN_RUNS)

    def request_cancel(self, run_id: str) -> bool:
        """Ask a run to stop; a queued one is cancelled at once. False when it has ended. Raises RunNotFoundError."""
        state = self._cancel(keys=[keys.run_state(run_id), keys.run_cancel(run_id)])
        if state is None:
            raise RunNotFoundError(f"run {run_id}: there is no such run, or it ended long ago")
        if state == "queued":
            Progress(self._redis, run_id, ttl_s=self._ttl_s, clock=self._clock).finish("cancelled", only_from="queued")
        return state in {"queued", "running"}

    def cancel_requested(self, run_id: str) -> bool:
        """Whether someone asked for the run to stop."""
        return bool(self._redis.exists(keys.run_cancel(run_id)))

    def count_attempt(self, run_id: str, committed: int) -> int:
        """Note that the run is started with so many steps `committed`; how often in a row without a new one."""
        return cast("int", self._attempt(keys=[keys.run_state(run_id)], args=[committed]))

    def refund_attempt(self, run_id: str) -> None:
        """The attempt under way was given up for no fault of the run's."""
        self._redis.hincrby(keys.run_state(run_id), "attempts", -1)

    def reopen(self, run_id: str) -> bool:
        """Let a failed or cancelled run wait again, to go on after its last committed step. Publish its message then.

        False when it waits or runs already, or succeeded. Raises RunNotFoundError.
        """
        record = self.record(run_id)
        of_run = (keys.run_state, keys.run_cancel, keys.run_record, keys.run_events)
        indexes = [keys.OPEN_RUNS, keys.QUEUE_SLOTS, keys.waiting(record.queue_slot)]
        reopened = self._reopen(keys=[*(key(run_id) for key in of_run), *indexes], args=[run_id, record.queue_slot])
        if reopened:
            Progress(self._redis, run_id, ttl_s=self._ttl_s, clock=self._clock).queued(
                name=record.name, model=record.model
            )
        return bool(reopened)

    def announce(self, name: str, spec: str) -> None:
        """A worker serves the model `name`; `spec` is what clients need to know of it, as JSON."""
        with self._redis.pipeline() as together:
            together.hset(keys.MODELS, name, spec)
            together.expire(keys.MODELS, keys.MODELS_TTL_S)
            together.execute()

    def models(self) -> dict[str, str]:
        """The specs, as JSON, of the models that workers announced, by name."""
        return cast("dict[str, str]", self._redis.hgetall(keys.MODELS))

    def states(self, run_ids: Sequence[str]) -> list[RunState]:
        """How these runs are going; those of which Redis holds nothing are left out."""
        with self._redis.pipeline(transaction=False) as together:
            for run_id in run_ids:
                together.hgetall(keys.run_state(run_id))
            found: list[dict[str, Any]] = together.execute()
        states = []
        for run_id, fields in zip(run_ids, found, strict=True):
            try:
                states += [RunState.parse(run_id, fields)] if "state" in fields else []
            except CorruptRecordError as error:
                log.warning("%s; it is not listed", error)
        return states

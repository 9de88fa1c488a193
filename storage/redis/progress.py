"""Publishes the events of a run to Redis, with the state that follows from each, in one round trip."""

import json
import secrets
import threading
import time
from collections.abc import Callable
from typing import Final

from redis import Redis

from storage import keys
from storage.events import (
    ArtifactStored,
    Cancelled,
    Denoised,
    Failed,
    Queued,
    RunEvent,
    Started,
    StepEvent,
    Succeeded,
)
from storage.redis.state import State

# KEYS: state, events, cancel flag, record, runs without an end, lease, preview.
# ARGV: run id, time to live, stream length, the state it must have (or ''), new state (or ''), fraction (or ''),
#       event (JSON object, or ''), writer, number of this write, the step and the key of the artifact that is told
#       (or ''), the token of the lease that the teller has, or had (or ''), the preview that belongs to the event
#       (or ''), then field, value, ... of the hash.
# Of previews the last alone is kept, with the number of its event: hundreds of them would outweigh all else of a run.
# Artifacts are told in the order of their steps, each once: `told` is the last step and its keys, a space after each.
# Returns 1; 0 when the run has another state than it must have, a final one, or another owner: then nothing was
# written. A write that is repeated because its answer was lost is known by its number, and not made twice. One that was
# on its way while its worker was cut off comes late, when another owns the run and tells it.
_WRITE: Final = """
local final = {succeeded = true, failed = true, cancelled = true}
if redis.call('HGET', KEYS[1], 'writer') == ARGV[8] then
  if tonumber(ARGV[9]) <= tonumber(redis.call('HGET', KEYS[1], 'written')) then return 1 end
end
local state = redis.call('HGET', KEYS[1], 'state')
if (state and final[state]) or (ARGV[4] ~= '' and state ~= ARGV[4]) then return 0 end
if ARGV[12] ~= '' then
  local owner = redis.call('GET', KEYS[6])
  if owner and owner ~= ARGV[12] then return 0 end
end
if ARGV[11] ~= '' then
  local told = redis.call('HGET', KEYS[1], 'told') or '0 '
  local last = tonumber(string.match(told, '^%d+'))
  if last > tonumber(ARGV[10]) then return 1 end
  if last < tonumber(ARGV[10]) then told = ARGV[10] .. ' ' end
  if string.find(told, ' ' .. ARGV[11] .. ' ', 1, true) then return 1 end
  redis.call('HSET', KEYS[1], 'told', told .. ARGV[11] .. ' ')
end
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'state', ARGV[5]) end
local fraction = redis.call('HGET', KEYS[1], 'fraction') or '0'
if ARGV[6] ~= '' and tonumber(ARGV[6]) > tonumber(fraction) then fraction = ARGV[6] end
redis.call('HSET', KEYS[1], 'fraction', fraction)
redis.call('HSET', KEYS[1], 'writer', ARGV[8], 'written', ARGV[9])
for i = 14, #ARGV, 2 do
  if ARGV[i] == 'started_at' then redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1])
  else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
if ARGV[7] ~= '' then
  local n = redis.call('HINCRBY', KEYS[1], 'events', 1)
  local event = string.sub(ARGV[7], 1, -2) .. ',"n":' .. n .. ',"fraction":' .. fraction .. '}'
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'event', event)
  if ARGV[13] ~= '' then redis.call('SET', KEYS[7], n .. ' ' .. ARGV[13], 'EX', ARGV[2]) end
end
redis.call('EXPIRE', KEYS[2], ARGV[2])
if final[ARGV[5]] then
  redis.call('ZREM', KEYS[5], ARGV[1])
  redis.call('DEL', KEYS[7])
  for i = 1, 4 do redis.call('EXPIRE', KEYS[i], ARGV[2]) end
end
return 1
"""


class Progress:
    """Publishes the events of one run. Safe to share between threads.

    Args:
        redis: a client with decode_responses.
        run_id: the run.
        ttl_s: how long Redis keeps the run after its end.
        max_events: about how many events the stream keeps.
        owner: the token of a worker's lease; once another worker has the run, nothing more is stored.
        clock: unix seconds.
    """

    def __init__(
        self,
        redis: Redis,
        run_id: str,
        *,
        ttl_s: int = keys.RUN_TTL_S,
        max_events: int = keys.MAX_EVENTS,
        owner: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.run_id = run_id
        self._ttl_s = ttl_s
        self._max_events = max_events
        self._owner = owner
        self._clock = clock
        self._writer = secrets.token_hex(8)
        self._lock = threading.Lock()  # writes are numbered in the order in which they arrive in Redis
        self._written = 0
        self._script = redis.register_script(_WRITE)
        of_run = (keys.run_state, keys.run_events, keys.run_cancel, keys.run_record)
        self._keys = [
            *(key(run_id) for key in of_run),
            keys.OPEN_RUNS,
            keys.run_lease(run_id),
            keys.run_preview(run_id),
        ]

    def publish(self, event: RunEvent, *, only_from: State | None = None) -> bool:
        """Store an event and update the run's state from it. False when nothing was stored, as after the run's end.

        An artifact that was published before is not published again. The run's fraction never decreases.

        Args:
            event: the event; its `id`, `n` and `at` are set here.
            only_from: the state that the run must be in.
        """
        now = round(self._clock(), 3)
        state, fields = _state_of(event, f"{now:.3f}")
        fields["updated_at"] = f"{now:.3f}"
        preview = event.preview if isinstance(event, Denoised) else None
        artifact = (event.step, event.key) if isinstance(event, ArtifactStored) else ("", "")
        with self._lock:
            self._written += 1
            args = (
                *(self.run_id, self._ttl_s, self._max_events, only_from or "", state or ""),
                f"{min(max(event.fraction, 0.0), 1.0):.6f}",
                _stored(event, now),
                *(self._writer, self._written, *artifact, self._owner, preview or ""),
                *(part for field in fields.items() for part in field),
            )
            return bool(self._script(keys=self._keys, args=args))


def _state_of(event: RunEvent, now: str) -> tuple[State | None, dict[str, str | int]]:
    """The state into which an event puts its run, if it does, and the fields of the run's hash that it sets."""
    match event:
        case Queued():
            return "queued", {}
        case Started(name=name, model=model, steps=steps, done=done):
            about: dict[str, str | int] = {"name": name, "model": model, "steps": steps, "step": done}
            return "running", {**about, "started_at": now, "error": ""}
        case StepEvent(step=step, eta_s=eta_s):
            return None, {"step": step} if eta_s is None else {"step": step, "eta_s": f"{eta_s:.1f}"}
        case Succeeded() | Failed() | Cancelled():
            error = event.error if isinstance(event, Failed) else ""
            manifest = event.manifest if isinstance(event, Succeeded) else ""
            return event.type, {"finished_at": now, "error": error, "manifest": manifest, "eta_s": ""}
        case _:
            return None, {}


def _stored(event: RunEvent, now: float) -> str:
    """The event as its stream holds it: the script adds `n` and `fraction`, and keeps the last preview apart."""
    document = {name: value for name, value in event.to_document().items() if name not in {"id", "n", "fraction"}}
    document["at"] = now
    if "preview" in document:
        document["preview"] = True
    return json.dumps(document, ensure_ascii=False)

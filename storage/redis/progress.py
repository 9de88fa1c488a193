"""How a run is going, told to Redis: each call is one script and one round trip, all of it or nothing.

Events, in the order in which a run has them, with their fields beside `type`, `n` and `at`:

    queued      name, model
    loading     done, total               while a worker loads the model
    started     name, model, steps, done  `done`: steps that were committed before (a resumed run)
    step        step, kind, ...           a step begins; a resumed run begins its step again
    text        step, delta               a part of the text being written
    denoised    step, done, total, preview?   `preview`: a small image as data: URI, of the last such event alone
    judged      step, question, answer, scores   those so far, of the images just drawn
    artifact    step, role, key, url, size, sha256, ...   stored for good
    log         level, message
    succeeded   manifest
    failed      error
    cancelled
"""

import json
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from redis import Redis

from storage import keys
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
    """Writes how one run is going. Safe to share between threads.

    Every method returns whether it was written: once a run has a final state nothing changes it any more.

    Args:
        redis: a client with decode_responses.
        run_id: the run.
        ttl_s: how long all of it stays after the run's end.
        max_events: about how many events the stream keeps.
        owner: the token of our lease, for a worker: once another worker has the run, nothing of ours is written.
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
        self._lock = threading.Lock()  # writes are numbered in the order in which they are made
        self._written = 0
        self._script = redis.register_script(_WRITE)
        of_run = (keys.run_state, keys.run_events, keys.run_cancel, keys.run_record)
        self._keys = [
            *(key(run_id) for key in of_run),
            keys.OPEN_RUNS,
            keys.run_lease(run_id),
            keys.run_preview(run_id),
        ]

    def queued(self, *, name: str = "", model: str = "") -> bool:
        """The run waits for a worker: again, after its worker died or gave it back."""
        return self._write("queued", {"name": name, "model": model}, state="queued")

    def started(self, *, name: str, model: str, steps: int, done: int = 0) -> bool:
        """A worker runs it, with `done` of its `steps` committed before."""
        fields = {"name": name, "model": model, "steps": steps}
        hashed = {**fields, "step": done, "started_at": f"{self._clock():.3f}", "error": ""}
        return self._write("started", {**fields, "done": done}, state="running", hashed=hashed)

    def advance(self, step: int, fraction: float, *, eta_s: float | None = None) -> bool:
        """How far it is, without an event. A fraction lower than before is taken as no change."""
        return self._write(None, {}, fraction=fraction, hashed=_position(step, eta_s))

    def event(
        self,
        type: str,  # noqa: A002 - the field's name
        *,
        step: int | None = None,
        fraction: float | None = None,
        eta_s: float | None = None,
        **fields: Any,
    ) -> bool:
        """Something happened. With `fraction` or `eta_s`, `advance` in the same go."""
        told = fields if step is None else {"step": step, **fields}
        return self._write(type, told, fraction=fraction, hashed=_position(step, eta_s))

    def artifact(self, *, step: int, role: str, key: str, url: str, size: int, sha256: str, **fields: Any) -> bool:
        """A text or image is stored for good. Told again, by who can't know whether it was, it is still told once."""
        told = {"step": step, "role": role, "key": key, "url": url, "size": size, "sha256": sha256, **fields}
        return self._write("artifact", told, hashed=_position(step, None), artifact=(step, key))

    def finish(
        self, state: State, *, error: str | None = None, manifest: str | None = None, only_from: State | None = None
    ) -> bool:
        """The run has its end: succeeded, failed or cancelled; with `only_from`, if it has that state till now."""
        hashed = {"finished_at": f"{self._clock():.3f}", "error": error or "", "manifest": manifest or "", "eta_s": ""}
        fraction = 1.0 if state == "succeeded" else None
        told = {name: value for name, value in (("error", error), ("manifest", manifest)) if value is not None}
        return self._write(state, told, state=state, fraction=fraction, hashed=hashed, only_from=only_from)

    def _write(
        self,
        type: str | None,  # noqa: A002 - as above
        told: dict[str, Any],
        *,
        state: State | None = None,
        fraction: float | None = None,
        hashed: dict[str, Any] | None = None,
        only_from: State | None = None,
        artifact: tuple[int | str, str] = ("", ""),
    ) -> bool:
        now = round(self._clock(), 3)
        preview = told.get("preview", "")
        kept = {**told, "preview": True} if preview else told
        event = "" if type is None else json.dumps({"type": type, "at": now, **kept}, ensure_ascii=False)
        fields = {**(hashed or {}), "updated_at": f"{now:.3f}"}
        flat = [str(part) for field in fields.items() for part in field]
        limits: tuple[str | int, ...] = (self.run_id, self._ttl_s, self._max_events)
        share = "" if fraction is None else f"{min(max(fraction, 0.0), 1.0):.6f}"
        args: list[str | int] = [*limits, only_from or "", state or "", share, event]
        with self._lock:
            self._written += 1
            told_by = (self._writer, self._written, *artifact, self._owner)
            return bool(self._script(keys=self._keys, args=[*args, *told_by, preview, *flat]))


def _position(step: int | None, eta_s: float | None) -> dict[str, str]:
    position = {"step": step, "eta_s": None if eta_s is None else f"{eta_s:.1f}"}
    return {name: str(value) for name, value in position.items() if value is not None}

"""Publishes the events of a run to Redis; each also updates the run's state in the same round trip."""

import json
import secrets
import threading
import time
from collections.abc import Callable
from typing import cast

from redis import Redis

from storage import keys
from storage.errors import RunForgottenError
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
from storage.redis.scripts import Arguments, load_script
from storage.redis.state import State

_FORGOTTEN = -1
_RECORD, _START = "submitted_at", "started_at"
"""Fields of the hash that a run has since its record was written, and since it was started."""


class Progress:
    """Publishes the events of one run. Safe to share between threads.

    Args:
        redis: a client with decode_responses.
        run_id: the run.
        ttl_s: how long Redis keeps the run after its end.
        max_events: the approximate number of events that the stream keeps.
        owner: the token of a worker's lease; nothing is stored once another worker has the run. Without it, the end
            of a run is stored only if neither Redis nor a worker has the run, or with `only_from="queued"`.
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
        self._redis = redis
        self._ttl_s = ttl_s
        self._max_events = max_events
        self._owner = owner
        self._clock = clock
        self._writer = secrets.token_hex(8)
        self._lock = threading.Lock()  # writes must arrive in Redis in the order of their numbers
        self._written = 0
        self._must_have = ""
        self._script = load_script(redis, "progress")
        self._keys = {
            "state": keys.run_state(run_id),
            "events": keys.run_events(run_id),
            "cancel": keys.run_cancel(run_id),
            "record": keys.run_record(run_id),
            "names": keys.run_names(run_id),
            "open_runs": keys.OPEN_RUNS,
            "lease": keys.run_lease(run_id),
            "last_preview": keys.run_preview(run_id),
        }

    def publish(self, event: RunEvent, *, only_from: State | None = None) -> bool:
        """Store an event and update the run's state. False when nothing was stored, such as after the run's end.

        An artifact is published only once. The run's fraction never decreases. Raises RunForgottenError when Redis
        has lost the run since `expect_record`, or since its start was published here.

        Args:
            event: the event; its `id`, `n` and `at` are set here.
            only_from: the state that the run must be in.
        """
        now = round(self._clock(), 3)
        state, fields = _state_of(event, f"{now:.3f}")
        fields["updated_at"] = f"{now:.3f}"
        preview = event.preview if isinstance(event, Denoised) else None
        step, key = (event.step, event.key) if isinstance(event, ArtifactStored) else ("", "")
        args: Arguments = {
            "run_id": self.run_id,
            "ttl_s": self._ttl_s,
            "max_events": self._max_events,
            "only_from": only_from or "",
            "new_state": state or "",
            "fraction": f"{min(max(event.fraction, 0.0), 1.0):.6f}",
            "event": _stored(event, now),
            "writer": self._writer,
            "step": step,
            "key": key,
            "owner": self._owner,
            "preview": preview or "",
            "fields": fields,
        }
        with self._lock:
            self._written += 1
            args = {**args, "number": self._written, "must_have": self._must_have}
            answer = self._script(keys=self._keys, args=args)
            if answer == _FORGOTTEN:
                raise RunForgottenError(f"run {self.run_id}: Redis has lost it")
            if isinstance(event, Started):
                self._must_have = _START
        return bool(answer)

    def expect_record(self) -> None:
        """From now on, publish nothing for a run that Redis does not have."""
        self._must_have = _RECORD

    def start_over(self) -> bool:
        """Whether Redis does not have the start of the run. If so, anything may be published next."""
        with self._lock:
            is_lost = not self._redis.hexists(keys.run_state(self.run_id), _START)
            if is_lost:
                self._must_have = ""
        return is_lost

    def first_unpublished(self) -> int:
        """The first step of which an artifact may not have been published yet."""
        published = cast("str | None", self._redis.hget(keys.run_state(self.run_id), "told"))
        return int(published.split(" ", 1)[0]) if published else 1


def _state_of(event: RunEvent, now: str) -> tuple[State | None, dict[str, str | int]]:
    """The new state of the run, if the event changes it, and the fields of the run's hash that it sets."""
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
    """The event for the stream: the script adds `n` and `fraction`, and stores the preview separately."""
    document = {name: value for name, value in event.to_document().items() if name not in {"n", "fraction"}}
    document["at"] = now
    if "preview" in document:
        document["preview"] = True
    return json.dumps(document, ensure_ascii=False)

"""The runs in Redis: creates, lists, cancels and reopens them, and counts their attempts."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from redis import Redis
from redis.exceptions import ResponseError

from storage import keys
from storage.errors import CorruptRecordError, RunNotFoundError
from storage.events import Cancelled, Queued
from storage.redis.outage import is_damage
from storage.redis.progress import Progress
from storage.redis.record import RunRecord
from storage.redis.scripts import Arguments, load_script
from storage.redis.state import RunState

log = logging.getLogger(__name__)


class Runs:
    """The runs in one Redis. Each method takes one or two round trips.

    Args:
        redis: a client with decode_responses.
        ttl_s: how long Redis keeps an idempotency key without a run, and a run that is cancelled here.
        clock: unix seconds.
    """

    def __init__(self, redis: Redis, *, ttl_s: int = keys.RUN_TTL_S, clock: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._ttl_s = ttl_s
        self._clock = clock
        self._claim_key = load_script(redis, "claim_key")
        self._create_run = load_script(redis, "create_run")
        self._request_cancel = load_script(redis, "request_cancel")
        self._count_attempt = load_script(redis, "count_attempt")
        self._refund_attempt = load_script(redis, "refund_attempt")
        self._owed: dict[str, int] = {}  # run id -> the committed steps of an attempt to refund
        self._count_fault = load_script(redis, "count_fault")
        self._reopen_run = load_script(redis, "reopen_run")

    def claim_key(self, key: str, run_id: str) -> str:
        """Claim an idempotency key for a run. Returns the id of the run that owns it, another one if that was first.

        Create the run under the returned id in either case: the first caller may have died before it did. Redis keeps
        the key as long as the run.
        """
        return self._claim(keys.idempotency(key), keys.check_run_id(run_id))

    def add_alias(self, alias: str, run_id: str) -> None:
        """Make `alias`, the id of a message with the idempotency key of `run_id`, another name of that run."""
        self._claim(keys.run_alias(alias), run_id)

    def _claim(self, key: str, run_id: str) -> str:
        args: Arguments = {"run_id": run_id, "ttl_s": self._ttl_s, "run_prefix": keys.RUN_PREFIX}
        return cast("str", self._claim_key(keys={"key": key}, args=args))

    def resolve_alias(self, run_id: str) -> str:
        """`run_id`, or the run of which it is an alias if it does not exist itself."""
        with self._redis.pipeline(transaction=False) as together:
            together.exists(keys.run_state(run_id))
            together.get(keys.run_alias(run_id))
            exists, owner = together.execute()
        return run_id if exists or owner is None else cast("str", owner)

    def create(self, record: RunRecord) -> bool:
        """Create a run in the state queued, before its message is published. False when the run exists already."""
        at = round(record.submitted_at, 3)
        args: Arguments = {
            "run_id": record.run_id,
            "document": record.to_json(),
            "submitted_at": at,
            "max_recent": keys.MAX_RECENT,
            "queue_slot": record.queue_slot,
            "idempotency_key": keys.idempotency(record.idempotency_key) if record.idempotency_key else "",
            "event": Queued(n=1, at=at, name=record.name, model=record.model).to_json(),
            "fields": {
                "name": record.name,
                "model": record.model,
                "submitted_at": f"{at:.3f}",
                "updated_at": f"{at:.3f}",
            },
        }
        return bool(self._create_run(keys={**_keys_of_queued(record), "runs": keys.RUNS}, args=args))

    def record(self, run_id: str) -> RunRecord:
        """The record of a run. Raises RunNotFoundError, CorruptRecordError, NewerRecordError."""
        text = cast("str | None", self._redis.get(keys.run_record(run_id)))
        if text is None:
            raise RunNotFoundError(f"run {run_id}: it has no record; it never existed, or it ended long ago")
        return RunRecord.from_json(run_id, text)

    def state(self, run_id: str) -> RunState | None:
        """The state of a run; None if Redis does not have it. Raises CorruptRecordError."""
        fields = cast("dict[str, str]", self._redis.hgetall(keys.run_state(run_id)))
        return RunState.parse(run_id, fields) if "state" in fields else None

    def recent(self, limit: int = 20) -> list[RunState]:
        """The states of the latest runs, the newest first."""
        return self.states(self._newest(keys.RUNS, limit))

    def find(self, prefix: str) -> list[str]:
        """The ids that begin with `prefix`, the newest first, of the latest MAX_RECENT runs and as many open ones."""
        known = dict.fromkeys(
            [*self._newest(keys.RUNS, keys.MAX_RECENT), *self._newest(keys.OPEN_RUNS, keys.MAX_RECENT)]
        )
        return [run_id for run_id in known if run_id.startswith(prefix)]

    def _newest(self, index: str, limit: int) -> list[str]:
        return cast("list[str]", self._redis.zrange(index, 0, limit - 1, desc=True))

    def count_open(self) -> int:
        """The number of runs that have not ended."""
        return self._redis.zcard(keys.OPEN_RUNS)

    def request_cancel(self, run_id: str) -> bool:
        """Ask a run to stop; a queued one is cancelled at once. False when it has ended. Raises RunNotFoundError."""
        state = self._request_cancel(keys={"state": keys.run_state(run_id), "cancel": keys.run_cancel(run_id)})
        if state is None:
            raise RunNotFoundError(f"run {run_id}: there is no such run, or it ended long ago")
        if state == "queued":
            self._progress(run_id).publish(Cancelled(), only_from="queued")
        return state in {"queued", "running"}

    def cancel_requested(self, run_id: str) -> bool:
        """Whether a cancel of the run was requested."""
        return bool(self._redis.exists(keys.run_cancel(run_id)))

    def count_attempt(self, run_id: str, committed: int) -> int:
        """Count an attempt at the run. Returns the number of attempts in a row without a new committed step.

        Refunds what is owed first.
        """
        for owed_id, owed_committed in list(self._owed.items()):
            try:
                self.refund_attempt(owed_id, owed_committed)
            except ResponseError as error:  # a damaged run must not stop this one
                if not is_damage(error):
                    raise
            del self._owed[owed_id]
        attempts = self._count_attempt(keys={"state": keys.run_state(run_id)}, args={"committed_steps": committed})
        return cast("int", attempts)

    def count_fault(self, run_id: str) -> int:
        """Count a fault of a worker that served the run, or a claim that it lost.

        Returns the number in a row without a new committed step.
        """
        return cast("int", self._count_fault(keys={"state": keys.run_state(run_id)}))

    def refund_attempt(self, run_id: str, committed: int) -> None:
        """Uncount an attempt that was counted with `committed` and did not end because of the run."""
        self._refund_attempt(keys={"state": keys.run_state(run_id)}, args={"committed_steps": committed})

    def owe_refund(self, run_id: str, committed: int) -> None:
        """Refund an attempt later, with the next attempt that this process counts: Redis can't be used now."""
        self._owed[run_id] = committed

    def reopen(self, run_id: str) -> bool:
        """Queue a failed or cancelled run again, to continue after its last committed step.

        The caller then publishes its message. False when the run has not ended, or succeeded. Raises
        RunNotFoundError, CorruptRecordError, NewerRecordError.
        """
        record = self.record(run_id)
        args = {"run_id": run_id, "queue_slot": record.queue_slot}
        reopened = self._reopen_run(keys={**_keys_of_queued(record), "cancel": keys.run_cancel(run_id)}, args=args)
        if reopened:
            self._progress(run_id).publish(Queued(name=record.name, model=record.model))
        return bool(reopened)

    def _progress(self, run_id: str) -> Progress:
        return Progress(self._redis, run_id, ttl_s=self._ttl_s, clock=self._clock)

    def announce(self, name: str, spec: str, spec_0_1: str) -> None:
        """Announce a model that a worker serves, with its ModelSpec as JSON and as release 0.1.0 reads it."""
        with self._redis.pipeline() as together:
            for key, announced in ((keys.SPECS, spec), (keys.MODELS, spec_0_1)):
                together.hset(key, name, announced)
                together.expire(key, keys.MODELS_TTL_S)
            together.execute()

    def models(self) -> dict[str, str]:
        """The models that workers announced: name -> ModelSpec as JSON."""
        with self._redis.pipeline(transaction=False) as together:
            together.hgetall(keys.MODELS)
            together.hgetall(keys.SPECS)
            by_0_1, current = together.execute()
        return {**by_0_1, **current}

    def states(self, run_ids: Sequence[str]) -> list[RunState]:
        """The states of these runs, except those that Redis does not have or whose state is corrupt."""
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


def _keys_of_queued(record: RunRecord) -> dict[str, str]:
    """The keys that are written when a run is queued."""
    return {
        "record": keys.run_record(record.run_id),
        "state": keys.run_state(record.run_id),
        "events": keys.run_events(record.run_id),
        "names": keys.run_names(record.run_id),
        "open_runs": keys.OPEN_RUNS,
        "queue_slots": keys.QUEUE_SLOTS,
        "waiting": keys.waiting(record.queue_slot),
    }

"""The live workers: each announces what it serves and does, and expires when it stops announcing."""

import json
import logging
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, TypeAlias, get_args

from redis import Redis

from storage import keys
from storage.errors import CorruptRecordError
from storage.redis.scripts import load_script
from storage.redis.state import reading

log = logging.getLogger(__name__)

ANNOUNCE_INTERVAL_S: Final = 5.0
"""Time between two announcements of a worker."""
ANNOUNCE_TTL_S: Final = 20.0
"""How long a worker that announces nothing is still listed."""
UNHEALTHY_TTL_S: Final = 600.0
"""How long a worker that ended as unhealthy stays listed, so that an operator can read why."""

WorkerState: TypeAlias = Literal["starting", "idle", "busy", "draining", "unhealthy"]
"""A worker that is starting loads its model, or loads it again in a new process, and takes no run yet."""


@dataclass(frozen=True, kw_only=True)
class WorkerInfo:
    """What a worker announces."""

    name: str
    """Celery's name of the worker: `celery@host`."""
    model: str
    model_sha256: str | None = None
    """The model's fingerprint."""
    device: str = ""
    """The configured torch device, or GPUs; `auto` when torch chooses."""
    state: WorkerState = "idle"
    reason: str = ""
    """Why it is unhealthy."""
    run_id: str | None = None
    """The run that it serves."""
    since: float = 0.0
    """When it entered this state or began this run, in unix seconds."""
    pid: int = 0
    version: str = ""
    """The release of its program."""

    @property
    def serves(self) -> bool:
        """Whether it takes runs, now, after its current one or once its model is loaded."""
        return self.state in {"starting", "idle", "busy"}

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(name: str, text: str) -> "WorkerInfo":
        """The announcement of the worker `name`; unknown fields are ignored. Raises CorruptRecordError."""
        with reading(f"worker {name!a}: its announcement"):
            document: dict[str, Any] = json.loads(text)
            info = WorkerInfo(**{one.name: document[one.name] for one in fields(WorkerInfo) if one.name in document})
            if info.state not in get_args(WorkerState):
                raise ValueError(f"state is {info.state!a:.80}")
            texts = (info.name, info.model, info.device, info.reason, info.version, info.run_id or "")
            if not all(isinstance(one, str) for one in texts) or not isinstance(info.since, int | float):
                raise TypeError("a field has the wrong type")
            return info


class Workers:
    """The workers that are alive. Each method takes one or two round trips.

    Args:
        redis: a client with decode_responses.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._announce = load_script(redis, "announce_worker")

    def announce(self, info: WorkerInfo) -> None:
        """List the worker for ANNOUNCE_TTL_S, an unhealthy one for UNHEALTHY_TTL_S."""
        ttl_s = UNHEALTHY_TTL_S if info.state == "unhealthy" else ANNOUNCE_TTL_S
        self._announce(
            keys={"workers": keys.WORKERS, "expiries": keys.WORKER_EXPIRIES},
            args={
                "name": info.name,
                "info": info.to_json(),
                "ttl_ms": int(ttl_s * 1000),
                "key_ttl_ms": int(UNHEALTHY_TTL_S * 1000),
            },
        )

    def leave(self, name: str) -> None:
        """Remove a worker that ends."""
        with self._redis.pipeline() as together:
            together.zrem(keys.WORKER_EXPIRIES, name)
            together.hdel(keys.WORKERS, name)
            together.execute()

    def served_models(self) -> set[str]:
        """The models that live workers serve. A model that only release 0.1.0 announced counts."""
        with self._redis.pipeline(transaction=False) as together:
            together.hkeys(keys.MODELS)
            together.hkeys(keys.SPECS)
            by_any_release, by_this = together.execute()
        return {one.model for one in self.live() if one.serves} | (set(by_any_release) - set(by_this))

    def live(self) -> list[WorkerInfo]:
        """The workers whose announcement has not expired, by name. Leaves out corrupt announcements."""
        with self._redis.pipeline() as together:
            together.time()
            together.zrange(keys.WORKER_EXPIRIES, 0, -1, withscores=True)
            together.hgetall(keys.WORKERS)
            (seconds, microseconds), expiries, announced = together.execute()
        now_ms = seconds * 1000 + microseconds / 1000
        names = sorted(name for name, expires_at in expiries if expires_at > now_ms and name in announced)
        found = []
        for name in names:
            try:
                found.append(WorkerInfo.from_json(name, announced[name]))
            except CorruptRecordError as error:
                log.warning("%s; it is not listed", error)
        return found

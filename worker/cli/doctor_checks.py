"""The checks of `autoseq doctor`: the services, the workers and the model that a run needs."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from redis.exceptions import RedisError, ResponseError

from autosequence import check_origin
from core.model_folder import ModelFolderError
from storage import keys
from storage.errors import StorageError
from storage.objects.probe import probe
from storage.redis.dead_letters import DeadLetters
from worker.client import Client
from worker.connections import (
    ServiceUnavailableError,
    check_permissions,
    check_redis,
    connect_store,
    explain_s3_errors,
)
from worker.local.process import LocalServiceError
from worker.local.servers import describe_programs
from worker.serve.engine import SCRIPTED, Engine

UNKNOWN = "unknown: Redis does not report it"
"""A managed Redis may refuse INFO."""
DAY_S = 86_400


@dataclass(frozen=True, kw_only=True)
class Check:
    """The result of one check."""

    what: str
    problem: str | None = None
    """The problem and how to fix it; None if there is none."""
    fact: str = ""
    """What was found, if there is no problem."""


def examine(client: Client) -> Iterator[Check]:
    """Run the checks in order. Those that need Redis or S3 run only if it answers."""
    yield _check("modules", lambda _client: check_origin(), client)
    redis = _check("Redis answers", _redis, client)
    yield redis
    if redis.problem is None:
        yield _check("Redis permissions", lambda client: check_permissions(client.redis), client)
        yield _check("Redis keeps its data", _persistence, client)
        yield _check("Redis evicts nothing", _eviction, client)
        yield _check("workers", _workers, client)
        yield _check("dead letters", _dead_letters, client)
    bucket = _check("S3 bucket", _bucket, client)
    yield bucket
    if bucket.problem is None:
        yield _check("S3 conditional writes", _conditional_puts, client)
    yield _check("model folder", _model if redis.problem else _model_here_or_served, client)
    yield _check("local servers", lambda _client: _local_servers(), client)


def _check(what: str, check: Callable[[Client], str], client: Client) -> Check:
    try:
        return Check(what=what, fact=check(client))
    except (_Problem, ServiceUnavailableError, RedisError, StorageError, ModelFolderError, ImportError) as error:
        return Check(what=what, problem=str(error))


class _Problem(Exception):  # noqa: N818 (it says what it is)
    """A service answers but is not set up as a run needs it."""


def _redis(client: Client) -> str:
    check_redis(client.redis)
    return f"version {_info(client, 'server', 'redis_version') or UNKNOWN}"


def _persistence(client: Client) -> str:
    enabled = _info(client, "persistence", "aof_enabled")
    if enabled == 0:
        raise _Problem("appendonly is off: a restart loses queued runs; set `appendonly yes`")
    return f"appendonly is {UNKNOWN if enabled is None else 'on'}"


def _eviction(client: Client) -> str:
    policy = _info(client, "memory", "maxmemory_policy")
    if policy not in {None, "noeviction"}:
        raise _Problem(f"maxmemory-policy is {policy}: a full Redis drops runs; set `maxmemory-policy noeviction`")
    return f"maxmemory-policy is {policy or UNKNOWN}"


def _info(client: Client, section: str, field: str) -> str | int | None:
    """A field of INFO; None if Redis does not report it."""
    try:
        found: str | int | None = client.redis.info(section).get(field)
    except ResponseError:
        return None
    return found


def _dead_letters(client: Client) -> str:
    count, newest = DeadLetters(client.redis).count(), client.dead_letters(1)
    if newest and time.time() - newest[0].at < DAY_S:
        raise _Problem(
            f"{count} set aside, the last within a day: {newest[0].reason}; read them with "
            f"Client.dead_letters, then delete {keys.DEAD_LETTERS} in Redis"
        )
    return f"{count} set aside"


def _bucket(client: Client) -> str:
    store = connect_store(client.config)
    try:
        with explain_s3_errors("S3 can't be used"):
            store.ensure_bucket()
            store.put("doctor", b"a put with its checksum", content_type="text/plain")
            store.delete("doctor")
    finally:
        store.close()
    return store.address("")


def _conditional_puts(client: Client) -> str:
    probe(client.objects)
    return "conditional puts work"


def _model(client: Client) -> str:
    try:
        spec = Engine(client.config).identified_spec()
    except ModelFolderError as error:
        raise _Problem(f"{error}; the model is set by AUTOSEQ_MODEL") from error
    return f"{spec.name}, fingerprint {spec.sha256}, images up to {spec.max_side_px} px"


def _model_here_or_served(client: Client) -> str:
    """As `_model`, but a missing folder is no problem if workers serve the model: they may run in containers."""
    folder, model = client.config.model, client.config.served_model
    if folder != SCRIPTED and not Path(folder).exists() and model in client.live_workers.served_models():
        return f"{folder} is not on this machine; workers serve {model}"
    return _model(client)


def _workers(client: Client) -> str:
    unhealthy = [f"{worker.name} is unhealthy: {worker.reason}" for worker in client.workers() if worker.reason]
    if unhealthy:
        raise _Problem("; ".join(unhealthy))
    served = sorted(client.live_workers.served_models())
    if not served:
        raise _Problem("no worker is running; start one with `autoseq worker`")
    return f"serve {', '.join(served)}"


def _local_servers() -> str:
    """The programs of `autoseq dev`; none are needed elsewhere."""
    try:
        return describe_programs()
    except LocalServiceError as error:
        return f"not installed ({error})"

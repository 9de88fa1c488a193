"""The checks of `autoseq doctor`: the services, the workers and the model that a run needs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from redis.exceptions import RedisError

from autosequence import check_origin
from core.model_folder import ModelFolderError
from storage.errors import StorageError
from storage.objects.probe import probe
from worker.client import Client
from worker.connections import ServiceUnavailableError, check_redis, connect_store, explain_s3_errors
from worker.serve.engine import SCRIPTED, Engine


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
        yield _check("Redis keeps its data", _persistence, client)
        yield _check("Redis evicts nothing", _eviction, client)
        yield _check("workers", _workers, client)
    bucket = _check("S3 bucket", _bucket, client)
    yield bucket
    if bucket.problem is None:
        yield _check("S3 conditional writes", _conditional_puts, client)
    yield _check("model folder", _model if redis.problem else _model_here_or_served, client)


def _check(what: str, check: Callable[[Client], str], client: Client) -> Check:
    try:
        return Check(what=what, fact=check(client))
    except (_Problem, ServiceUnavailableError, RedisError, StorageError, ModelFolderError, ImportError) as error:
        return Check(what=what, problem=str(error))


class _Problem(Exception):  # noqa: N818 (it says what it is)
    """A service answers but is not set up as a run needs it."""


def _redis(client: Client) -> str:
    check_redis(client.redis)
    return f"version {client.redis.info('server')['redis_version']}"


def _persistence(client: Client) -> str:
    if not client.redis.info("persistence")["aof_enabled"]:
        raise _Problem("appendonly is off: a restart loses queued runs; set `appendonly yes`")
    return "appendonly is on"


def _eviction(client: Client) -> str:
    policy = client.redis.info("memory")["maxmemory_policy"]
    if policy != "noeviction":
        raise _Problem(f"maxmemory-policy is {policy}: a full Redis drops runs; set `maxmemory-policy noeviction`")
    return "maxmemory-policy is noeviction"


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

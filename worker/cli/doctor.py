"""`autoseq doctor`: is everything there that a run needs, and if not, what helps?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from redis.exceptions import RedisError

from autosequence import check_origin
from core.model_folder import ModelFolderError
from storage.errors import StorageError
from storage.objects.probe import probe
from worker.client import Client
from worker.connections import ServiceUnavailableError, check_redis, connect_store, explain_s3_errors
from worker.serve.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was checked."""

    what: str
    problem: str | None = None
    """What is wrong, and what helps."""
    fact: str = ""
    """What there is, when nothing is wrong."""


def examine(client: Client) -> Iterator[Check]:
    """Check one thing after the other; what only Redis could tell, only where it answers."""
    yield _finding("the modules come from one place", lambda _client: check_origin(), client)
    redis = _finding("Redis answers", _redis, client)
    yield redis
    if redis.problem is None:
        yield _finding("Redis keeps its data", _persistence, client)
        yield _finding("Redis forgets nothing", _eviction, client)
        yield _finding("workers", _workers, client)
    bucket = _finding("the bucket can be used", _bucket, client)
    yield bucket
    if bucket.problem is None:
        yield _finding("the bucket keeps writers apart", _conditional_puts, client)
    yield _finding("the model folder", _model, client)


def _finding(what: str, check: Callable[[Client], str], client: Client) -> Check:
    try:
        return Check(what=what, fact=check(client))
    except (_Problem, ServiceUnavailableError, RedisError, StorageError, ModelFolderError, ImportError) as error:
        return Check(what=what, problem=str(error))


class _Problem(Exception):  # noqa: N818 (it says what it is)
    """Something is there but not as it must be."""


def _redis(client: Client) -> str:
    check_redis(client.redis)
    return f"version {client.redis.info('server')['redis_version']}"


def _persistence(client: Client) -> str:
    if not client.redis.info("persistence")["aof_enabled"]:
        raise _Problem("appendonly is off: a restart would lose queued runs; set `appendonly yes`")
    return "appendonly is on"


def _eviction(client: Client) -> str:
    policy = client.redis.info("memory")["maxmemory_policy"]
    if policy != "noeviction":
        raise _Problem(f"maxmemory-policy is {policy}: a full Redis would drop runs; set `maxmemory-policy noeviction`")
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
    return "conditional puts hold"


def _model(client: Client) -> str:
    try:
        spec = Engine(client.config).spec()
    except ModelFolderError as error:
        raise _Problem(f"{error}; the model is set by AUTOSEQ_MODEL") from error
    return f"{spec.name}, images up to {spec.max_side_px} px"


def _workers(client: Client) -> str:
    served = sorted(client.models())
    if not served:
        raise _Problem("none has announced a model; start one with `autoseq worker`")
    return f"have announced {', '.join(served)}"

"""Connections to Redis and S3 by the settings, and the errors when one can't be used."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis
from redis.exceptions import RedisError

from storage.errors import StoreRefusedError, StoreUnavailableError
from storage.objects.s3 import S3Settings, S3Store
from storage.redis.outage import OutageRetry
from storage.redis.probe import acl_rules, find_refusals
from storage.uploader import UploadLimits
from worker.settings import Settings

MAX_CONNECTIONS = 10_000
"""Connections of one Redis client. Each reader of a run holds one while it waits; redis-py's default limit is 100."""


class ServiceUnavailableError(RuntimeError):
    """Redis or S3 can't be reached or refuses access. The message names the server and the reason, never a password."""


@contextmanager
def explain_s3_errors(what: str) -> Iterator[None]:
    """Turn S3's outages and refusals into ServiceUnavailableError, which begins with `what` and names the settings."""
    try:
        yield
    except (StoreUnavailableError, StoreRefusedError) as error:
        raise ServiceUnavailableError(f"{what}: {error}; S3 is set by AUTOSEQ_S3_…") from error


def connect_redis(config: Settings, *, outage_timeout_s: float = 2.0) -> Redis:
    """A client of the Redis that holds the queue and the progress; it connects on first use.

    Failed calls are retried for `outage_timeout_s`. Raises ServiceUnavailableError for a bad URL.
    """
    try:
        return Redis.from_url(
            config.redis_url.get_secret_value(),
            decode_responses=True,
            socket_timeout=30,
            socket_connect_timeout=5,
            socket_keepalive=True,
            health_check_interval=25,
            retry=OutageRetry(outage_timeout_s),
            max_connections=MAX_CONNECTIONS,
        )
    except ValueError as error:  # its message does not repeat the given URL, which has the password
        raise ServiceUnavailableError(f"AUTOSEQ_REDIS_URL can't be used: {error}") from error


def check_redis(redis: Redis) -> None:
    """Raises ServiceUnavailableError when Redis does not answer."""
    try:
        redis.ping()
    except RedisError as error:
        raise ServiceUnavailableError(
            f"{_address(redis)} can't be used: {error}; it is set by AUTOSEQ_REDIS_URL"
        ) from error


def check_permissions(redis: Redis) -> str:
    """What the user of AUTOSEQ_REDIS_URL may do. Raises ServiceUnavailableError when a run needs more."""
    database = int(redis.connection_pool.connection_kwargs.get("db") or 0)
    refused = find_refusals(redis, database)
    if refused:
        raise ServiceUnavailableError(
            f"{_address(redis)} refuses {', '.join(refused)}; the user of AUTOSEQ_REDIS_URL needs at least the rules "
            f"{acl_rules(database)}"
        )
    return "keys, scripts and channels can be used"


def _address(redis: Redis) -> str:
    place = redis.connection_pool.connection_kwargs
    return f"Redis at {place.get('host', 'localhost')}:{place.get('port', 6379)}"


def connect_store(config: Settings, *, timeout_s: float = 20.0, attempts: int = 2) -> S3Store:
    """The bucket that holds the runs; each call is tried `attempts` times, with a timeout of `timeout_s` each."""
    return S3Store(
        S3Settings(
            bucket=config.s3_bucket,
            endpoint=config.s3_endpoint,
            access_key=config.s3_access_key.get_secret_value() if config.s3_access_key else None,
            secret_key=config.s3_secret_key.get_secret_value() if config.s3_secret_key else None,
            region=config.s3_region,
            public_endpoint=config.s3_public_endpoint,
            public_url=config.s3_public_url,
            url_ttl_s=config.s3_url_expires_s,
            checksums=config.s3_send_checksums,
            sse=config.s3_sse,
            sse_kms_key_id=config.s3_sse_kms_key_id,
            timeout_s=timeout_s,
            attempts=attempts,
        )
    )


def limits_of(config: Settings) -> UploadLimits:
    """The limits of the data that waits for its upload."""
    return UploadLimits(
        pending_bytes=config.pending_upload_bytes,
        spool_bytes=config.spool_bytes,
        spool_dir=config.spool_dir,
        outage_timeout_s=config.outage_timeout_s,
    )

"""The connections of a client, each opened on first use and closed with the client."""

from contextlib import ExitStack
from functools import cached_property
from types import TracebackType
from typing import Self

from celery import Celery
from kombu.connection import ConnectionPool
from redis import Redis

from recipes.model_spec import ModelSpec, ModelSpecError
from storage import keys
from storage.journal import Journal
from storage.objects import ObjectStore
from storage.redis.runs import Runs
from storage.redis.workers import Workers
from storage.sweeps import Sweeps
from worker.app import make_app
from worker.connections import ServiceUnavailableError, connect_redis, connect_store
from worker.settings import Settings

BROKER_CONNECTIONS = 4
"""Maximum number of threads of a client that publish at the same time; others wait."""


class Connections:
    """Redis, the bucket and the broker of `config`. Safe to share between threads.

    Close it when you are done, or use it as a context manager.
    """

    def __init__(self, config: Settings) -> None:
        self.config = config
        self._opened = ExitStack()

    def close(self) -> None:
        """Close every open connection."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def redis(self) -> Redis:
        redis = connect_redis(self.config)
        self._opened.callback(redis.close)
        return redis

    @cached_property
    def runs(self) -> Runs:
        return Runs(self.redis, ttl_s=self.config.keep_progress_s)

    @cached_property
    def live_workers(self) -> Workers:
        return Workers(self.redis)

    @cached_property
    def objects(self) -> ObjectStore:
        store = connect_store(self.config)
        self._opened.callback(store.close)
        return store

    @cached_property
    def sweeps(self) -> Sweeps:
        return Sweeps(self.objects, self.config.s3_prefix)

    @cached_property
    def app(self) -> Celery:
        return make_app(self.config, reads_results=False)

    @cached_property
    def broker(self) -> ConnectionPool:
        """The client's own connection pool: Celery's pools are shared by the process and can't be closed."""
        pool = self.app.connection_for_write().Pool(BROKER_CONNECTIONS)
        self._opened.callback(pool.force_close_all)
        return pool

    def journal(self, run_id: str) -> Journal:
        """The run's folder in the bucket."""
        return Journal(self.objects, self.config.s3_prefix, run_id)

    def models(self) -> dict[str, ModelSpec]:
        """The models that workers have announced, by name. Raises ServiceUnavailableError when a spec can't be read."""
        try:
            return {name: ModelSpec.from_json(spec) for name, spec in self.runs.models().items()}
        except ModelSpecError as error:
            where = f"{keys.SPECS} and {keys.MODELS} in Redis, which a worker of another release may have written"
            raise ServiceUnavailableError(f"the announced models can't be read from {where}: {error}") from error

"""The services of a worker process: its settings, Redis, the bucket and the model."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from redis import Redis

from storage.journal import Journal
from storage.objects.probe import probe
from storage.objects.s3 import S3Store
from storage.redis.runs import Runs
from storage.retry import RetryPolicy
from worker.connections import check_permissions, check_redis, connect_redis, connect_store, explain_s3_errors
from worker.serve.drain import DrainFlag
from worker.serve.engine import Engine
from worker.settings import Settings

log = logging.getLogger(__name__)

START_TIMEOUT_S = 20.0
"""How long the start waits for S3: a SeaweedFS that was just started accepts no writes at first."""


@dataclass(frozen=True, kw_only=True)
class WorkerRuntime:
    """The services of a worker process; it serves one run at a time with them."""

    config: Settings
    redis: Redis
    runs: Runs
    objects: S3Store
    engine: Engine
    drain: DrainFlag
    clock: Callable[[], float] = time.monotonic
    """Seconds; times the renewals of leases and the time limits."""

    @staticmethod
    def connect(config: Settings) -> "WorkerRuntime":
        """The services of the settings. Each connects on first use."""
        redis = connect_redis(config, outage_timeout_s=config.outage_timeout_s)
        return WorkerRuntime(
            config=config,
            redis=redis,
            runs=Runs(redis, ttl_s=config.keep_progress_s),
            # The claim repeats calls. A single call must end within a lease, so that a cancel does not wait long.
            objects=connect_store(config, timeout_s=max(5.0, config.lease_s / 2), attempts=1),
            engine=Engine(config),
            drain=DrainFlag.inherited(),
        )

    def close(self) -> None:
        """Close the connections."""
        self.redis.close()
        self.objects.close()

    def journal(self, run_id: str) -> Journal:
        """The run's folder in the bucket."""
        return Journal(self.objects, self.config.s3_prefix, run_id)

    def start(self) -> None:
        """Check everything that a run needs, before any run is taken, and announce the model.

        Raises:
            ServiceUnavailableError: Redis or S3 can't be used.
            ModelFolderError: the model can't be used.
            InvalidNameError: the prefix can't be part of a key.
        """
        self.journal("any")
        with connect_redis(self.config) as redis:  # its short outage timeout reports a missing Redis soon
            check_redis(redis)
            check_permissions(redis)
        spec = self.engine.identified_spec()
        retry = RetryPolicy(START_TIMEOUT_S, on_wait=lambda error, _pause_s: log.warning("waiting for S3: %s", error))
        with explain_s3_errors("S3 can't be used"):
            retry(self.objects.ensure_bucket)
            retry(lambda: probe(self.objects))
        self.runs.announce(spec.name, spec.to_json(), spec.to_json_0_1())

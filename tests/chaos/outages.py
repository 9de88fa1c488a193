"""What befalls the services of a campaign. They live with the main thread, so it is done there."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence

from redis import Redis

from tests.chaos import faults
from tests.chaos.faults import Fault
from tests.faults.proxy import FaultProxy
from worker.local.services import LocalServices


class Outages:
    """Breaks the services, and mends them.

    Args:
        services: real ones.
        redis: a client of theirs.
        proxies: one for each worker, on its way to S3.
        rng: chooses the worker that alone is refused.
    """

    def __init__(
        self, services: LocalServices, redis: Redis, proxies: Sequence[FaultProxy], rng: random.Random
    ) -> None:
        self._services = services
        self._redis = redis
        self._proxies = proxies
        self._rng = rng

    def suffer(self, fault: Fault) -> None:
        """The whole of one fault, until its end."""
        match fault.kind:
            case faults.REDIS_RESTART | faults.REDIS_OUTAGE:
                self._services.kill_redis()
                time.sleep(fault.lasts_s)
                self._services.restart_redis()
            case faults.REDIS_PAUSE:
                process = self._redis.info("server")["process_id"]
                os.kill(process, signal.SIGSTOP)
                time.sleep(fault.lasts_s)
                os.kill(process, signal.SIGCONT)
            case faults.S3_RESTART:
                self._services.kill_s3()
                self._services.restart_s3()
            case faults.S3_REFUSED:
                self._spoil([self._rng.choice(self._proxies)], "403", fault.lasts_s)
            case kind if kind in faults.REDIS_REFUSALS:
                with self._refusing(kind.rpartition(" ")[2]):
                    time.sleep(fault.lasts_s)
            case kind:
                self._spoil(self._proxies, kind.rpartition(" ")[2], fault.lasts_s)

    def _spoil(self, proxies: Sequence[FaultProxy], mode: str, lasts_s: float) -> None:
        for proxy in proxies:
            proxy.mode = mode  # type: ignore[assignment]  # one of its modes
        time.sleep(lasts_s)
        for proxy in proxies:
            proxy.mode = "clear"

    @contextlib.contextmanager
    def _refusing(self, code: str) -> Iterator[None]:
        """Redis refuses what writes, as a demoted primary, one without replicas, or a full one."""
        redis = self._redis
        if code == "READONLY":
            redis.replicaof("127.0.0.1", "1")  # where no one is: it keeps its data, and can be read
        elif code == "NOREPLICAS":
            redis.config_set("min-replicas-to-write", 1)
        else:
            redis.config_set("maxmemory", 1)
        try:
            yield
        finally:
            redis.replicaof("NO", "ONE")
            redis.config_set("min-replicas-to-write", 0)
            redis.config_set("maxmemory", 0)

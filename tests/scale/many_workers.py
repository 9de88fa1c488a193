"""What a fleet asks of one Redis while all its workers live, and when some are lost: in simulation, without workers."""

import itertools
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from core.scripted import SPEC
from storage.redis.lease import Lease
from storage.redis.reconcile import BATCH, Reconciler
from storage.redis.runs import Runs
from storage.redis.workers import ANNOUNCE_INTERVAL_S, WorkerInfo, Workers
from tests.scale.commands import asked
from tests.scale.fleet import fleet
from tests.scale.many_leases import DATABASE, fill, reconciler_of, start
from tests.worker.serving import config_of, env_of
from worker.client import Client
from worker.local.services import LocalServices
from worker.serve.claim import RENEWALS_PER_LEASE
from worker.settings import Settings

TIMES = 50
IDLE_WORKERS, IDLE_S = 2, 20.0


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What one operation costs."""

    name: str
    calls: Counter[str]
    """Its commands, those within scripts too."""
    round_trips: float
    ms: float
    """As the caller sees it; the median."""
    server_us: float
    """Processor time of Redis; the mean."""
    a_second: float = 0.0
    """How often all workers together do it."""


@dataclass(kw_only=True)
class Load:
    """What so many workers cost Redis, each of them serving a run, with so many runs waiting."""

    workers: int
    queued: int
    operations: list[Operation] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def calls(self) -> dict[str, Counter[str]]:
        """Operation -> its commands."""
        return {one.name: one.calls for one in self.operations}

    @property
    def redis_share(self) -> float:
        """The share of Redis's one thread that the workers' own operations take."""
        return sum(one.a_second * one.server_us for one in self.operations) / 1e6


def load_of(services: LocalServices, *, workers: int, queued: int, lost: int = BATCH) -> Load:
    """Measure with `workers` announced workers, of which `lost` are lost at once in the end, and `queued` runs."""
    load = Load(workers=workers, queued=queued)
    config = config_of(env_of(services, DATABASE))
    with Client(config) as client:
        fill(client.redis, leases=workers, waiting=queued)
        looks = reconciler_of(client)
        for name in _names(workers):
            _announce(client, name)
        _measure_life(client, looks, config, load)
        _measure_loss(client, looks, load, lost)
    return load


def _measure_life(client: Client, looks: Reconciler, config: Settings, load: Load) -> None:
    """What each worker does all the time."""
    redis, workers = client.redis, load.workers
    names = itertools.cycle(_names(workers))
    lease = start(redis, "renewed")
    other = Reconciler(redis, lambda _record: None, grace_s=config.lease_s)
    term_s, look_s = 3 * config.reconcile_interval_s, config.reconcile_interval_s
    looks.elect(term_s)
    elected_s, renewed_s = workers / look_s, workers * RENEWALS_PER_LEASE / config.lease_s
    load.operations += [
        _measured(client, "announce", lambda: _announce(client, next(names)), workers / ANNOUNCE_INTERVAL_S, load),
        _measured(client, "renew the lease", lease.renew, renewed_s, load),
        _measured(client, "ask for the election", lambda: other.elect(term_s), elected_s, load),
        _measured(client, "remain elected", lambda: looks.elect(term_s), 1 / look_s, load),
        _measured(client, "look, nothing lost", looks.requeue_lost, 1 / look_s, load),
        _measured(client, "list the workers", client.workers, 0.0, load),
    ]
    listed = [worker.name for worker in client.workers()]
    if listed != sorted(_names(workers)):
        load.faults.append(f"{len(listed)} of {workers} workers are listed")
    lease.release()
    looks.requeue_lost()


def _measure_loss(client: Client, looks: Reconciler, load: Load, lost: int) -> None:
    """The next look after a worker is lost, and after many are lost at once."""

    def leave(names: list[str]) -> Iterator[Lease]:
        for name in names:
            lease = start(client.redis, name)
            lease.release()
            yield lease

    for name, count in (("look, one lost", 1), (f"look, {lost} lost", lost)):
        victims = [f"lost-{count}-{number}" for number in range(count)]
        leases = list(leave(victims))
        found: list[str] = []
        load.operations.append(_measured(client, name, lambda: found.extend(looks.requeue_lost()), 0.0, load, times=1))  # noqa: B023
        if sorted(found) != sorted(victims):
            load.faults.append(f"a look finds {len(found)} of {len(leases)} lost runs")


def _measured(
    client: Client, name: str, call: Callable[[], object], a_second: float, load: Load, *, times: int = TIMES
) -> Operation:
    if times > 1:
        call()  # opens its connection, and teaches Redis its script
    took_ms = []
    with asked(client.redis) as counted:
        for _ in range(times):
            began = time.perf_counter()
            call()
            took_ms.append(1000 * (time.perf_counter() - began))
    load.faults += [f"{name}: asks for {command}" for command in counted.over_everything]
    return Operation(
        name=name,
        calls=Counter({command: count // times for command, count in counted.calls.items() if count >= times}),
        round_trips=counted.round_trips / times,
        ms=statistics.median(took_ms),
        server_us=1e6 * counted.server_s / times,
        a_second=a_second,
    )


def _names(workers: int) -> list[str]:
    return [f"celery@host-{number:04d}" for number in range(workers)]


def _announce(client: Client, name: str) -> None:
    """As the heartbeat of a worker does."""
    Workers(client.redis).announce(WorkerInfo(name=name, model=SPEC.name, state="busy", run_id="running", pid=1))
    Runs(client.redis).announce(SPEC.name, SPEC.to_json(), SPEC.to_json_0_1())


def idle_workers(services: LocalServices, folder: Path) -> Counter[str]:
    """What real workers without a run ask of Redis, the broker's own polling too: commands of one, in one hour."""
    env = env_of(services, DATABASE)
    with Client(config_of(env)) as client:
        client.redis.flushdb()
        with fleet(IDLE_WORKERS, env, folder), asked(client.redis) as counted:
            time.sleep(IDLE_S)
    hours = IDLE_WORKERS * IDLE_S / 3600
    return Counter({name: round(count / hours) for name, count in counted.calls.items()})

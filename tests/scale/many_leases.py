"""What it costs to look for lost runs, and to take one up, among many that live and many that wait."""

import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from storage import keys
from storage.events import Started
from storage.redis.lease import Lease
from storage.redis.progress import Progress
from storage.redis.reconcile import Reconciler
from storage.redis.record import RunRecord
from storage.redis.runs import Runs
from tests.scale.commands import Asked, asked
from tests.scale.many_runs import recipe_of
from tests.worker.serving import config_of, env_of
from worker.app import PRIORITIES, publish
from worker.client import Client
from worker.jobs.request import RunRequest
from worker.local.services import LocalServices
from worker.settings import queue_of

DATABASE = 0
CHUNK = 500
LOOKS = 50
LEASE_S = PATIENCE_S = 3_600.0
QUEUE = queue_of("scripted")
LINE = keys.queue_slot(QUEUE, PRIORITIES["normal"])


@dataclass(kw_only=True)
class Cost:
    """Of one look of a reconciler, among so many leases."""

    leases: int
    idle_ms: float = 0.0
    """A look that finds nothing; the median."""
    idle: Counter[str] = field(default_factory=Counter)
    """Its commands."""
    idle_server_us: float = 0.0
    """Processor time of Redis for one; the mean."""
    adoption_ms: float = 0.0
    """A look that finds one lapsed lease and queues that run again; the median."""
    adoption: Counter[str] = field(default_factory=Counter)
    adoption_server_us: float = 0.0
    faults: list[str] = field(default_factory=list)


def cost_among(services: LocalServices, *, leases: int, adoptions: int = 10) -> Cost:
    """Measure with `leases` live leases and as many waiting runs, each with its record, its state and its message.

    All of them are written by what writes them in service, many together in one round trip. Redis is emptied before.
    """
    cost = Cost(leases=leases)
    with Client(config_of(env_of(services, DATABASE))) as client:
        fill(client.redis, leases=leases, waiting=leases)
        victims = [start(client.redis, f"lapsed-{number}") for number in range(adoptions + 1)]
        looks = reconciler_of(client)
        _measure_idle(client.redis, looks, cost)
        _measure_adoption(client.redis, looks, cost, victims)
    return cost


def fill(redis: Redis, *, leases: int, waiting: int) -> None:
    """So many runs that workers have, and so many that wait, in a Redis that is emptied before."""
    redis.flushdb()
    for run_ids in _chunks("running", leases):
        with redis.pipeline(transaction=False) as together:
            for run_id in run_ids:
                start(together, run_id)
            together.execute()
    _wait_in_line(redis, [*_chunks("waiting", waiting)])


def reconciler_of(client: Client) -> Reconciler:
    """One that publishes through the client, and whose scripts Redis knows."""

    def publish_again(record: RunRecord) -> None:
        with client.broker.acquire(block=True) as connection:
            publish(client.app, RunRequest.of(record), record.queue, connection)

    looks = Reconciler(client.redis, publish_again, grace_s=PATIENCE_S)
    looks.requeue_lost()
    return looks


def _measure_idle(redis: Redis, looks: Reconciler, cost: Cost) -> None:
    times = []
    with asked(redis) as counted:
        for _ in range(LOOKS):
            began = time.perf_counter()
            found = looks.requeue_lost()
            times.append(1000 * (time.perf_counter() - began))
            cost.faults += [f"{run_id} is taken for lost" for run_id in found]
    cost.idle_ms, cost.idle = statistics.median(times), _each(counted, LOOKS)
    cost.idle_server_us = 1e6 * counted.server_s / LOOKS
    cost.faults += [f"a look asks for {name}" for name in counted.over_everything]


def _measure_adoption(redis: Redis, looks: Reconciler, cost: Cost, victims: list[Lease]) -> None:
    """One run after the other is left by its worker among the rest, and found by the next look."""
    line = keys.broker_list(LINE)
    times, calls, server_s = [], Counter[str](), 0.0
    for number, lease in enumerate(victims):
        lease.release()
        waited: Any = redis.llen(line)
        with asked(redis) as counted:
            began = time.perf_counter()
            found = looks.requeue_lost()
            took_ms = 1000 * (time.perf_counter() - began)
        if found != [f"lapsed-{number}"] or redis.llen(line) != waited + 1:
            cost.faults.append(f"a look finds {len(found)} runs where lapsed-{number} lapsed")
        if number:  # the first one opens the connection to the broker
            times.append(took_ms)
            calls += counted.calls
            server_s += counted.server_s
        cost.faults += [f"an adoption asks for {name}" for name in counted.over_everything]
    cost.adoption_ms, cost.adoption_server_us = statistics.median(times), 1e6 * server_s / len(times)
    cost.adoption = Counter({name: count // len(times) for name, count in calls.items()})


def _each(counted: Asked, times: int) -> Counter[str]:
    return Counter({name: count // times for name, count in counted.calls.items()})


def _chunks(name: str, count: int) -> Iterator[list[str]]:
    run_ids = [f"{name}-{number:06d}" for number in range(count)]
    for first in range(0, count, CHUNK):
        yield run_ids[first : first + CHUNK]


def _record(run_id: str) -> RunRecord:
    return RunRecord(
        run_id=run_id,
        document=recipe_of(1),
        name="scale",
        model="scripted",
        queue=QUEUE,
        queue_slot=LINE,
        submitted_at=time.time(),
    )


def start(redis: Redis, run_id: str) -> Lease:
    """A run that some worker has in hand."""
    lease = Lease(redis, run_id, ttl_s=LEASE_S, delivery_tag=run_id)
    Runs(redis).create(_record(run_id))
    lease.acquire()
    Progress(redis, run_id).publish(Started(name="scale", model="scripted", steps=2))
    return lease


def _wait_in_line(redis: Redis, chunks: list[list[str]]) -> None:
    """Runs whose message is in the broker's list; one at least, as an empty list is another case."""
    for run_ids in chunks:
        with redis.pipeline(transaction=False) as together:
            for run_id in run_ids:
                Runs(together).create(_record(run_id))
                together.lpush(keys.broker_list(LINE), json.dumps({"headers": {"id": run_id}}))
            together.execute()

"""Runs that lost their worker or their message are found and queued again, once, and no others."""

import json
import secrets
from collections.abc import Iterator

import pytest
from redis import Redis

from storage import keys
from storage.errors import CorruptRecordError
from storage.events import Started, Succeeded
from storage.redis.lease import Lease
from storage.redis.progress import Progress
from storage.redis.reconcile import Reconciler
from storage.redis.record import RunRecord
from storage.redis.runs import Runs
from worker.jobs.request import RequestError, RunRequest

PATIENCE_S = 10.0


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Broker:
    """The broker's lists, as far as the reconciler looks at them, and what was published again."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.queue = f"test-{secrets.token_hex(6)}"
        self.published: list[str] = []

    @property
    def line(self) -> str:
        return keys.queue_slot(self.queue, 3)

    @property
    def messages(self) -> str:
        return keys.broker_list(self.line)

    def submit(self, run_id: str, *, message: bool = True) -> None:
        record = RunRecord(run_id=run_id, document="a-recipe", queue=self.queue, queue_slot=self.line, submitted_at=1.0)
        assert Runs(self.redis).create(record)
        if message:
            self.redis.lpush(self.messages, run_id)

    def take(self) -> str:
        taken = self.redis.rpop(self.messages)
        assert isinstance(taken, str)
        return taken

    def publish(self, record: RunRecord) -> None:
        try:
            RunRequest.of(record)
        except RequestError as error:  # as worker.app.publish_again does
            raise CorruptRecordError(str(error)) from error
        self.published.append(record.run_id)
        self.redis.lpush(self.messages, record.run_id)


@pytest.fixture
def broker(redis_client: Redis) -> Iterator[Broker]:
    redis_client.delete(keys.LEASES, keys.QUEUE_SLOTS, keys.RECONCILER)
    yield Broker(redis_client)
    redis_client.delete(keys.LEASES, keys.QUEUE_SLOTS, keys.RECONCILER)


def reconciler(broker: Broker, clock: Clock | None = None) -> Reconciler:
    return Reconciler(
        broker.redis,
        broker.publish,
        grace_s=PATIENCE_S,
        clock=clock or Clock(),
    )


def looked_twice(broker: Broker) -> list[str]:
    """What a reconciler queues again when it looks, and looks again after its delay."""
    clock = Clock()
    looks = reconciler(broker, clock)
    first = looks.requeue_lost()
    clock.now += PATIENCE_S
    return first + looks.requeue_lost()


def start(broker: Broker, run_id: str, *, ttl_s: float = 60.0) -> Lease:
    lease = Lease(broker.redis, run_id, ttl_s=ttl_s)
    assert lease.acquire()
    Progress(broker.redis, run_id).publish(Started(name="a", model="m", steps=3))
    return lease


def lapse(broker: Broker, run_id: str) -> None:
    """The lease's time is over."""
    broker.redis.delete(keys.run_lease(run_id))
    broker.redis.zadd(keys.LEASES, {run_id: 1})


def test_a_run_whose_lease_lapsed_is_queued_again(broker: Broker, run_id: str) -> None:
    broker.submit(run_id)
    start(broker, broker.take())
    lapse(broker, run_id)
    assert reconciler(broker).requeue_lost() == [run_id]
    assert broker.published == [run_id]
    state = Runs(broker.redis).state(run_id)
    assert state is not None
    assert state.state == "queued"
    assert broker.redis.zscore(keys.LEASES, run_id) is None


def test_a_run_with_a_lease_is_left_alone(broker: Broker, run_id: str) -> None:
    broker.submit(run_id)
    start(broker, broker.take())
    assert looked_twice(broker) == []


def test_a_run_that_ended_without_giving_its_lease_back_is_forgotten(broker: Broker, run_id: str) -> None:
    broker.submit(run_id)
    start(broker, broker.take())
    owner = broker.redis.get(keys.run_lease(run_id))
    Progress(broker.redis, run_id, owner=str(owner)).publish(Succeeded())
    lapse(broker, run_id)
    assert looked_twice(broker) == []
    assert broker.redis.zscore(keys.LEASES, run_id) is None


def test_a_message_that_was_popped_and_lost_is_published_again_after_a_while(broker: Broker, run_id: str) -> None:
    broker.submit(run_id)
    broker.take()  # and the worker dies before it writes anything down
    clock = Clock()
    looks = reconciler(broker, clock)
    assert looks.requeue_lost() == []
    clock.now += PATIENCE_S
    assert looks.requeue_lost() == [run_id]
    assert looks.requeue_lost() == []
    assert broker.published == [run_id]


def test_a_message_that_was_never_published_is_published(broker: Broker, run_id: str) -> None:
    broker.submit(run_id, message=False)
    assert looked_twice(broker) == [run_id]


def test_runs_that_wait_their_turn_are_left_alone_however_long_it_takes(broker: Broker) -> None:
    runs = [f"run-{secrets.token_hex(6)}" for _ in range(5)]
    for run_id in runs:
        broker.submit(run_id)
    start(broker, broker.take())
    assert looked_twice(broker) == []


def test_a_lost_run_shows_itself_when_a_later_one_is_started(broker: Broker) -> None:
    lost, later, last = (f"run-{secrets.token_hex(6)}" for _ in range(3))
    for run_id in (lost, later, last):
        broker.submit(run_id)
        broker.redis.zincrby(keys.waiting(broker.line), 1 + (run_id == later) + 2 * (run_id == last), run_id)
    broker.take()
    start(broker, broker.take())
    assert looked_twice(broker) == [lost]


def test_a_cancelled_run_that_waits_is_not_queued_again(broker: Broker, run_id: str) -> None:
    broker.submit(run_id, message=False)
    Runs(broker.redis).request_cancel(run_id)
    assert looked_twice(broker) == []
    assert broker.redis.zscore(keys.waiting(broker.line), run_id) is None


def test_a_run_whose_record_expired_is_dropped_from_the_indexes(broker: Broker, run_id: str) -> None:
    broker.submit(run_id, message=False)
    broker.redis.delete(keys.run_record(run_id))
    assert looked_twice(broker) == []
    assert broker.redis.zscore(keys.waiting(broker.line), run_id) is None


@pytest.mark.parametrize("changed", [{"version": 2}, {"priority": "urgent"}])
def test_a_run_that_only_another_release_understands_is_left_to_it(
    broker: Broker, run_id: str, changed: dict[str, object]
) -> None:
    broker.submit(run_id, message=False)
    broker.submit(f"{run_id}-lost", message=False)
    record = keys.run_record(run_id)
    broker.redis.set(record, json.dumps({**json.loads(str(broker.redis.get(record))), **changed}))
    assert looked_twice(broker) == [f"{run_id}-lost"]
    assert broker.redis.zscore(keys.waiting(broker.line), run_id) is not None


def test_damaged_runs_and_indexes_stop_no_others(broker: Broker, run_id: str) -> None:
    damaged = [f"{run_id}-state", f"{run_id}-record"]
    for one in (*damaged, run_id):
        broker.submit(one)
        start(broker, broker.take())
        lapse(broker, one)
    for key in (keys.run_state(damaged[0]), keys.run_record(damaged[1]), keys.STARTED, keys.RECONCILER):
        broker.redis.delete(key)
        broker.redis.lpush(key, "damage")
    other = Broker(broker.redis)
    other.submit(f"{run_id}-waiting", message=False)
    looks = reconciler(broker)
    assert [looks.elect(60), looks.elect(60)] == [False, True]
    assert looks.requeue_lost() == [run_id]
    broker.redis.delete(keys.LEASES, keys.STARTED)
    broker.redis.lpush(keys.LEASES, "damage")
    assert looked_twice(broker) == [f"{run_id}-waiting"]


def test_members_of_an_index_that_are_none_stop_no_others(broker: Broker, run_id: str) -> None:
    broker.submit(run_id)
    start(broker, broker.take())
    lapse(broker, run_id)
    broker.redis.zadd(keys.LEASES, {"not a run id": 1})
    broker.redis.sadd(keys.QUEUE_SLOTS, "no-slot", "")
    assert reconciler(broker).requeue_lost() == [run_id]


def test_one_reconciler_leads_at_a_time(broker: Broker) -> None:
    one, other = reconciler(broker), reconciler(broker)
    assert one.elect(60)
    assert not other.elect(60)
    assert one.elect(60)

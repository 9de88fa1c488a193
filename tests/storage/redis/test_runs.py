"""A run is known before its message is, once, under one key; and it can be asked to stop."""

import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from storage import keys
from storage.errors import InvalidNameError, RunNotFoundError
from storage.events import Failed, Started, Succeeded
from storage.redis.follow import follow
from storage.redis.progress import Progress
from storage.redis.record import RunRecord
from storage.redis.runs import Runs


@pytest.fixture
def runs(redis_client: redis.Redis) -> Runs:
    return Runs(redis_client)


def record_of(run_id: str, submitted_at: float | None = None) -> RunRecord:
    at = time.time() if submitted_at is None else submitted_at
    return RunRecord(run_id=run_id, document="forest", name="forest", model="tiny", submitted_at=at)


def is_open(redis_client: redis.Redis, run_id: str) -> bool:
    return redis_client.zscore(keys.OPEN_RUNS, run_id) is not None


def test_a_new_run_is_queued_with_its_record(runs: Runs, redis_client: redis.Redis, run_id: str) -> None:
    record = record_of(run_id, 5.25)
    assert runs.create(record)
    assert runs.record(run_id) == record
    state = runs.state(run_id)
    assert state is not None
    assert (state.state, state.name, state.model, state.submitted_at) == ("queued", "forest", "tiny", 5.25)
    assert next(follow(redis_client, run_id)).type == "queued"


def test_a_run_is_created_once(runs: Runs, redis_client: redis.Redis, run_id: str) -> None:
    assert runs.create(record_of(run_id, 1))
    Progress(redis_client, run_id).publish(Started(name="forest", model="tiny", steps=3))
    assert not runs.create(record_of(run_id, 2))
    assert runs.record(run_id).submitted_at == 1
    state = runs.state(run_id)
    assert state is not None
    assert state.state == "running"


def test_of_many_who_create_a_run_one_does(runs: Runs, run_id: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: runs.create(record_of(run_id)), range(8))) == 1


def test_an_idempotency_key_has_one_owner(runs: Runs) -> None:
    key = f"order-{secrets.token_hex(4)}"
    assert runs.claim_key(key, "first") == "first"
    assert runs.claim_key(key, "second") == "first"
    assert runs.claim_key(key, "first") == "first"
    with pytest.raises(InvalidNameError):
        runs.claim_key(key, "a/b")


def test_an_idempotency_key_expires(runs: Runs, redis_client: redis.Redis) -> None:
    key = f"order-{secrets.token_hex(4)}"
    runs.claim_key(key, "first")
    assert 0 < redis_client.ttl(keys.idempotency(key)) <= keys.RUN_TTL_S


def test_the_newest_runs_are_listed_first(runs: Runs, run_id: str) -> None:
    future = time.time() + 1_000_000
    for number in range(3):
        runs.create(record_of(f"{run_id}-{number}", future + number))
    assert [state.run_id for state in runs.recent(2)] == [f"{run_id}-2", f"{run_id}-1"]


def test_a_run_is_found_by_the_beginning_of_its_id(runs: Runs, redis_client: redis.Redis, run_id: str) -> None:
    future = time.time() + 3_000_000
    for number in range(3):
        runs.create(record_of(f"{run_id}-{number}", future + number))
    redis_client.zrem(keys.RUNS, f"{run_id}-1")  # listed no more, and open
    assert [state.run_id for state in runs.recent(1)] == [f"{run_id}-2"]
    assert runs.find(run_id) == [f"{run_id}-2", f"{run_id}-0", f"{run_id}-1"]
    assert runs.find(f"{run_id}-0") == [f"{run_id}-0"]
    assert runs.find(f"{run_id}-x") == []


def test_the_search_for_a_run_is_bounded(runs: Runs, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    future = time.time() + 4_000_000
    for number in range(3):
        runs.create(record_of(f"{run_id}-{number}", future + number))
    monkeypatch.setattr(keys, "MAX_RECENT", 2)
    assert runs.find(run_id) == [f"{run_id}-2", f"{run_id}-1"]


def test_no_run_is_recent_where_there_is_none(runs: Runs, redis_client: redis.Redis) -> None:
    redis_client.delete(keys.RUNS)
    assert runs.recent() == []


def test_the_list_is_trimmed(
    runs: Runs, redis_client: redis.Redis, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "MAX_RECENT", 2)
    future = time.time() + 2_000_000
    for number in range(3):
        runs.create(record_of(f"{run_id}-{number}", future + number))
    assert redis_client.zrange(keys.RUNS, 0, -1) == [f"{run_id}-1", f"{run_id}-2"]
    assert is_open(redis_client, f"{run_id}-0")


def test_a_run_is_unfinished_until_its_end(runs: Runs, redis_client: redis.Redis, run_id: str) -> None:
    runs.create(record_of(run_id))
    assert is_open(redis_client, run_id)
    Progress(redis_client, run_id, owner="worker").publish(Failed(error="no such model"))
    assert not is_open(redis_client, run_id)
    assert run_id in {state.run_id for state in runs.recent(1000)}


def test_a_running_run_is_asked_to_stop(runs: Runs, redis_client: redis.Redis, run_id: str) -> None:
    runs.create(record_of(run_id))
    Progress(redis_client, run_id).publish(Started(name="forest", model="tiny", steps=3))
    assert not runs.cancel_requested(run_id)
    assert runs.request_cancel(run_id)
    assert runs.cancel_requested(run_id)
    state = runs.state(run_id)
    assert state is not None
    assert state.state == "running"


def test_a_waiting_run_stops_at_once_and_no_worker_starts_it(
    runs: Runs, redis_client: redis.Redis, run_id: str
) -> None:
    runs.create(record_of(run_id))
    assert runs.request_cancel(run_id)
    assert [event.type for event in follow(redis_client, run_id)] == ["queued", "cancelled"]
    assert not Progress(redis_client, run_id).publish(Started(name="forest", model="tiny", steps=3))
    assert runs.cancel_requested(run_id)


def test_a_run_that_ended_cannot_be_cancelled(runs: Runs, redis_client: redis.Redis, run_id: str) -> None:
    runs.create(record_of(run_id))
    Progress(redis_client, run_id, owner="worker").publish(Succeeded())
    assert not runs.request_cancel(run_id)
    assert not runs.cancel_requested(run_id)


def test_an_unknown_run_is_unknown(runs: Runs, run_id: str) -> None:
    assert runs.state(run_id) is None
    for ask in (runs.record, runs.request_cancel):
        with pytest.raises(RunNotFoundError, match=run_id):
            ask(run_id)


def test_models_are_announced(runs: Runs) -> None:
    name = f"tiny-{secrets.token_hex(4)}"
    runs.announce(name, '{"sha256": "cafe"}', "{}")
    assert runs.models()[name] == '{"sha256": "cafe"}'


def test_a_model_that_only_workers_of_0_1_announced_is_known(runs: Runs, redis_client: redis.Redis) -> None:
    name = f"tiny-{secrets.token_hex(4)}"
    redis_client.hset(keys.MODELS, name, '{"stride_px": 16}')
    assert runs.models()[name] == '{"stride_px": 16}'


def test_attempts_are_counted_until_a_step_is_committed(runs: Runs, run_id: str) -> None:
    runs.create(record_of(run_id))
    assert [runs.count_attempt(run_id, 0) for _ in range(3)] == [1, 2, 3]
    assert [runs.count_attempt(run_id, 4) for _ in range(2)] == [1, 2]
    runs.refund_attempt(run_id, 4)
    assert runs.count_attempt(run_id, 4) == 2
    runs.refund_attempt(run_id, 0)  # of an attempt whose count was given up
    assert runs.count_attempt(run_id, 4) == 3
    for _ in range(9):
        runs.refund_attempt(run_id, 4)
    assert runs.count_attempt(run_id, 4) == 1


def test_a_refund_that_redis_could_not_take_is_made_with_the_next_attempt(runs: Runs, run_id: str) -> None:
    runs.create(record_of(run_id))
    assert runs.count_attempt(run_id, 2) == 1
    runs.owe_refund(run_id, 2)
    assert [runs.count_attempt(run_id, 2) for _ in range(2)] == [1, 2]


def test_a_refund_that_a_damaged_run_can_not_take_stops_no_other_run(
    runs: Runs, redis_client: redis.Redis, run_id: str
) -> None:
    redis_client.lpush(keys.run_state(f"{run_id}-damaged"), "damage")
    runs.owe_refund(f"{run_id}-damaged", 0)
    assert [runs.count_attempt(run_id, 0) for _ in range(2)] == [1, 2]


def test_a_failed_run_can_be_reopened_and_a_succeeded_one_can_not(
    runs: Runs, redis_client: redis.Redis, run_id: str
) -> None:
    runs.create(record_of(run_id))
    assert not runs.reopen(run_id)
    Progress(redis_client, run_id, owner="worker").publish(Failed(error="S3 was away"))
    assert runs.reopen(run_id)
    state = runs.state(run_id)
    assert state is not None
    assert (state.state, state.error, state.finished_at) == ("queued", None, None)
    assert redis_client.ttl(keys.run_record(run_id)) == -1
    assert is_open(redis_client, run_id)
    Progress(redis_client, run_id, owner="worker").publish(Succeeded())
    assert not runs.reopen(run_id)


def test_a_run_that_cannot_be_read_is_not_listed_and_hides_no_other(
    runs: Runs, redis_client: redis.Redis, run_id: str
) -> None:
    runs.create(record_of(run_id))
    runs.create(record_of(f"{run_id}-odd"))
    redis_client.hset(keys.run_state(f"{run_id}-odd"), "state", "odd")
    listed = [state.run_id for state in runs.recent(5)]
    assert run_id in listed
    assert f"{run_id}-odd" not in listed
    redis_client.delete(keys.run_state(f"{run_id}-odd"))

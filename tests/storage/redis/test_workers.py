"""A worker is listed while it announces itself, and an unhealthy one after it ended."""

import json
from collections.abc import Iterator

import pytest
import redis

from storage import keys
from storage.redis.runs import Runs
from storage.redis.workers import ANNOUNCE_TTL_S, UNHEALTHY_TTL_S, WorkerInfo, Workers


@pytest.fixture
def workers(redis_client: redis.Redis) -> Iterator[Workers]:
    redis_client.delete(keys.WORKERS, keys.WORKER_EXPIRIES)
    yield Workers(redis_client)
    redis_client.delete(keys.WORKERS, keys.WORKER_EXPIRIES)


def info(name: str = "celery@a", **fields: object) -> WorkerInfo:
    given = {"name": name, "model": "bagel", "model_sha256": "cafe", "since": 5.25, "pid": 7, "version": "1", **fields}
    return WorkerInfo(**given)  # type: ignore[arg-type]  # a test may give wrong ones


def expires_in_s(redis_client: redis.Redis, name: str) -> float:
    seconds, microseconds = redis_client.time()
    expires_at = redis_client.zscore(keys.WORKER_EXPIRIES, name)
    assert isinstance(expires_at, float)
    return expires_at / 1000 - seconds - microseconds / 1e6


def test_the_last_announcement_of_each_worker_is_listed_by_name(workers: Workers) -> None:
    workers.announce(info("celery@b"))
    workers.announce(info("celery@a"))
    workers.announce(busy := info("celery@b", state="busy", run_id="r1", device="cuda:1"))
    assert workers.live() == [info("celery@a"), busy]


def test_a_worker_that_leaves_is_not_listed(workers: Workers) -> None:
    workers.announce(info("celery@a"))
    workers.announce(info("celery@b"))
    workers.leave("celery@a")
    assert workers.live() == [info("celery@b")]


def test_a_worker_that_stops_announcing_expires_by_the_servers_clock(
    workers: Workers, redis_client: redis.Redis
) -> None:
    workers.announce(info("celery@gone"))
    assert 0 < expires_in_s(redis_client, "celery@gone") <= ANNOUNCE_TTL_S
    redis_client.zincrby(keys.WORKER_EXPIRIES, -1000 * ANNOUNCE_TTL_S, "celery@gone")
    assert workers.live() == []
    workers.announce(info("celery@a"))
    assert redis_client.hkeys(keys.WORKERS) == redis_client.zrange(keys.WORKER_EXPIRIES, 0, -1) == ["celery@a"]


def test_an_unhealthy_worker_stays_listed_for_longer(workers: Workers, redis_client: redis.Redis) -> None:
    workers.announce(sick := info(state="unhealthy", reason="the disk is full"))
    assert ANNOUNCE_TTL_S < expires_in_s(redis_client, sick.name) <= UNHEALTHY_TTL_S
    workers.announce(info("celery@b"))
    assert workers.live() == [sick, info("celery@b")]
    assert all(
        ANNOUNCE_TTL_S < redis_client.ttl(key) <= UNHEALTHY_TTL_S for key in (keys.WORKERS, keys.WORKER_EXPIRIES)
    )


@pytest.mark.parametrize("text", ["{}", "[]", "x", '{"name": "a", "model": "m", "state": "asleep"}', '{"name": 1}'])
def test_a_corrupt_announcement_hides_no_other(workers: Workers, redis_client: redis.Redis, text: str) -> None:
    workers.announce(info("celery@a"))
    workers.announce(info("celery@b"))
    redis_client.hset(keys.WORKERS, "celery@a", text)
    assert workers.live() == [info("celery@b")]


def test_fields_of_a_later_release_are_ignored(workers: Workers, redis_client: redis.Redis) -> None:
    workers.announce(info())
    redis_client.hset(keys.WORKERS, info().name, json.dumps({**json.loads(info().to_json()), "mood": "good"}))
    assert workers.live() == [info()]


def test_a_model_is_served_while_a_worker_lives_that_takes_runs(workers: Workers, redis_client: redis.Redis) -> None:
    redis_client.delete(keys.SPECS, keys.MODELS)
    runs = Runs(redis_client)
    for model, state in (("a", "idle"), ("b", "busy"), ("c", "draining"), ("d", "unhealthy"), ("e", None)):
        runs.announce(model, "{}", "{}")
        if state:
            workers.announce(info(f"celery@{model}", model=model, state=state))
    assert workers.served_models() == {"a", "b"}


def test_a_model_that_only_release_0_1_0_announced_counts_as_served(
    workers: Workers, redis_client: redis.Redis
) -> None:
    redis_client.delete(keys.SPECS, keys.MODELS)
    redis_client.hset(keys.MODELS, "old", "{}")
    assert workers.served_models() == {"old"}

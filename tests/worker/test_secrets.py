"""Passwords and keys are in the settings and nowhere else: not in logs, Redis, the bucket, results or errors."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from storage.objects.s3 import S3Store
from tests.worker.serving import DEADLINE_S, WorkerProcess, config_of, objects_of, recipe
from tests.worker.test_tasks import deliver
from worker.client import Client
from worker.connections import ServiceUnavailableError, check_redis, connect_redis
from worker.errors import RunFailed
from worker.local.services import LocalServices
from worker.serve.runtime import WorkerRuntime


@pytest.fixture
def secrets_of(services: LocalServices) -> tuple[str, ...]:
    password = services.redis_url.split(":")[2].split("@")[0]
    secret_key = services.s3_settings.secret_key or ""
    assert len(password) > 20
    assert len(secret_key) > 20
    return password, secret_key


def everything_in(redis: Redis) -> Iterator[str]:
    """All keys and values of a database."""
    client: Any = redis
    read = {
        "string": client.get,
        "hash": client.hgetall,
        "list": lambda key: client.lrange(key, 0, -1),
        "set": client.smembers,
        "zset": lambda key: client.zrange(key, 0, -1),
        "stream": client.xrange,
    }
    for key in client.scan_iter():
        yield f"{key} {read[client.type(key)](key)}"


def test_a_run_that_succeeds_and_one_that_fails_tell_no_secret(
    scripted_worker: WorkerProcess, client: Client, s3_store: S3Store, run_id: str, secrets_of: tuple[str, ...]
) -> None:
    good = client.submit(recipe(), idempotency_key=f"key-{run_id}")
    result = client.result(good, timeout_s=DEADLINE_S)
    deliver(scripted_worker, run_id, recipe(context=[{"image": "s3://autosequence/none.png"}]))
    client.result(client.submit(recipe()), timeout_s=DEADLINE_S)  # so that message was met
    with pytest.raises(RunFailed) as raised:
        client.result(run_id, timeout_s=DEADLINE_S)
    told = [scripted_worker.output, json.dumps(result), str(raised.value), *everything_in(client.redis)]
    told += [data.decode("latin-1") for data in objects_of(s3_store, good).values()]
    assert any(good in text for text in told)
    for secret in secrets_of:
        assert [text[:200] for text in told if secret in text] == []


def test_settings_show_no_secret(scripted_worker: WorkerProcess, secrets_of: tuple[str, ...]) -> None:
    config = config_of(scripted_worker.env)
    host = WorkerRuntime.connect(config)
    shown = f"{config!r} {config} {host.objects!r} {config.model_dump_json()}"
    host.close()
    assert [secret for secret in secrets_of if secret in shown] == []


def test_errors_of_services_show_no_secret(scripted_worker: WorkerProcess, secrets_of: tuple[str, ...]) -> None:
    hidden = "hidden-".join(secrets_of)
    wrong = {
        "AUTOSEQ_REDIS_URL": scripted_worker.env["AUTOSEQ_REDIS_URL"].replace(secrets_of[0], hidden),
        "AUTOSEQ_S3_SECRET_KEY": hidden,
    }
    config = config_of({**scripted_worker.env, **wrong})
    with connect_redis(config) as redis, pytest.raises(ServiceUnavailableError) as refused:
        check_redis(redis)
    right_redis = scripted_worker.env["AUTOSEQ_REDIS_URL"]
    host = WorkerRuntime.connect(config_of({**scripted_worker.env, **wrong, "AUTOSEQ_REDIS_URL": right_redis}))
    with pytest.raises(ServiceUnavailableError) as denied:
        host.start()
    host.close()
    for words in (str(refused.value), str(denied.value)):
        assert words
        assert "hidden-" not in words


def test_wrong_credentials_of_redis_are_no_outage(scripted_worker: WorkerProcess) -> None:
    url = scripted_worker.env["AUTOSEQ_REDIS_URL"].replace("redis://:", "redis://:wrong")
    config = config_of({**scripted_worker.env, "AUTOSEQ_REDIS_URL": url})
    with (
        connect_redis(config, outage_timeout_s=3600) as redis,
        pytest.raises(ServiceUnavailableError, match="invalid username-pass"),
    ):
        check_redis(redis)

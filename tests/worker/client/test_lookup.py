"""A run is found by its id, by the second id of a repeated call, and by a unique beginning of its id."""

import pytest

from storage.errors import InvalidNameError, RunNotFoundError
from storage.objects.s3 import S3Store
from tests.worker.conftest import IDLE_DATABASE
from tests.worker.serving import DEADLINE_S, WorkerProcess, celery_call, celery_result, env_of, recipe
from worker.client import Client
from worker.client.lookup import look_up
from worker.errors import RunCancelled
from worker.local.services import LocalServices


def test_a_repeated_celery_call_names_the_first_run(client: Client, scripted_worker: WorkerProcess) -> None:
    first = celery_call(scripted_worker.env, recipe=recipe(), idempotency_key="order-9")
    second = celery_call(scripted_worker.env, recipe=recipe(), idempotency_key="order-9")
    assert second != first
    assert client.find_run(second) == first
    assert client.result(second, timeout_s=DEADLINE_S)["run_id"] == first
    assert client.state(second) == client.state(first)
    assert list(client.watch(second)) == list(client.watch(first))
    assert look_up(client, second).to_data()["run_id"] == first
    assert not client.cancel(second), "it has ended"
    told = celery_result(scripted_worker, second)
    assert (told.result["run_id"], told.result["state"]) == (first, "duplicate")


def test_a_waiting_run_is_cancelled_by_its_second_id(services: LocalServices, idle_client: Client) -> None:
    first = idle_client.submit(recipe(), idempotency_key="order-10")
    second = celery_call(env_of(services, IDLE_DATABASE), recipe=recipe(), idempotency_key="order-10")
    assert idle_client.cancel(second)
    with pytest.raises(RunCancelled, match=f"run {first} was cancelled"):
        idle_client.result(second)
    assert idle_client.redis.ttl(f"autoseq:run:{second}:alias") > 0
    assert idle_client.resume(second)
    assert idle_client.state(first).state == "queued"
    assert idle_client.redis.ttl(f"autoseq:run:{second}:alias") == -1, "it lives as long as the run"


def test_a_run_of_that_id_comes_before_an_alias(idle_client: Client) -> None:
    first = idle_client.submit(recipe())
    idle_client.runs.add_alias("second", first)
    assert idle_client.state("second").run_id == first
    idle_client.submit(recipe(), run_id="second")
    assert idle_client.state("second").run_id == "second"


def test_a_unique_beginning_is_enough(idle_client: Client) -> None:
    for run_id in ("night-1", "night-2", "noon"):
        idle_client.submit(recipe(), run_id=run_id)
    assert idle_client.find_run("no") == "noon"
    assert idle_client.find_run("night-1") == "night-1"
    with pytest.raises(RunNotFoundError, match="run ni: 2 run ids begin with this: night-2, night-1"):
        idle_client.find_run("ni")
    with pytest.raises(RunNotFoundError, match="run day: there is no such run"):
        idle_client.find_run("day")
    with pytest.raises(InvalidNameError):
        idle_client.find_run("../x")


def test_a_run_that_redis_forgot_comes_before_one_that_only_begins_like_it(
    idle_client: Client, s3_store: S3Store
) -> None:
    s3_store.put("served/forgotten/recipe.json", b"{}", content_type="application/json")
    idle_client.submit(recipe(), run_id="forgotten-2")
    assert idle_client.find_run("forgotten") == "forgotten"
    assert idle_client.find_run("forgotten-") == "forgotten-2"

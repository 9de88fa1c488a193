"""An idempotency key lives as long as its run and keep_progress_s after the end; no run is lost as a duplicate."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import keys
from storage.events import Succeeded
from storage.redis.lease import Lease
from storage.redis.progress import Progress
from tests.worker.serving import DEADLINE_S, config_of, env_of, eventually, ready_worker, recipe
from worker.app import publish, write_record
from worker.client import Client
from worker.jobs.request import RunRequest
from worker.local.services import LocalServices
from worker.settings import queue_of

DATABASE = 4
KEEP_S = 2
LONGER_S = 1.2 * KEEP_S
SCRIPTED = queue_of("scripted")


@pytest.fixture
def env(services: LocalServices) -> dict[str, str]:
    return env_of(services, DATABASE, scripted_delay_s=0.002, lease_s=3, keep_progress_s=KEEP_S)


@pytest.fixture
def own_client(env: dict[str, str]) -> Iterator[Client]:
    with Client(config_of(env)) as opened:
        opened.redis.flushdb()
        yield opened


def with_key(run_id: str, key: str) -> RunRequest:
    return RunRequest(run_id=run_id, recipe=recipe(), overrides={}, idempotency_key=key)


def send(client: Client, asked: RunRequest) -> None:
    """As `celery call` does."""
    write_record(client.runs, asked, queue=SCRIPTED, model="scripted")
    publish(client.app, asked, SCRIPTED)


def test_a_key_lives_as_long_as_its_run_and_no_run_is_the_duplicate_of_a_later_one(
    own_client: Client, env: dict[str, str], tmp_path: Path, run_id: str
) -> None:
    first = own_client.submit(recipe(), idempotency_key="order")
    send(own_client, with_key(f"{run_id}-again", "order"))
    earlier = own_client.submit(recipe(), idempotency_key="taken")
    own_client.redis.delete(keys.idempotency("taken"))  # as the claim of a client of release 0.1.0 that expired
    later = own_client.submit(recipe(), idempotency_key="taken")
    time.sleep(LONGER_S)
    assert own_client.submit(recipe(), idempotency_key="order") == first
    assert own_client.find_run(f"{run_id}-again") == first
    with ready_worker(env, tmp_path / "log") as worker:
        assert own_client.result(f"{run_id}-again", timeout_s=DEADLINE_S)["run_id"] == first
        for one in (earlier, later):
            assert own_client.result(one, timeout_s=DEADLINE_S)["run_id"] == one
        eventually(lambda: own_client.runs.state(first) is None, "the end of its time")
        second = own_client.submit(recipe(), idempotency_key="order")
        assert second != first
        assert own_client.result(second, timeout_s=DEADLINE_S)["run_id"] == second
        eventually(lambda: "'state': 'duplicate'" in worker.output, "the message that was a duplicate")
        eventually(lambda: not list(own_client.redis.scan_iter("autoseq:run:*")), "no key of a run")
        assert list(own_client.redis.scan_iter("autoseq:idempotency:*")) == []
    assert worker.output.count("'state': 'duplicate'") == 1


def test_a_run_that_is_resumed_has_its_names_again(own_client: Client, run_id: str) -> None:
    first = own_client.submit(recipe(), idempotency_key="order")
    send(own_client, with_key(f"{run_id}-again", "order"))
    own_client.cancel(first)
    names = [keys.idempotency("order"), keys.run_alias(f"{run_id}-again"), keys.run_names(first)]
    assert all(0 < own_client.redis.pttl(name) <= KEEP_S * 1000 for name in names)
    assert own_client.resume(first)
    time.sleep(LONGER_S)
    assert own_client.submit(recipe(), idempotency_key="order") == first
    assert own_client.find_run(f"{run_id}-again") == first


def test_a_run_that_is_resumed_leaves_its_key_to_who_has_it_now(own_client: Client) -> None:
    first = own_client.submit(recipe(), idempotency_key="order")
    own_client.cancel(first)
    own_client.redis.delete(keys.idempotency("order"))
    second = own_client.submit(recipe(), idempotency_key="order")
    assert own_client.resume(first)
    assert own_client.submit(recipe(), idempotency_key="order") == second
    assert own_client.state(first).state == "queued"
    own_client.cancel(first)
    assert own_client.redis.ttl(keys.idempotency("order")) == -1, "the end of the first does not expire it"


def test_a_key_whose_claimer_died_has_its_run_all_the_same(own_client: Client, run_id: str) -> None:
    own_client.runs.claim_key("order", run_id)
    write_record(own_client.runs, with_key(f"{run_id}-again", "order"), queue=SCRIPTED, model="scripted")
    assert own_client.find_run(f"{run_id}-again") == run_id
    assert own_client.state(run_id).state == "queued"
    assert own_client.runs.state(f"{run_id}-again") is None


def test_a_key_that_outlived_its_run_is_free(own_client: Client, run_id: str) -> None:
    first = own_client.submit(recipe(), idempotency_key="order")
    for of_run in own_client.redis.scan_iter(f"autoseq:run:{first}*"):
        own_client.redis.delete(of_run)  # a worker of release 0.1.0 ended it, and its time is over
    assert own_client.submit(recipe(), idempotency_key="order") not in {first, run_id}


@pytest.mark.parametrize("taken", [False, True])
def test_a_run_that_is_told_again_after_a_loss_of_data_is_no_duplicate(
    own_client: Client, run_id: str, *, taken: bool
) -> None:
    write_record(own_client.runs, with_key(run_id, "order"), queue=SCRIPTED, model="scripted")
    lease = Lease(own_client.redis, run_id, ttl_s=60)
    assert lease.acquire()
    own_client.redis.flushdb()
    second = own_client.submit(recipe(), idempotency_key="order") if taken else run_id
    assert not lease.renew()
    assert write_record(own_client.runs, with_key(run_id, "order"), queue=SCRIPTED, model="scripted", claimed=True)
    assert own_client.state(run_id).state == "queued"
    assert own_client.submit(recipe(), idempotency_key="order") == second
    assert Progress(own_client.redis, run_id, owner=lease.token).publish(Succeeded())

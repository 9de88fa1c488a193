"""Redis fails over to a replica while runs are served: what was replicated goes on, and S3 has the rest."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import keys
from storage.errors import RunNotFoundError
from storage.events import Started
from tests.chaos.ground import Ground, ground
from tests.faults.judge import kept
from tests.faults.replicas import Replicas, replicas
from tests.worker.serving import DEADLINE_S, config_of, eventually, objects_of, recipe, request, undisturbed
from worker.connections import ServiceUnavailableError, connect_redis
from worker.local.services import LocalServices

pytestmark = pytest.mark.services

RUNS = 4
RECIPE = recipe(num_images=4, image={"num_timesteps": 30})


@pytest.fixture
def redis_pair(tmp_path: Path) -> Iterator[Replicas]:
    with replicas(tmp_path / "redis") as made:
        yield made


@pytest.fixture
def on(redis_pair: Replicas, services: LocalServices, tmp_path: Path, prefix: str) -> Iterator[Ground]:
    with ground(tmp_path, services, redis_url=redis_pair.url, s3_prefix=prefix) as made:
        yield made


def is_whole(on: Ground, run_id: str) -> bool:
    left = objects_of(on.client.objects, run_id, prefix=on.client.config.s3_prefix)
    return left == undisturbed(request(run_id, RECIPE))


def have_committed(on: Ground, run_id: str, step: int) -> None:
    journal = on.client.journal(run_id)
    eventually(lambda: journal.count_commits() >= step, f"step {step} of {run_id}")


def test_every_run_goes_on_after_a_replica_is_promoted(on: Ground, redis_pair: Replicas) -> None:
    on.have_workers(2)
    asked = [on.submit(f"run-{number}", RECIPE) for number in range(RUNS)]
    keyed = on.client.submit(RECIPE, idempotency_key="once")
    have_committed(on, asked[0], 2)
    redis_pair.fail_over()
    assert on.client.count_open() > 2
    for run_id in (*asked, keyed):
        assert on.client.result(run_id, timeout_s=DEADLINE_S)["state"] == "succeeded"
        assert is_whole(on, run_id)
    assert on.client.submit(RECIPE, idempotency_key="once") == keyed
    folders = {key.split("/")[1] for key in on.client.objects.list(f"{on.client.config.s3_prefix}/")}
    assert folders == {*asked, keyed}
    eventually(lambda: not kept(on.client.redis), "a Redis without anything of these runs")
    assert on.fleet is not None
    assert not any(worker.has_ended for worker in on.fleet.victims)


def test_what_was_not_replicated_is_lost_in_redis_alone(on: Ground, redis_pair: Replicas) -> None:
    """A run's steps and its end are in S3; a run that was submitted last has to be submitted again."""
    on.have_workers(1)
    first, second = on.submit("ends-unheard", RECIPE), on.submit("goes-on", RECIPE)
    have_committed(on, first, 2)
    eventually(lambda: redis_pair.replica.exists(keys.run_record(second)), "a record on the replica")
    redis_pair.cut_off()
    assert on.client.result(first, timeout_s=DEADLINE_S)["state"] == "succeeded"
    have_committed(on, second, 1)
    unheard = on.submit("unheard", RECIPE)
    assert on.client.state(unheard).state == "queued"
    assert redis_pair.replica.hget(keys.run_state(first), "state") == "running"
    redis_pair.fail_over()
    with pytest.raises(RunNotFoundError):
        on.client.state(unheard)
    on.client.submit(RECIPE, run_id=unheard)
    for run_id in (first, second, unheard):
        assert on.client.result(run_id, timeout_s=DEADLINE_S)["state"] == "succeeded"
        assert is_whole(on, run_id)
    assert [isinstance(event, Started) for event in on.client.watch(unheard)].count(True) == 1
    eventually(lambda: not kept(on.client.redis), "a Redis without anything of these runs")


def test_a_sentinel_is_no_address_of_redis() -> None:
    config = config_of({"AUTOSEQ_REDIS_URL": "sentinel://127.0.0.1:26379/0"})
    with pytest.raises(ServiceUnavailableError, match=r"AUTOSEQ_REDIS_URL can't be used: .*redis://"):
        connect_redis(config)

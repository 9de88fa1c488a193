"""S3 or Redis goes away in the middle of a run, in every way: the run waits, or ends in words and goes on later."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from storage import keys
from storage.events import ArtifactStored, RunEvent, Started, StepEvent
from storage.objects.s3 import S3Store
from tests.worker.serving import (
    DEADLINE_S,
    PREFIX,
    WorkerProcess,
    celery_result,
    env_of,
    eventually,
    objects_of,
    ready_worker,
    recipe,
    request,
    some_steps_recipe,
    undisturbed,
)
from tests.worker.shell import Shell, said
from worker.client import Client
from worker.errors import RunFailed
from worker.local.services import LocalServices
from worker.settings import settings

pytestmark = pytest.mark.services

STEPS = 12
"""Of `some_steps_recipe`."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Servers of our own to break, a worker that survives it, and a client."""

    services: LocalServices
    worker: WorkerProcess
    client: Client
    objects: S3Store

    def submit(self) -> str:
        """A run of a few seconds, met when its first image is committed."""
        run_id = self.client.submit(some_steps_recipe())
        self.eventually_committed(run_id, 3)
        return run_id

    def eventually_committed(self, run_id: str, step: int) -> None:
        name = f"{PREFIX}/{run_id}/{keys.commit(step)}"
        eventually(lambda: self.objects.exists(name), f"step {step} of {run_id}")

    def is_whole(self, run_id: str) -> bool:
        return objects_of(self.objects, run_id) == undisturbed(request(run_id, some_steps_recipe()))

    def steps_told(self, run_id: str, kind: type[StepEvent]) -> list[int]:
        return [event.step for event in self.client.watch(run_id) if isinstance(event, kind)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with LocalServices.start(tmp_path_factory.mktemp("own")) as own:
        env = env_of(own, 0, scripted_delay_s=0.002, visibility_timeout_s=10, lease_s=3, outage_timeout_s=60)
        store = S3Store(own.s3_settings)
        with ready_worker(env, tmp_path_factory.mktemp("outages") / "log") as worker, Client(worker.config) as client:
            yield Stage(services=own, worker=worker, client=client, objects=store)
        store.close()


def test_the_gpu_goes_on_while_s3_is_away_and_the_objects_follow(stage: Stage) -> None:
    run_id = stage.submit()
    stage.services.kill_s3()
    eventually(lambda: stage.client.state(run_id).step == STEPS, "the last step begun without S3")
    stage.services.restart_s3()
    result = stage.client.result(run_id, timeout_s=DEADLINE_S)
    assert result["state"] == "succeeded"
    assert stage.is_whole(run_id)
    artifacts = stage.steps_told(run_id, ArtifactStored)
    assert artifacts == sorted(set(artifacts))


def test_a_cancel_is_seen_while_the_run_waits_for_s3(stage: Stage) -> None:
    run_id = stage.submit()
    stage.services.kill_s3()
    eventually(lambda: stage.client.state(run_id).step == STEPS, "the last step begun without S3")
    assert stage.client.cancel(run_id)
    eventually(lambda: stage.client.state(run_id).is_final, "its end, while S3 is away")
    assert stage.client.state(run_id).state == "cancelled"
    stage.services.restart_s3()


def test_redis_that_comes_back_with_its_data_delays_a_run_and_changes_nothing(stage: Stage) -> None:
    run_id = stage.submit()
    stage.services.kill_redis()
    stage.services.restart_redis()
    stage.client.result(run_id, timeout_s=DEADLINE_S)
    assert stage.is_whole(run_id)
    events = list(stage.client.watch(run_id))
    assert [event.n for event in events] == list(range(1, len(events) + 1))
    assert stage.steps_told(run_id, ArtifactStored) == sorted(set(stage.steps_told(run_id, ArtifactStored)))
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert celery_result(stage.worker, run_id).state == "SUCCESS"


def test_redis_that_lost_its_data_is_told_of_the_run_again(stage: Stage) -> None:
    run_id = stage.submit()
    stage.client.redis.flushall()
    eventually(lambda: stage.client.runs.state(run_id) is not None, "the run told again")
    assert stage.client.result(run_id, timeout_s=DEADLINE_S)["state"] == "succeeded"
    assert stage.is_whole(run_id)
    state = stage.client.state(run_id)
    assert (state.state, state.name, state.steps, state.fraction) == ("succeeded", "test", STEPS, 1)
    assert stage.client.runs.record(run_id).document == some_steps_recipe() | {"model": "scripted"}
    assert celery_result(stage.worker, run_id).state == "SUCCESS"
    assert stage.client.result(stage.client.submit(recipe()), timeout_s=DEADLINE_S)["state"] == "succeeded"


@pytest.mark.parametrize("how", ["emptied", "restarted without its data"])
def test_what_s3_knows_is_told_again_in_order_and_a_reader_that_follows_sees_it(stage: Stage, how: str) -> None:
    run_id = stage.submit()
    seen: list[RunEvent] = []
    with ThreadPoolExecutor(1) as readers:
        reading = readers.submit(lambda: seen.extend(stage.client.watch(run_id)))
        eventually(lambda: stage.client.state(run_id).step > 3, "a step after the first image")
        if how == "emptied":
            stage.client.redis.flushall()
        else:
            stage.services.kill_redis()
            shutil.rmtree(stage.services.data_dir / "redis")
            (stage.services.data_dir / "redis").mkdir(mode=0o700)
            stage.services.restart_redis()
        reading.result(DEADLINE_S)
    stage.client.result(run_id, timeout_s=DEADLINE_S)
    assert stage.is_whole(run_id)
    told = list(stage.client.watch(run_id))
    assert [event.n for event in told] == list(range(1, len(told) + 1))
    assert [event.type for event in told][:3] == ["queued", "started", "artifact"]
    started = told[1]
    assert isinstance(started, Started)
    artifacts = [event.step for event in told if isinstance(event, ArtifactStored)]
    assert artifacts == sorted(set(artifacts))
    assert len(artifacts) == len([name for name in objects_of(stage.objects, run_id) if name.startswith("steps/")])
    live = next(at for at, event in enumerate(told) if event.type not in {"queued", "started", "artifact"})
    assert live - 2 == len([step for step in artifacts if step <= started.done]) > 0
    assert told[live].type == "step"
    again = next(at for at in range(1, len(seen)) if seen[at].n < seen[at - 1].n)
    assert [event.n for event in seen[:again]] == list(range(1, again + 1))
    assert [event.id for event in seen[again:]] == [event.id for event in told]
    assert celery_result(stage.worker, run_id).state == "SUCCESS"


def test_a_run_outlives_its_worker_after_redis_lost_its_data(stage: Stage) -> None:
    run_id = stage.submit()
    stage.client.redis.flushall()
    eventually(lambda: stage.client.runs.state(run_id) is not None, "the run told again")
    stage.worker.kill_child()
    assert stage.client.result(run_id, timeout_s=DEADLINE_S)["state"] == "succeeded"
    assert stage.is_whole(run_id)


def test_a_redis_that_is_full_is_waited_for(stage: Stage) -> None:
    run_id = stage.submit()
    stage.client.redis.config_set("maxmemory", 1)
    at = stage.client.state(run_id)
    eventually(lambda: stage.client.redis.info("stats")["total_error_replies"] > 5, "refused writes")
    assert stage.client.state(run_id).fraction <= at.fraction + 0.2
    stage.client.redis.config_set("maxmemory", 0)
    assert stage.client.result(run_id, timeout_s=DEADLINE_S)["state"] == "succeeded"
    assert stage.is_whole(run_id)
    assert celery_result(stage.worker, run_id).state == "SUCCESS"


def test_a_worker_that_was_idle_while_redis_was_full_serves_again(stage: Stage) -> None:
    stage.client.redis.config_set("maxmemory", 1)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        stage.client.redis.set("full", 1)
    stage.client.redis.config_set("maxmemory", 0)
    assert stage.client.result(stage.client.submit(recipe()), timeout_s=DEADLINE_S)["state"] == "succeeded"


def test_beyond_the_bound_a_run_fails_in_words_and_goes_on_when_asked(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = env_of(stage.services, 5, scripted_delay_s=0.002, lease_s=3, outage_timeout_s=1)
    with ready_worker(env, tmp_path / "log") as impatient, Client(impatient.config) as client:
        run_id = client.submit(some_steps_recipe())
        stage.eventually_committed(run_id, 3)
        stage.services.kill_s3()
        with pytest.raises(RunFailed, match=r"S3 was unavailable for more than 1 s .*s3://autosequence/.*resume"):
            client.result(run_id, timeout_s=DEADLINE_S)
        stage.services.restart_s3()
        committed = len([name for name in objects_of(stage.objects, run_id) if name.startswith("commits/")])
        shell = Shell(tmp_path, monkeypatch)
        shell.use(env)
        assert said(shell("resume", run_id)) == f"Queued run {run_id} again.\n"
        assert client.result(run_id, timeout_s=DEADLINE_S)["state"] == "succeeded"
        assert said(shell("resume", run_id)) == f"Nothing to resume: run {run_id} has already succeeded.\n"
        assert stage.is_whole(run_id)
        starts = [event.done for event in client.watch(run_id) if isinstance(event, Started)]
        assert starts == [0, committed]
    settings.cache_clear()

"""A process that serves: from a request to a result, whatever state the run is met in."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from core.scripted import SPEC
from recipes.model_spec import ModelSpec
from storage import keys
from storage.events import Started
from storage.journal import Journal
from storage.objects.s3 import S3Store
from storage.redis.lease import Lease
from storage.redis.progress import Progress
from storage.redis.record import RunRecord
from tests.worker.serving import config_of, env_of, make_run, objects_of, recipe, request, undisturbed
from worker.connections import ServiceUnavailableError
from worker.errors import ClaimLost, RunCancelled, RunFailed
from worker.jobs.request import RunRequest
from worker.local.services import LocalServices
from worker.serve.delivery import Delivery, Message
from worker.serve.engine import SCRIPTED_SHA256
from worker.serve.runtime import WorkerRuntime

DATABASE = 4


@pytest.fixture
def runtime(services: LocalServices) -> Iterator[WorkerRuntime]:
    opened = WorkerRuntime.connect(config_of(env_of(services, DATABASE)))
    yield opened
    opened.close()


def serve(
    runtime: WorkerRuntime, asked: RunRequest, *, states: list[tuple[int, int]] | None = None
) -> dict[str, object]:
    def update_state(step: int, steps: int) -> None:
        if states is not None:
            states.append((step, steps))

    return Delivery(asked, Message(update_state=update_state), runtime).run_to_completion()


def test_opening_checks_the_services_and_announces_the_model(runtime: WorkerRuntime) -> None:
    runtime.start()
    announced = ModelSpec.from_json(runtime.runs.models()["scripted"])
    assert announced == replace(SPEC, sha256=SCRIPTED_SHA256)
    assert runtime.redis.hget(keys.MODELS, "scripted") == SPEC.to_json_0_1()


def test_a_served_run_has_a_manifest_and_an_end(runtime: WorkerRuntime, s3_store: S3Store, run_id: str) -> None:
    states: list[tuple[int, int]] = []
    result = serve(runtime, request(run_id), states=states)
    state = runtime.runs.state(run_id)
    assert state is not None
    assert (result["state"], state.state, state.fraction) == ("succeeded", "succeeded", 1)
    assert result["manifest"] == state.manifest == f"s3://autosequence/served/{run_id}/manifest.json"
    assert states == [(step, 6) for step in range(1, 7)]
    assert objects_of(s3_store, run_id) == undisturbed(request(run_id))


def test_a_run_that_is_served_again_is_only_told_again(runtime: WorkerRuntime, s3_store: S3Store, run_id: str) -> None:
    first = serve(runtime, request(run_id))
    before = objects_of(s3_store, run_id)
    again = serve(runtime, request(run_id, recipe(seed=99)))
    assert (again["recipe_sha256"], again["manifest"]) == (first["recipe_sha256"], first["manifest"])
    assert objects_of(s3_store, run_id) == before


def test_a_finished_run_that_redis_forgot_is_told_from_the_bucket(runtime: WorkerRuntime, run_id: str) -> None:
    first = serve(runtime, request(run_id))
    runtime.redis.delete(keys.run_state(run_id), keys.run_events(run_id))
    assert serve(runtime, request(run_id))["manifest"] == first["manifest"]
    state = runtime.runs.state(run_id)
    assert state is not None
    assert state.state == "succeeded"


def test_what_was_resolved_first_holds_when_the_message_comes_again(
    runtime: WorkerRuntime, s3_store: S3Store, run_id: str
) -> None:
    stopped = request(run_id)

    class StoppedError(Exception):
        pass

    def stop(*_: object) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        make_run(stopped, s3_store, checkpoint=stop)
    serve(runtime, request(run_id, recipe(seed=99)))
    assert objects_of(s3_store, run_id) == undisturbed(stopped)


def test_a_run_that_another_worker_holds_is_left_alone(runtime: WorkerRuntime, s3_store: S3Store, run_id: str) -> None:
    theirs = Lease(runtime.redis, run_id, ttl_s=3600)
    theirs.acquire()
    with pytest.raises(ClaimLost, match="another worker"):
        serve(runtime, request(run_id))
    assert objects_of(s3_store, run_id) == {}
    theirs.renew()
    theirs.release()


def test_a_folder_that_holds_what_no_worker_left_is_an_error(runtime: WorkerRuntime, run_id: str) -> None:
    journal = Journal(runtime.objects, "served", run_id)
    journal.put("commits/001.json", b"{}", content_type="application/json")
    with pytest.raises(RunFailed, match="not a record of this program"):
        serve(runtime, request(run_id))


def test_a_cancel_is_seen_before_the_first_step(runtime: WorkerRuntime, s3_store: S3Store, run_id: str) -> None:
    record = RunRecord(run_id=run_id, document=recipe(), queue="none", submitted_at=1.0)
    runtime.runs.create(record)
    Progress(runtime.redis, run_id).publish(Started(name="test", model="scripted", steps=6))
    runtime.runs.request_cancel(run_id)
    with pytest.raises(RunCancelled):
        serve(runtime, request(run_id))
    state = runtime.runs.state(run_id)
    assert state is not None
    assert state.state == "cancelled"
    assert "manifest.json" not in objects_of(s3_store, run_id)
    with pytest.raises(RunCancelled):
        serve(runtime, request(run_id))


@pytest.mark.parametrize("document", ["no-such-recipe", recipe(model="other"), recipe(seed=-1)])
def test_a_wrong_recipe_fails_for_good(runtime: WorkerRuntime, s3_store: S3Store, run_id: str, document: str) -> None:
    with pytest.raises(RunFailed) as first:
        serve(runtime, request(run_id, document))
    with pytest.raises(RunFailed) as again:
        serve(runtime, request(run_id))
    state = runtime.runs.state(run_id)
    assert state is not None
    assert str(first.value) == str(again.value) == state.error
    assert objects_of(s3_store, run_id) == {}


def test_no_lease_is_left_behind(runtime: WorkerRuntime, run_id: str) -> None:
    serve(runtime, request(run_id))
    assert not runtime.redis.exists(keys.run_lease(run_id))
    with pytest.raises(RunFailed):
        serve(runtime, request(f"{run_id}-bad", "no-such-recipe"))
    assert not runtime.redis.exists(keys.run_lease(f"{run_id}-bad"))


def test_a_shipped_recipe_finds_its_own_images(runtime: WorkerRuntime, s3_store: S3Store, run_id: str) -> None:
    serve(runtime, request(run_id, "edit-photo"))
    assert any(name.startswith("inputs/000.") for name in objects_of(s3_store, run_id))


def test_two_processes_that_serve_one_run_at_once_have_one_effect(
    services: LocalServices, runtime: WorkerRuntime, s3_store: S3Store, run_id: str
) -> None:
    other = WorkerRuntime.connect(config_of(env_of(services, DATABASE, scripted_delay_s=0.005)))
    ends: list[object] = []
    together = threading.Barrier(2)

    def serve_with(one: WorkerRuntime) -> None:
        together.wait()
        try:
            ends.append(serve(one, request(run_id))["state"])
        except ClaimLost as error:
            ends.append(error)

    threads = [threading.Thread(target=serve_with, args=(one,)) for one in (runtime, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert "succeeded" in ends
    assert objects_of(s3_store, run_id) == undisturbed(request(run_id))


def test_a_host_without_its_services_says_which(services: LocalServices) -> None:
    away = WorkerRuntime.connect(
        config_of(env_of(services, DATABASE, redis_url="redis://127.0.0.1:1/0", outage_timeout_s=0.1))
    )
    with pytest.raises(ServiceUnavailableError, match=r"Redis at 127\.0\.0\.1:1"):
        away.start()
    away.close()
    refused = WorkerRuntime.connect(config_of(env_of(services, DATABASE)))
    refused.objects.close()
    refused = replace(refused, objects=S3Store(replace(services.s3_settings, secret_key="wrong")))
    with pytest.raises(ServiceUnavailableError, match=r"S3 can't be used: .*403"):
        refused.start()
    refused.close()

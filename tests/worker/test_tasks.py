"""What goes wrong becomes one clear end, and what is delivered twice or cut short has one effect."""

import base64
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis import ConnectionError as RedisConnectionError

from core.protocol import UnifiedModel
from storage.events import ArtifactStored, Started
from storage.objects.s3 import S3Store
from storage.redis.lease import Lease
from tests.worker.conftest import IDLE_DATABASE
from tests.worker.jobs.test_inputs import bomb
from tests.worker.serving import (
    DEADLINE_S,
    WorkerProcess,
    celery_call,
    celery_result,
    config_of,
    env_of,
    eventually,
    objects_of,
    ready_worker,
    recipe,
    request,
    some_steps_recipe,
    undisturbed,
)
from worker.app import TASK, make_app
from worker.client import Client
from worker.errors import RunFailed
from worker.local.services import LocalServices
from worker.serve.engine import Engine
from worker.serve.runtime import WorkerRuntime
from worker.settings import PROJECT, queue_of, settings
from worker.tasks import run_task, runtime

NOT_AN_IMAGE = "data:image/png;base64,aGVsbG8="
HUGE_IMAGE = "data:image/png;base64," + base64.b64encode(bomb(9_000, 9_000)).decode()
IN_PROCESS_DATABASE = 8


def deliver(worker: WorkerProcess, run_id: str, document: object) -> None:
    """Publish a run's message, whatever was published before."""
    app = make_app(worker.config, reads_results=False)
    with app.connection_for_write() as connection:
        app.send_task(
            TASK,
            kwargs={"recipe": document},
            task_id=run_id,
            queue=queue_of("scripted"),
            headers={"autoseq_recorded": True},
            connection=connection,
        )


def wait_for_record(client: Client, run_id: str) -> None:
    """A message without a record gets one from the worker that takes it."""
    eventually(lambda: client.runs.state(run_id) is not None, f"a record of {run_id}")


def celery_end(worker: WorkerProcess, run_id: str) -> tuple[str, str]:
    """Celery's own state of a run that has its end, and the words of its error."""
    told = celery_result(worker, run_id)
    return told.state, str(told.result)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (recipe(num_imges=3), "num_imges"),
        (recipe(model="bagel-7b"), "model: 'bagel-7b' is not served by this worker; allowed: 'scripted'"),
        (recipe(image={"width": 100, "height": 64}), "image.width: 100 is not a multiple of 8"),
        (recipe(context=[{"image": NOT_AN_IMAGE}]), "context[0].image: is not a readable image"),
        (recipe(context=[{"image": HUGE_IMAGE}]), "context[0].image: is 9000 x 9000 pixels; at most 64,000,000"),
        (recipe(context=[{"image": "photo.png"}]), "this recipe has no folder"),
        (recipe(context=[{"image": "s3://secrets/photo.png"}]), "can't be read: it does not exist, or recipes may not"),
        (
            recipe(context=[{"image": "s3://autosequence/none.png"}]),
            "can't be read: it does not exist, or recipes may not",
        ),
    ],
)
def test_bad_input_fails_with_the_same_words_everywhere_and_leaves_nothing(
    scripted_worker: WorkerProcess,
    client: Client,
    s3_store: S3Store,
    run_id: str,
    document: dict[str, object],
    words: str,
) -> None:
    deliver(scripted_worker, run_id, document)
    wait_for_record(client, run_id)
    with pytest.raises(RunFailed) as raised:
        client.result(run_id, timeout_s=DEADLINE_S)
    assert words in str(raised.value)
    state = client.state(run_id)
    assert (state.state, state.error) == ("failed", str(raised.value))
    assert celery_end(scripted_worker, run_id) == ("FAILURE", str(raised.value))
    assert objects_of(s3_store, run_id) == {}


def test_arguments_that_make_no_sense_are_said_to(scripted_worker: WorkerProcess, client: Client) -> None:
    run_id = celery_call(scripted_worker.env, recipe="magical-forest", prio="high")
    wait_for_record(client, run_id)
    with pytest.raises(
        RunFailed, match=r"worker\.run takes recipe, overrides, priority, idempotency_key, variables; got prio"
    ):
        client.result(run_id, timeout_s=DEADLINE_S)


def test_a_failed_run_stays_failed_when_its_message_comes_again(scripted_worker: WorkerProcess, client: Client) -> None:
    deliver(scripted_worker, "twice-bad", recipe(num_imges=3))
    first = celery_end(scripted_worker, "twice-bad")
    deliver(scripted_worker, "twice-bad", recipe())
    client.result(client.submit(recipe()), timeout_s=DEADLINE_S)  # so the second message was met
    assert celery_end(scripted_worker, "twice-bad") == first
    assert client.state("twice-bad").state == "failed"


def test_a_finished_run_that_is_delivered_again_is_left_as_it_is(
    scripted_worker: WorkerProcess, client: Client, s3_store: S3Store
) -> None:
    run_id = client.submit(recipe())
    client.result(run_id, timeout_s=DEADLINE_S)
    before, told = objects_of(s3_store, run_id), list(client.watch(run_id))
    deliver(scripted_worker, run_id, recipe(seed=9))
    client.result(client.submit(recipe()), timeout_s=DEADLINE_S)  # so the second message was met
    assert objects_of(s3_store, run_id) == before
    assert list(client.watch(run_id)) == told
    assert celery_end(scripted_worker, run_id)[0] == "SUCCESS"


def test_a_killed_child_is_replaced_and_its_run_goes_on_to_the_same_bytes(
    scripted_worker: WorkerProcess, client: Client, s3_store: S3Store
) -> None:
    run_id = client.submit(some_steps_recipe())
    eventually(lambda: "commits/003.json" in objects_of(s3_store, run_id), "a committed image")
    scripted_worker.kill_child()
    client.result(run_id, timeout_s=DEADLINE_S)
    events = list(client.watch(run_id))
    assert celery_end(scripted_worker, run_id)[0] == "SUCCESS"
    starts = [event.done for event in events if isinstance(event, Started)]
    assert starts[0] == 0
    assert starts[1] >= 3, "it went on after the last committed step"
    stored = [event.step for event in events if isinstance(event, ArtifactStored)]
    assert len(stored) == len(set(stored)), "no step is committed twice"
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert objects_of(s3_store, run_id) == undisturbed(request(run_id, some_steps_recipe()))


def test_two_deliveries_at_once_to_two_workers_have_one_effect(
    scripted_worker: WorkerProcess, client: Client, s3_store: S3Store, tmp_path: Path
) -> None:
    with ready_worker(scripted_worker.env, tmp_path / "log") as other:
        run_id = client.submit(some_steps_recipe())
        deliver(scripted_worker, run_id, some_steps_recipe())
        client.result(run_id, timeout_s=DEADLINE_S)
        eventually(lambda: client.redis.zcard("autoseq:unacked_index") == 0, "both messages done with")
    assert all(worker.received(run_id) for worker in (scripted_worker, other))
    events = list(client.watch(run_id))
    assert [event.done for event in events if isinstance(event, Started)] == [0]
    assert objects_of(s3_store, run_id) == undisturbed(request(run_id, some_steps_recipe()))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "/nowhere/bagel"}, "/nowhere/bagel/llm_config.json: no such file"),
        ({"redis_url": "redis://:hidden@127.0.0.1:1/0"}, "Redis at 127.0.0.1:1 can't be used"),
        ({"s3_secret_key": "hidden"}, "S3 can't be used"),
        ({"s3_prefix": "a b"}, "prefix 'a b'"),
    ],
)
def test_a_worker_that_could_finish_no_run_does_not_start(
    services: LocalServices, settings: dict[str, str], words: str
) -> None:
    env = os.environ | env_of(services, IDLE_DATABASE, outage_timeout_s=1, **settings)
    command = [sys.executable, "-m", "celery", "-A", "worker", "worker"]
    done = subprocess.run(
        command, env=env, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=DEADLINE_S
    )
    said = [line for line in done.stderr.splitlines() if line.startswith("autosequence: ")]
    assert done.returncode != 0
    assert len(said) == 1
    assert words in said[0]
    assert "Traceback" not in done.stderr
    assert "hidden" not in done.stdout + done.stderr


class Failing(Engine):
    """A model that can't be loaded, for a reason nobody thought of."""

    def __init__(self, error: Exception) -> None:
        super().__init__(config_of({"AUTOSEQ_MODEL": "scripted"}))
        self.error = error

    def model(self, on_progress: Callable[[int, int], None] | None = None) -> UnifiedModel:
        del on_progress
        raise self.error


@pytest.fixture
def here(services: LocalServices, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerRuntime]:
    """This process as a worker's child."""
    for name, value in env_of(services, IN_PROCESS_DATABASE).items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    runtime.cache_clear()
    yield runtime()
    runtime().close()
    runtime.cache_clear()
    settings.cache_clear()


def celery_state_of(run_id: str) -> str:
    """What Celery makes of the task, run here and now."""
    return str(run_task.apply(kwargs={"recipe": recipe()}, task_id=run_id).state)


def state_of(here: WorkerRuntime, run_id: str) -> tuple[str, str | None]:
    state = here.runs.state(run_id)
    assert state is not None
    return state.state, state.error


def test_an_error_that_nobody_thought_of_fails_the_run_with_its_words(
    here: WorkerRuntime, monkeypatch: pytest.MonkeyPatch, run_id: str
) -> None:
    monkeypatch.setattr("worker.tasks.runtime", lambda: replace(here, engine=Failing(ZeroDivisionError("by zero"))))
    assert celery_state_of(run_id) == "FAILURE"
    assert state_of(here, run_id) == ("failed", "internal error: ZeroDivisionError: by zero")


def test_a_run_that_redis_left_alone_goes_back_to_the_queue(
    here: WorkerRuntime, monkeypatch: pytest.MonkeyPatch, run_id: str
) -> None:
    monkeypatch.setattr("worker.tasks.runtime", lambda: replace(here, engine=Failing(RedisConnectionError("gone"))))
    assert celery_state_of(run_id) == "REJECTED"
    assert state_of(here, run_id) == ("queued", None)


def test_a_run_that_another_worker_has_is_left_to_it(here: WorkerRuntime, run_id: str) -> None:
    theirs = Lease(here.redis, run_id, ttl_s=3600)
    theirs.acquire()
    assert celery_state_of(run_id) == "IGNORED"
    assert state_of(here, run_id) == ("queued", None)
    theirs.release()

"""A message under the id of an existing run, with wrong or other arguments, changes nothing of that run."""

from collections.abc import Iterator
from typing import Any

import pytest

from storage.objects.s3 import S3Store
from tests.worker.serving import (
    DEADLINE_S,
    WorkerProcess,
    celery_result,
    eventually,
    objects_of,
    ready_worker,
    recipe,
    request,
    start_long_run,
    undisturbed,
)
from worker.app import PRIORITIES, TASK, make_app
from worker.client import Client
from worker.errors import RunFailed
from worker.settings import queue_of

FOREIGN: list[dict[str, Any]] = [
    {"recipe": recipe(), "prio": "high"},
    {"recipe": "no-such-recipe"},
    {"recipe": recipe(seed=9)},
]


@pytest.fixture(scope="module")
def workers(scripted_worker: WorkerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[WorkerProcess]]:
    """Two, of which one can be busy."""
    with ready_worker(scripted_worker.env, tmp_path_factory.mktemp("foreign") / "log", "-n", "second") as second:
        yield [scripted_worker, second]


def send(worker: WorkerProcess, run_id: str, kwargs: dict[str, Any]) -> None:
    """Publish a message under a run's id, before all that wait."""
    app = make_app(worker.config, reads_results=False)
    with app.connection_for_write() as connection:
        app.send_task(
            TASK,
            kwargs=kwargs,
            task_id=run_id,
            queue=queue_of("scripted"),
            priority=PRIORITIES["high"],
            headers={"autoseq_recorded": True},
            connection=connection,
        )


def received(workers: list[WorkerProcess], run_id: str) -> int:
    return sum(worker.received(run_id) for worker in workers)


def send_all(workers: list[WorkerProcess], run_id: str) -> None:
    """Every foreign message under the run's id; until a worker has met them all."""
    before = received(workers, run_id)
    for kwargs in FOREIGN:
        send(workers[0], run_id, kwargs)
    eventually(lambda: received(workers, run_id) >= before + len(FOREIGN), "all of them")


def types_of(client: Client, run_id: str) -> list[str]:
    return [event.type for event in client.watch(run_id, timeout_s=DEADLINE_S)]


def test_a_running_run_goes_on(workers: list[WorkerProcess], client: Client) -> None:
    run_id = start_long_run(client)
    send_all(workers, run_id)
    at = client.state(run_id).fraction
    eventually(lambda: client.state(run_id).fraction > at, "progress")
    assert client.state(run_id).state == "running"
    client.cancel(run_id)
    types = types_of(client, run_id)
    assert (types.count("started"), types[-1], types.count("failed")) == (1, "cancelled", 0)


def test_a_waiting_run_is_run_as_it_was_asked_for(
    workers: list[WorkerProcess], client: Client, s3_store: S3Store, run_id: str
) -> None:
    busy = [start_long_run(client) for _ in workers]
    client.submit(recipe(), run_id=run_id)
    for kwargs in FOREIGN:
        send(workers[0], run_id, kwargs)
    client.cancel(busy[0])
    assert client.result(run_id, timeout_s=DEADLINE_S)["state"] == "succeeded"
    assert types_of(client, run_id).count("started") == 1
    left = objects_of(s3_store, run_id)
    asked = request(run_id, client.runs.record(run_id).document)
    assert left == undisturbed(asked)
    eventually(lambda: received(workers, run_id) >= len(FOREIGN) + 1, "each message and its own")
    client.cancel(busy[1])
    assert celery_result(workers[0], run_id).state == "SUCCESS"


def test_runs_that_ended_stay_as_they_are(workers: list[WorkerProcess], client: Client, run_id: str) -> None:
    succeeded, cancelled, failed = client.submit(recipe()), start_long_run(client), run_id
    client.cancel(cancelled)
    send(workers[0], failed, {"recipe": recipe(num_imges=3)})
    eventually(lambda: client.runs.state(failed), "its record")
    ended = (succeeded, cancelled, failed)
    told = [types_of(client, one) for one in ended]
    before = [(client.state(one), celery_result(workers[0], one)) for one in ended]
    assert [state.state for state, _ in before] == ["succeeded", "cancelled", "failed"]
    for one in ended:
        send_all(workers, one)
    client.result(client.submit(recipe()), timeout_s=DEADLINE_S)  # so the last of them was served
    assert [types_of(client, one) for one in ended] == told
    for one, (state, in_celery) in zip(ended, before, strict=True):
        assert client.state(one) == state
        after = celery_result(workers[0], one)
        assert (after.state, str(after.result)) == (in_celery.state, str(in_celery.result))


def test_an_invalid_message_without_a_run_fails_once(workers: list[WorkerProcess], client: Client, run_id: str) -> None:
    for _ in range(2):
        send(workers[0], run_id, {"recipe": recipe(), "prio": "high"})
    eventually(lambda: received(workers, run_id) >= 2, "both messages")
    with pytest.raises(RunFailed, match="prio"):
        client.result(run_id, timeout_s=DEADLINE_S)
    assert types_of(client, run_id) == ["failed"]
    eventually(lambda: celery_result(workers[0], run_id).state == "FAILURE", "its end in Celery")

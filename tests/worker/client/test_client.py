"""Submit, watch, result, cancel: what a web backend has, and what it is told when something is wrong."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from recipes.faults import RecipeError
from storage.errors import InvalidNameError, RunNotFoundError
from storage.objects.s3 import S3Store
from tests.worker.conftest import IDLE_DATABASE
from tests.worker.serving import (
    DEADLINE_S,
    WorkerProcess,
    celery_call,
    config_of,
    env_of,
    eventually,
    long_recipe,
    objects_of,
    recipe,
)
from worker import client as by_environment
from worker.client import Client
from worker.connections import ServiceUnavailableError
from worker.errors import RunCancelled, RunFailed
from worker.jobs.inputs import InputError
from worker.local.services import LocalServices
from worker.settings import queue_of, settings


def png(colour: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(data, "PNG")
    return data.getvalue()


def waiting(client: Client) -> int:
    """Messages in the queue of the scripted model, at normal priority."""
    return int(client.redis.llen("autoseq:" + queue_of("scripted") + "\x06\x163"))


def test_a_run_without_a_worker_is_queued(idle_client: Client) -> None:
    run_id = idle_client.submit(recipe())
    state = idle_client.state(run_id)
    assert (state.state, state.name, state.model, state.fraction) == ("queued", "test", "scripted", 0)
    assert idle_client.list() == [state]
    assert waiting(idle_client) == 1
    with pytest.raises(TimeoutError, match=r"no end within 0\.1 s"):
        idle_client.result(run_id, timeout_s=0.1)


def test_a_celery_call_without_a_worker_is_queued_with_a_record(services: LocalServices, idle_client: Client) -> None:
    run_id = celery_call(env_of(services, IDLE_DATABASE), recipe="magical-forest", overrides={"seed": 1})
    assert idle_client.state(run_id).state == "queued"
    record = idle_client.runs.record(run_id)
    assert (record.document, record.overrides, record.queue) == ("magical-forest", {"seed": 1}, "model.scripted")
    assert waiting(idle_client) == 1


def test_a_run_is_known_even_when_its_message_cannot_be_sent(idle_client: Client) -> None:
    idle_client.redis.set("autoseq:" + queue_of("scripted") + "\x06\x163", "in the way of the queue")
    with pytest.raises(ServiceUnavailableError, match="run named can't be queued: "):
        idle_client.submit(recipe(), run_id="named")
    assert idle_client.state("named").state == "queued"


def test_one_run_id_and_one_key_are_one_run(idle_client: Client) -> None:
    first = idle_client.submit(recipe(), idempotency_key="order-7")
    assert idle_client.submit(recipe(seed=6), idempotency_key="order-7") == first
    assert idle_client.submit(recipe(seed=7), run_id=first) == first
    assert waiting(idle_client) == 1
    assert idle_client.submit(recipe(), idempotency_key="order-8") != first


@pytest.mark.services
def test_a_client_that_is_kept_submits_again_after_a_restart_of_redis(tmp_path: Path) -> None:
    with LocalServices.start(tmp_path / "services") as own, Client(config_of(env_of(own, 0))) as kept:
        kept.submit(recipe())
        own.kill_redis()
        own.restart_redis()
        kept.submit(recipe())
        assert (kept.count_open(), waiting(kept)) == (2, 2)


def test_many_submits_at_once_with_one_key_are_one_run(idle_client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        submitted = list(pool.map(lambda _: idle_client.submit(recipe(), idempotency_key="rush"), range(16)))
    assert len(set(submitted)) == 1
    assert waiting(idle_client) == 1


def test_a_waiting_run_is_cancelled_at_once_and_never_starts(idle_client: Client) -> None:
    run_id = idle_client.submit(recipe())
    assert idle_client.cancel(run_id)
    assert idle_client.state(run_id).state == "cancelled"
    assert not idle_client.cancel(run_id), "it has its end already"
    with pytest.raises(RunCancelled):
        idle_client.result(run_id)


def test_a_run_cancelled_while_another_is_under_way_is_never_started(client: Client, s3_store: S3Store) -> None:
    running, queued = client.submit(long_recipe()), client.submit(recipe())
    eventually(lambda: client.state(running).state == "running", "a run under way")
    client.cancel(queued)
    client.cancel(running)
    behind = client.submit(recipe())
    client.result(behind, timeout_s=DEADLINE_S)  # so the worker has met the cancelled one
    assert objects_of(s3_store, queued) == {}
    assert [event.type for event in client.watch(queued)] == ["queued", "cancelled"]


def test_a_running_run_stops_and_keeps_what_it_made(client: Client, s3_store: S3Store) -> None:
    run_id = client.submit(long_recipe())
    eventually(lambda: "commits/002.json" in objects_of(s3_store, run_id), "a committed text")
    assert client.cancel(run_id)
    with pytest.raises(RunCancelled, match=f"run {run_id} was cancelled"):
        client.result(run_id, timeout_s=DEADLINE_S)
    left = objects_of(s3_store, run_id)
    assert "steps/002-thinking.txt" in left
    assert "manifest.json" not in left
    assert client.state(run_id).state == "cancelled"


def test_images_are_uploaded_once_and_pinned(idle_client: Client, s3_store: S3Store, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(png("red"))
    file = tmp_path / "edit.yaml"
    file.write_text("name: edit\ncontext:\n  - image: photo.png\n  - text: Make it blue\n")
    run_id = idle_client.submit(file)
    assert objects_of(s3_store, run_id) == {"inputs/000.png": png("red")}
    document = idle_client.runs.record(run_id).document
    assert isinstance(document, dict)
    assert document["context"][0]["image"] == f"s3://autosequence/served/{run_id}/inputs/000.png"


def test_an_editing_run_is_made_from_the_uploaded_image(client: Client, s3_store: S3Store, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(png("green"))
    file = tmp_path / "edit.yaml"
    file.write_text("name: edit\ncontext:\n  - image: photo.png\n  - text: Make it blue\n")
    result = client.result(client.submit(file), timeout_s=DEADLINE_S)
    left = objects_of(s3_store, result["run_id"])
    assert left["inputs/000.png"] == png("green")
    assert [artifact["role"] for artifact in result["artifacts"]] == ["image"]


def test_a_run_whose_folder_holds_other_images_is_refused(idle_client: Client, tmp_path: Path) -> None:
    for colour in ("red", "blue"):
        (tmp_path / "photo.png").write_bytes(png(colour))
        (tmp_path / "edit.yaml").write_text("name: edit\ncontext: [{image: photo.png}, {text: Make it blue}]\n")
        if colour == "red":
            idle_client.submit(tmp_path / "edit.yaml", run_id="one-folder")
    idle_client.redis.flushdb()
    with pytest.raises(InputError, match="its folder in S3 already has other images"):
        idle_client.submit(tmp_path / "edit.yaml", run_id="one-folder")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (recipe(num_imges=3), "num_imges"),
        (recipe(num_images="3"), "num_images"),
        (recipe(auto_refine=False), "1 refinement texts"),
        (recipe(variations_per_image=65), "65 is too large"),
        ("magical-florest", "did you mean 'magical-forest'"),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_is_queued(
    idle_client: Client, document: dict[str, object] | str, words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        idle_client.submit(document)
    assert idle_client.list() == []
    assert waiting(idle_client) == 0


def test_a_model_that_no_worker_serves_is_refused_once_workers_are_known(client: Client, idle_client: Client) -> None:
    with pytest.raises(RecipeError, match="model: no worker serves 'bagel-7b'; allowed: scripted"):
        client.submit(recipe(model="bagel-7b"))
    assert idle_client.state(idle_client.submit(recipe(model="bagel-7b"))).model == "bagel-7b"


def test_sizes_are_checked_against_the_model_that_is_served(client: Client) -> None:
    with pytest.raises(RecipeError, match="multiples of 8 up to 1024"):
        client.submit(recipe(image={"width": 100, "height": 64}))


def test_what_is_unknown_is_said(idle_client: Client) -> None:
    for ask in (idle_client.state, idle_client.cancel, idle_client.result):
        with pytest.raises(RunNotFoundError, match="run nobody: there is no such run"):
            ask("nobody")
    with pytest.raises(InvalidNameError, match=r"run id '\.\./x'"):
        idle_client.submit(recipe(), run_id="../x")


def test_the_bucket_remembers_a_run_that_redis_forgot(client: Client, idle_client: Client) -> None:
    result = client.result(client.submit(recipe()), timeout_s=DEADLINE_S)
    remembered = idle_client.result(result["run_id"])
    assert remembered["manifest"] == result["manifest"]


def test_a_succeeded_run_whose_manifest_was_removed_is_not_made_up(client: Client, s3_store: S3Store) -> None:
    run_id = client.submit(recipe())
    client.result(run_id, timeout_s=DEADLINE_S)
    s3_store.delete(f"served/{run_id}/manifest.json")
    with pytest.raises(RunNotFoundError, match="succeeded, but its manifest is not in s3://autosequence/served/"):
        client.result(run_id)


def test_a_run_that_failed_says_why(client: Client, scripted_worker: WorkerProcess) -> None:
    run_id = celery_call(scripted_worker.env, recipe="no-such-recipe")
    with pytest.raises(RunFailed, match="there is no recipe named 'no-such-recipe'"):
        client.result(run_id, timeout_s=DEADLINE_S)


def test_services_that_are_away_are_named_without_their_passwords(services: LocalServices, tmp_path: Path) -> None:
    env = env_of(services, IDLE_DATABASE, redis_url="redis://:hidden@127.0.0.1:1/0")
    with (
        Client(config_of(env)) as client,
        pytest.raises(ServiceUnavailableError, match=r"Redis at 127\.0\.0\.1:1") as raised,
    ):
        client.submit(recipe())
    assert "hidden" not in str(raised.value)
    (tmp_path / "photo.png").write_bytes(png("red"))
    (tmp_path / "edit.yaml").write_text("name: edit\ncontext: [{image: photo.png}, {text: Make it blue}]\n")
    for wrong in ({"s3_endpoint": "http://127.0.0.1:1"}, {"s3_secret_key": "hidden"}):
        env = env_of(services, IDLE_DATABASE, **wrong)
        with (
            Client(config_of(env)) as client,
            pytest.raises(ServiceUnavailableError, match="images can't be uploaded") as raised,
        ):
            client.submit(tmp_path / "edit.yaml")
        assert "hidden" not in str(raised.value)


@pytest.fixture
def environment(scripted_worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process's settings are those of the scripted worker."""
    for name, value in scripted_worker.env.items():
        if name.startswith("AUTOSEQ_"):
            monkeypatch.setenv(name, value)
    settings.cache_clear()
    by_environment._default.cache_clear()
    yield
    by_environment._default().close()
    by_environment._default.cache_clear()
    settings.cache_clear()


@pytest.mark.usefixtures("environment")
def test_the_settings_of_the_environment_are_enough() -> None:
    run_id = by_environment.submit("magical-forest", overrides={"num_images": 1})
    assert [event.type for event in by_environment.watch(run_id, timeout_s=DEADLINE_S)][-1] == "succeeded"
    assert by_environment.result(run_id)["run_id"] == run_id
    assert not by_environment.cancel(run_id)

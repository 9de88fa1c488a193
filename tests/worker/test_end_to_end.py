"""A recipe asked for in any way becomes objects in S3 and events in Redis, by a real worker on real servers."""

import hashlib
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from core.bagel import Bagel
from core.events import ImageReady, TextReady
from core.model_folder import read_spec
from core.sequence import run_sequence
from recipes.load import find, load
from storage.events import ArtifactStored, StepStarted, TextDelta
from storage.objects.s3 import S3Store
from tests.worker.serving import (
    DEADLINE_S,
    WorkerProcess,
    celery_call,
    celery_result,
    objects_of,
    recipe,
    request,
    undisturbed,
)
from worker.client import Client
from worker.serve.engine import SCRIPTED_SHA256
from worker.settings import PROJECT


@pytest.fixture
def tiny_client(tiny_worker: WorkerProcess) -> Iterator[Client]:
    with Client(tiny_worker.config) as opened:
        yield opened


def test_tiny_bagel_draws_the_same_in_a_worker_and_in_this_process(
    tiny_worker: WorkerProcess, tiny_client: Client, s3_store: S3Store
) -> None:
    overrides = {"num_images": 2, "image.num_timesteps": 10}
    run_id = tiny_client.submit("magical-forest", overrides=overrides)
    result = tiny_client.result(run_id, timeout_s=DEADLINE_S)
    left = objects_of(s3_store, run_id)
    made = [left[f"steps/{artifact['key'].rpartition('/')[2]}"] for artifact in result["artifacts"]]

    folder = PROJECT / "models" / "tiny-bagel"
    asked = load(find("magical-forest"), overrides=overrides, spec=read_spec(folder))
    expected = [
        event.text if isinstance(event, TextReady) else event.image.tobytes()
        for event in run_sequence(asked, Bagel.load(folder, device="cpu"))
        if isinstance(event, TextReady | ImageReady)
    ]
    assert [_content(data) for data in made] == expected
    assert "loading" not in {event.type for event in tiny_client.watch(run_id)}, "it was loaded before the first run"
    assert tiny_worker.config.served_model == "tiny-bagel"


def _content(data: bytes) -> str | bytes:
    if not data.startswith(b"\x89PNG"):
        return data.decode()
    with Image.open(io.BytesIO(data)) as image:
        return image.tobytes()


def test_a_run_leaves_these_objects_and_no_others(client: Client, s3_store: S3Store) -> None:
    run_id = client.submit(recipe())
    client.result(run_id, timeout_s=DEADLINE_S)
    left = objects_of(s3_store, run_id)
    assert sorted(left) == [
        *(f"commits/00{step}.json" for step in range(1, 7)),
        "index.html",
        "manifest.json",
        "model.json",
        "recipe.json",
        "steps/002-thinking.txt",
        "steps/003-image.png",
        "steps/004-refinement.txt",
        "steps/005-thinking.txt",
        "steps/006-image.png",
    ]
    assert left == undisturbed(request(run_id))


def test_each_artifact_is_what_the_manifest_says(client: Client, s3_store: S3Store) -> None:
    run_id = client.submit(recipe())
    result = client.result(run_id, timeout_s=DEADLINE_S)
    manifest = json.loads(s3_store.get_address(result["manifest"]))
    assert [artifact["key"] for artifact in manifest["artifacts"]] == [
        artifact["key"].removeprefix(f"served/{run_id}/") for artifact in result["artifacts"]
    ]
    for artifact in result["artifacts"]:
        data = s3_store.get(artifact["key"])
        assert artifact["sha256"] == hashlib.sha256(data).hexdigest()
        assert artifact["size"] == len(data)


def test_objects_are_served_as_what_they_are(client: Client, s3_store: S3Store) -> None:
    run_id = client.submit(recipe())
    client.result(run_id, timeout_s=DEADLINE_S)
    types = {
        name: s3_store._client.head_object(Bucket=s3_store.bucket, Key=f"served/{run_id}/{name}")["ContentType"]
        for name in objects_of(s3_store, run_id)
    }
    assert types.pop("index.html") == "text/html; charset=utf-8"
    expected = {"json": "application/json", "txt": "text/plain; charset=utf-8", "png": "image/png"}
    assert types == {name: expected[name.rpartition(".")[2]] for name in types}


def test_a_picture_says_where_it_comes_from(client: Client, s3_store: S3Store) -> None:
    run_id = client.submit(recipe())
    result = client.result(run_id, timeout_s=DEADLINE_S)
    drawn = [artifact for artifact in result["artifacts"] if artifact["kind"] == "image"]
    for artifact in drawn:
        with Image.open(io.BytesIO(s3_store.get(artifact["key"]))) as image:
            assert image.info == {
                "autosequence:run": run_id,
                "autosequence:variation": "0",
                "autosequence:step": str(artifact["step"]),
                "autosequence:seed": str(artifact["seed"]),
                "autosequence:recipe-sha256": result["recipe_sha256"],
                "autosequence:model-sha256": SCRIPTED_SHA256,
            }
            assert image.size == (artifact["width"], artifact["height"])


def test_every_event_comes_once_in_order_and_the_fraction_never_falls(client: Client) -> None:
    run_id = client.submit(recipe())
    events = list(client.watch(run_id, timeout_s=DEADLINE_S))
    assert [event.n for event in events] == list(range(1, len(events) + 1))
    assert [event.type for event in events[:2]] == ["queued", "started"]
    assert [event.step for event in events if isinstance(event, StepStarted)] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events if isinstance(event, ArtifactStored)] == [2, 3, 4, 5, 6]
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert (events[-1].type, fractions[-1]) == ("succeeded", 1)
    late = list(client.watch(run_id, after=events[3].id))
    assert late == events[4:]


def test_the_parts_of_each_text_are_told_as_they_are_written(client: Client, s3_store: S3Store) -> None:
    run_id = client.submit(recipe())
    told: dict[int, str] = {}
    for event in client.watch(run_id, timeout_s=DEADLINE_S):
        if isinstance(event, TextDelta):
            told[event.step] = told.get(event.step, "") + event.delta
    result = client.result(run_id)
    texts = [artifact for artifact in result["artifacts"] if artifact["kind"] == "text"]
    assert told == {artifact["step"]: s3_store.get(artifact["key"]).decode() for artifact in texts}


def test_a_celery_call_with_a_name_is_enough_to_get_a_result(scripted_worker: WorkerProcess, client: Client) -> None:
    run_id = celery_call(scripted_worker.env, recipe="magical-forest")
    result = celery_result(scripted_worker, run_id).result
    assert result == client.result(run_id) | _signed(result)
    assert (result["run_id"], result["name"], result["state"]) == (run_id, "magical-forest", "succeeded")


def _signed(result: dict[str, Any]) -> dict[str, Any]:
    """The parts that hold links, which are signed anew each time."""
    return {name: result[name] for name in ("manifest_url", "page_url", "artifacts")}


def test_a_celery_call_takes_a_recipe_overrides_a_priority_and_a_key(
    scripted_worker: WorkerProcess, client: Client
) -> None:
    asked: dict[str, Any] = {
        "recipe": recipe(),
        "overrides": {"num_images": 3, "image.num_timesteps": 4},
        "priority": "high",
        "idempotency_key": "one-call",
    }
    first = celery_call(scripted_worker.env, **asked)
    result = celery_result(scripted_worker, first).result
    assert len([artifact for artifact in result["artifacts"] if artifact["kind"] == "image"]) == 3
    assert client.runs.record(first).priority == "high"
    again = celery_call(scripted_worker.env, **asked)
    assert again != first
    assert celery_result(scripted_worker, again).result == {
        "run_id": first,
        "state": "duplicate",
        "manifest": result["manifest"],
    }
    assert client.runs.state(again) is None, "a duplicate is no run"


def test_the_page_links_to_pictures_that_are_there(client: Client, s3_store: S3Store) -> None:
    run_id = client.submit(recipe())
    client.result(run_id, timeout_s=DEADLINE_S)
    left = objects_of(s3_store, run_id)
    page = left["index.html"].decode()
    images = {name for name in left if name.endswith(".png")}
    assert images <= set(re.findall(r'<a[^>]* href="([^"]+)"', page))
    assert len(re.findall(r'<img[^>]* src="data:image/webp;base64,[^"]+"', page)) == len(images), (
        "seen without its folder"
    )


def test_a_recipe_may_do_without_a_page(client: Client, s3_store: S3Store) -> None:
    run_id = client.submit(recipe(output={"page": False}))
    client.result(run_id, timeout_s=DEADLINE_S)
    assert "index.html" not in objects_of(s3_store, run_id)

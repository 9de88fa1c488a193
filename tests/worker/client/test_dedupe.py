"""The same work asked for twice is one run: the same recipe, images and model, however they are written."""

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from core.scripted import SPEC
from storage.objects.s3 import S3Store
from tests.worker.client.test_client import png, waiting
from tests.worker.serving import DEADLINE_S, PREFIX, make_run, recipe, request
from worker.client import Client


@pytest.fixture
def announced(idle_client: Client) -> Client:
    """Of a Redis that knows the model."""
    idle_client.runs.announce(SPEC.name, SPEC.to_json(), SPEC.to_json_0_1())
    return idle_client


def data_uri(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode()


def edit(image: str) -> dict[str, Any]:
    return recipe(context=[{"image": image}, {"text": "In winter"}], think=False)


def test_the_same_recipe_is_one_run_however_it_is_written(announced: Client) -> None:
    first = announced.submit(recipe(), dedupe=True)
    assert announced.submit(recipe(model="scripted", image={"num_timesteps": 8}), dedupe=True) == first
    assert announced.submit(recipe(seed=1), overrides={"seed": 5}, dedupe=True) == first
    assert waiting(announced) == 1


def test_another_recipe_is_another_run(announced: Client) -> None:
    first = announced.submit(recipe(), dedupe=True)
    assert announced.submit(recipe(seed=6), dedupe=True) != first
    assert announced.submit(recipe()) != first, "who does not ask for it gets a run of their own"
    assert waiting(announced) == 3


def test_images_count_by_their_content(announced: Client, tmp_path: Path, s3_store: S3Store, prefix: str) -> None:
    photo = png("teal")
    stored = f"{PREFIX}/{prefix}/inputs/000.png"
    s3_store.put(stored, photo, content_type="image/png")
    first = announced.submit(edit(data_uri(photo)), dedupe=True)
    assert announced.submit(edit(s3_store.address(stored)), dedupe=True) == first
    assert announced.submit(edit(data_uri(png("red"))), dedupe=True) != first
    (tmp_path / "photo.png").write_bytes(photo)
    file = tmp_path / "edit.yaml"
    file.write_text(
        "name: test\nseed: 5\nnum_images: 2\ncontext:\n  - image: photo.png\n  - text: In winter\n", encoding="utf-8"
    )
    assert announced.submit(file, dedupe=True) == first


def test_the_key_is_the_hash_that_the_run_has(announced: Client, s3_store: S3Store) -> None:
    run_id = announced.submit(recipe(), dedupe=True)
    manifest = make_run(request("of-the-same-recipe"), s3_store, prefix="dedupe")
    assert announced.runs.record(run_id).idempotency_key == f"recipe-{manifest.recipe_sha256}"


def test_many_at_once_are_one_run_with_one_answer(client: Client) -> None:
    document = recipe(seed=4711)
    with ThreadPoolExecutor(10) as pool:
        asked = list(pool.map(lambda _: client.submit(document, dedupe=True), range(50)))
        results = list(pool.map(lambda run_id: client.result(run_id, timeout_s=DEADLINE_S), asked))
    assert len(set(asked)) == 1
    assert len({result["manifest"] for result in results}) == 1
    events = [event.type for event in client.watch(asked[0])]
    assert (events.count("queued"), events.count("started")) == (1, 1)


def test_two_keys_are_one_too_many(announced: Client) -> None:
    with pytest.raises(ValueError, match="can't be used together"):
        announced.submit(recipe(), dedupe=True, idempotency_key="order-7")
    assert waiting(announced) == 0

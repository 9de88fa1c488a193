"""Submitting fetches each image of a recipe once, whatever it is for: checks, dedupe, uploads, a whole sweep."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from recipes.faults import RecipeError
from recipes.load import load
from storage.objects.s3 import S3Store
from tests.worker.client.test_client import png
from tests.worker.conftest import IDLE_DATABASE
from tests.worker.serving import PREFIX, config_of, env_of, objects_of, recipe
from worker.client import Client
from worker.jobs.input_rule import InputRule
from worker.jobs.inputs import Sources
from worker.local.services import LocalServices


class CountingStore(S3Store):
    """The bucket, which counts how often each object is fetched by its address."""

    fetched: Counter[str]

    def get_address(self, address: str, *, max_bytes: int | None = None) -> bytes:
        self.fetched[address] += 1
        return super().get_address(address, max_bytes=max_bytes)


@pytest.fixture
def store(services: LocalServices) -> Iterator[CountingStore]:
    store = CountingStore(services.s3_settings)
    store.fetched = Counter()
    yield store
    store.close()


@pytest.fixture
def counting_client(services: LocalServices, store: CountingStore) -> Iterator[Client]:
    """A client of an empty Redis that no worker listens to."""

    class CountingClient(Client):
        objects = store

    with CountingClient(config_of(env_of(services, IDLE_DATABASE))) as client:
        client.redis.flushdb()
        yield client


def picture(store: S3Store, name: str, colour: str) -> str:
    """The address of a new image in the bucket."""
    store.put(name, png(colour), content_type="image/png")
    return store.address(name)


def edit(*images: str) -> dict[str, Any]:
    return recipe(context=[*({"image": image} for image in images), {"text": "In winter"}], think=False)


@pytest.mark.parametrize("dedupe", [False, True])
def test_submitting_fetches_each_image_once(
    counting_client: Client, store: CountingStore, prefix: str, *, dedupe: bool
) -> None:
    red, blue = (
        picture(store, f"{PREFIX}/{prefix}/inputs/000.png", "red"),
        picture(store, f"{PREFIX}/{prefix}/inputs/001.png", "blue"),
    )
    run_id = counting_client.submit(edit(red, blue, red), dedupe=dedupe)
    assert store.fetched == {red: 1, blue: 1}
    assert objects_of(store, run_id) == {
        "inputs/000.png": png("red"),
        "inputs/001.png": png("blue"),
        "inputs/002.png": png("red"),
    }


def test_a_run_that_exists_needs_no_images(counting_client: Client, store: CountingStore, prefix: str) -> None:
    red = picture(store, f"{PREFIX}/{prefix}/inputs/000.png", "red")
    first = counting_client.submit(edit(red), idempotency_key="once")
    store.delete(f"{PREFIX}/{prefix}/inputs/000.png")
    assert counting_client.submit(edit(red), idempotency_key="once") == first
    assert store.fetched == {red: 1}


def test_a_sweep_fetches_each_image_once(counting_client: Client, store: CountingStore, prefix: str) -> None:
    red, blue = (
        picture(store, f"{PREFIX}/{prefix}/inputs/000.png", "red"),
        picture(store, f"{PREFIX}/{prefix}/inputs/001.png", "blue"),
    )
    sweep = counting_client.sweep(edit(red), {"context.0.image": [red, blue], "seed": [1, 2, 3]})
    assert store.fetched == {red: 1, blue: 1}
    uploaded = [objects_of(store, run_id)["inputs/000.png"] for run_id in sweep.run_ids]
    assert uploaded == [png("red")] * 3 + [png("blue")] * 3


def test_an_image_that_no_run_can_use_is_one_fault(counting_client: Client, store: CountingStore, prefix: str) -> None:
    missing = store.address(f"{PREFIX}/{prefix}/inputs/002.png")
    with pytest.raises(RecipeError) as raised:
        counting_client.sweep(edit(missing), {"seed": [1, 2, 3]})
    assert len(raised.value.faults) == 1
    assert "(with" not in str(raised.value), "every run has it"
    assert store.fetched == {missing: 1}


def test_a_wrong_pin_is_refused_after_the_same_image_was_fetched(store: CountingStore, prefix: str) -> None:
    red = picture(store, f"{PREFIX}/{prefix}/inputs/000.png", "red")
    sources = Sources(store=store, rule=InputRule(bucket=store.bucket, prefix=PREFIX))
    assert len(sources.fetch(load(edit(red)))) == 1
    pinned = recipe(context=[{"image": red, "sha256": "0" * 64}, {"text": "In winter"}], think=False)
    with pytest.raises(ValueError, match="the recipe pins 0000"):
        sources.fetch(load(pinned))

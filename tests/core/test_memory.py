"""The memory estimate: the sums of the published model, which layers stay on a GPU, the default batch, refusals."""

from dataclasses import replace
from typing import Any

import pytest

from core.geometry import BagelConfig, published_spec
from core.memory import MAX_BATCH, MemoryNeeds, ModelSize, layer_places, usable

PUBLISHED = BagelConfig.published()
GIB = 2**30
GB = 1e9


def needs(**changed: Any) -> MemoryNeeds:
    """Of the published model in bfloat16, with images of 1024 x 1024 pixels."""
    return replace(MemoryNeeds(config=PUBLISHED, dtype="bfloat16", side_px=1024), **changed)


@pytest.mark.parametrize(
    ("quantization", "layers", "whole"), [(None, 26.1, 29.4), ("int8", 13.1, 16.3), ("nf4", 7.3, 10.6)]
)
def test_the_published_model_has_its_size(quantization: str | None, layers: float, whole: float) -> None:
    size = ModelSize.of(PUBLISHED, "bfloat16", quantization)
    assert round(size.layer * size.num_layers / GB, 1) == layers
    assert round(size.whole / GB, 1) == whole


def test_the_published_spec_is_that_of_its_geometry() -> None:
    spec = published_spec()
    assert (spec.stride_px, spec.max_side_px, spec.kv_values_per_token) == (16, 1024, 28_672)
    assert spec.vit.stride_px == PUBLISHED.vision.patch_px


def test_the_context_and_a_batch_grow_as_they_should() -> None:
    assert needs(tokens=2_000).context - needs(tokens=1_000).context == 1_000 * 57_344
    assert needs(batch=8).activations == 8 * needs(batch=1).activations
    assert needs(branches=1, side_px=64).activations < needs(side_px=64).activations
    assert replace(needs(), dtype="float32").beside == 2 * needs().beside


@pytest.mark.parametrize(
    ("quantization", "gib", "batch"),
    [(None, 141, 8), (None, 80, 8), (None, 48, 6), (None, 24, 1), ("int8", 48, 8), ("int8", 24, 1), ("nf4", 24, 4)],
)
def test_the_default_batch_follows_the_gpu(quantization: str | None, gib: int, batch: int) -> None:
    assert needs(quantization=quantization).with_default_batch(gib * GIB).batch == batch


def test_the_default_batch_is_the_largest_that_fits() -> None:
    for gib in range(34, 80):
        chosen = needs().with_default_batch(gib * GIB)
        assert chosen.batch == 1 or chosen.whole <= usable(gib * GIB)
        assert chosen.batch == MAX_BATCH or replace(chosen, batch=chosen.batch + 1).whole > usable(gib * GIB)


def test_layers_on_several_gpus_make_room_for_a_larger_batch() -> None:
    assert needs().with_default_batch(48 * GIB, cards=2).batch > needs().with_default_batch(48 * GIB).batch


SIZE = ModelSize(small=100, layer=10, num_layers=8)


@pytest.mark.parametrize(
    ("rooms", "host", "places"),
    [
        ([180], 0, "0d 0d 0d 0d 0d 0d 0d 0d"),
        ([179], 1_000, "0d 0d 0h 0d 0d 0h 0d 0h"),
        ([120], 1_000, "0h 0h 0h 0h 0h 0h 0h 0h"),
        ([140], 1_000, "0d 0h 0h 0h 0d 0h 0h 0h"),
        ([140], 25, "0d 0h 0h 0f 0d 0f 0f 0f"),
        ([140, 40], 0, "0d 0d 0d 0d 1d 1d 1d 1d"),
        ([130, 60], 0, "0d 0d 0d 1d 1d 1d 1d 1d"),
        ([100, 90], 0, "1d 1d 1d 1d 1d 1d 1d 1d"),
        ([140, 20], 1_000, "0d 0h 0h 0h 0d 0h 0h 0h"),
        ([130, 30], 1_000, "0d 0h 0h 0h 1d 1h 1h 1h"),
        ([120, 20], 1_000, "0h 0h 0h 0h 1h 1h 1h 1h"),
    ],
)
def test_each_gpu_computes_a_run_of_layers_and_keeps_those_that_fit(rooms: list[int], host: int, places: str) -> None:
    assert " ".join(f"{gpu}{kept[0]}" for gpu, kept in layer_places(SIZE, rooms, host)) == places


def test_no_gpu_gets_more_than_it_has_room_for() -> None:
    for first in range(100, 200, 7):
        for second in range(0, 120, 7):
            for third in range(0, 60, 7):
                rooms = [first, second, third]
                if first < SIZE.least:
                    continue
                places = layer_places(SIZE, rooms, 1_000)
                assert [gpu for gpu, _ in places] == sorted(gpu for gpu, _ in places)
                for gpu, room in enumerate(rooms):
                    kept = [kept for one, kept in places if one == gpu]
                    used = 10 * kept.count("device") + 20 * ("host" in kept) + 100 * (gpu == 0)
                    assert used <= room or not (kept or gpu == 0)


def test_a_refusal_says_what_is_needed_what_is_free_and_what_would_fit() -> None:
    refused = str(needs(batch=8).refusal(int(20 * GB)))
    assert "needs 25.7 GB on the GPU with all decoder layers offloaded (5.1 GB of weights, 2.3 GB for" in refused
    assert (
        "to compute a batch of 8), but 20.0 GB are free; these would fit: AUTOSEQ_MAX_BATCH=1, AUTOSEQ_MAX_BATCH=4"
        in refused
    )
    assert "these would fit: AUTOSEQ_QUANTIZE=int8, AUTOSEQ_QUANTIZE=fp8, AUTOSEQ_QUANTIZE=nf4, a short" in str(
        needs().refusal(int(9.7 * GB))
    )
    assert "8.0 GB are free; these would fit: a short context (AUTOSEQ_CONTEXT_TOKENS)" in str(
        needs().refusal(int(8 * GB))
    )
    assert str(needs().refusal(int(5 * GB))).endswith("use a larger GPU, or AUTOSEQ_DEVICE=cpu")

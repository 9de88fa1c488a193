"""The engine computes what the official code computes."""

import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.bagel.images import opaque, resized
from core.bagel.reader import items_of
from core.protocol import Context, Picture, Text
from recipes.recipe import TextSettings
from tests.core.bagel.golden import SETS, GoldenSet, deviation, golden_set, levels

logger = logging.getLogger(__name__)

PREFILLS = (
    "text_prefill",
    "image_prefill_photo_vae_vit",
    "image_prefill_photo_vit",
    "image_prefill_rgba_vae_vit",
    "image_prefill_rgba_vit",
)
DRAWINGS = ("t2i_default", "t2i_no_cfg", "t2i_channel_min", "edit_text_channel", "edit_global_two_images")
WRITINGS = ("text_after_prompt", "text_after_image")
KV, LATENT, LEVEL = 1e-4, 1e-3, 1


@pytest.fixture(scope="module", params=SETS)
def golden(request: pytest.FixtureRequest) -> GoldenSet:
    return golden_set(request.param)


@pytest.fixture(scope="module", autouse=True)
def largest(golden: GoldenSet) -> Iterator[dict[str, float]]:
    """The largest deviation of each kind; `pytest --log-cli-level=INFO` shows it."""
    found: dict[str, float] = {}
    yield found
    logger.info("%s: %s", golden.name, ", ".join(f"{kind} {value:.3g}" for kind, value in sorted(found.items())))


def close(found: dict[str, float], kind: str, value: float, limit: float) -> None:
    found[kind] = max(found.get(kind, 0.0), value)
    assert value <= limit


def compare_drawing(
    golden: GoldenSet, largest: dict[str, float], context: Context, scenario: str, result: str
) -> Picture:
    """Draw from the set's noise; the picture drawn."""
    results, model, rows = golden.results, golden.model, golden.rows(scenario)
    noise: Tensor = results[f"{result}.noise"]
    *_, last = model.denoise(context, golden.settings(scenario), noise, rows)
    close(largest, "latent", deviation(last.x, results[f"{result}.latent"]), LATENT)
    image = model.picture(last.x, rows)
    difference = levels(image).int() - results[f"{result}.image"].int()
    close(largest, "image levels", difference.abs().max().item(), LEVEL)
    return Picture(image)


@pytest.mark.parametrize("scenario", PREFILLS)
def test_reading_gives_the_same_keys_and_values(golden: GoldenSet, largest: dict[str, float], scenario: str) -> None:
    said, model = golden.scenarios[scenario], golden.model
    cache = model.network.empty_cache(latents=said.get("image_encoders") != "vit")

    model.reader.sync(cache, items_of(golden.context(scenario)))

    assert (cache.end.tokens, cache.end.position) == (said["kv_len"], said["rope"])
    for kind, stacked in zip("kv", cache.stacked(said["kv_len"]), strict=True):
        close(largest, "kv", deviation(stacked, golden.results[f"{scenario}.{kind}"]), KV)


def test_text_becomes_the_same_tokens(golden: GoldenSet) -> None:
    said = golden.scenarios["text_prefill"]
    assert golden.model.reader.tokenizer.frame(said["context"][0]["text"]) == said["token_ids"]


@pytest.mark.parametrize("scenario", [name for name in PREFILLS if "image" in name])
def test_images_are_resized_to_the_same_pixels(golden: GoldenSet, scenario: str) -> None:
    said = golden.scenarios[scenario]
    picture = golden.item(said["context"][1])
    assert isinstance(picture, Picture)
    found = resized(opaque(picture.image), golden.model.spec.vae)
    assert list(found.size) == said["resized"]
    assert torch.equal(levels(found), golden.results[f"{scenario}.resized_rgb"])


@pytest.mark.parametrize("scenario", DRAWINGS)
def test_guidance_sees_the_same_contexts(golden: GoldenSet, scenario: str) -> None:
    said = golden.scenarios[scenario]
    guided = replace(golden.settings(scenario), cfg_text_scale=2.0, cfg_img_scale=2.0)
    branches = golden.model.branches(golden.context(scenario), guided)
    assert branches.text_free is not None
    assert branches.image_free is not None
    assert branches.full.at.tokens == said["kv_len"]
    assert branches.full.at.position == said["rope"]
    assert branches.text_free.at.tokens == said["kv_len_text_cfg"]
    assert branches.image_free.at.tokens == said["kv_len_image_cfg"]


@pytest.mark.parametrize("scenario", DRAWINGS)
def test_the_same_noise_becomes_the_same_image(golden: GoldenSet, largest: dict[str, float], scenario: str) -> None:
    compare_drawing(golden, largest, golden.context(scenario), scenario, scenario)


@pytest.mark.parametrize("scenario", WRITINGS)
def test_greedy_writing_gives_the_same_tokens(golden: GoldenSet, scenario: str) -> None:
    expected = golden.results[f"{scenario}.token_ids"].tolist()
    longest = golden.scenarios[scenario]["max_length"] - 1  # the official length counts the start token
    assert write_ids(golden, golden.context(scenario), longest) == expected[1:]


def write_ids(golden: GoldenSet, context: Context, max_new_tokens: int) -> list[int]:
    model = golden.model
    settings = TextSettings(max_new_tokens=max_new_tokens, temperature=0.0)
    tokenizer = model.reader.tokenizer
    text = "".join(model.write(context, settings, seed=0))
    ids = list(model.write_ids(settings, seed=0))
    assert text == tokenizer.decode(ids)
    return ids


def test_a_chain_of_three_images_equals_contexts_rebuilt_each_time(
    golden: GoldenSet, largest: dict[str, float]
) -> None:
    said = golden.scenarios["chain"]
    context = golden.context("chain", "start")
    for turn in said["turns"]:
        drawn = compare_drawing(golden, largest, context, "chain", turn["image"])
        context = context.plus(drawn)
        expected = golden.results[f"{turn['greedy']}.token_ids"].tolist()
        assert write_ids(golden, context, len(expected) - 1) == expected[1:]
        context = context.plus(Text(turn["then_text"]))
    branches = golden.model.branches(context, golden.settings("chain"))
    assert branches.full.at.tokens == said["kv_len"]

"""The judge is the model's own yes and no about an image, and leaves nothing behind."""

import gc
import random
from itertools import pairwise
from statistics import mean

import pytest
import torch
from PIL import Image

from core.bagel import Bagel
from core.bagel.context import CacheOffset, CacheView, LayerKV
from core.bagel.judge import YesNoTokens
from core.protocol import Context, Picture, Text
from recipes.recipe import ImageSettings
from tests.core.bagel.golden import SETS, load
from tests.toyworld.edits import move, recolour, repaint, reshape, resize
from tests.toyworld.pictures import picture
from tests.toyworld.scenes import Scene, random_scene

CAT = Context(items=(Text("A cat"),))
SETTINGS = ImageSettings(width=64, height=64, num_timesteps=3)
QUESTION = "Does the picture match: a red circle?"


@pytest.fixture(scope="module", params=SETS)
def model(request: pytest.FixtureRequest) -> Bagel:
    return load(request.param)


def changed(scene: Scene, rng: random.Random) -> Scene:
    """`scene` with one attribute that is another."""
    return rng.choice((move, recolour, repaint, reshape, resize))(scene, rng).target


def photo() -> Image.Image:
    return Image.radial_gradient("L").resize((64, 64)).convert("RGB")


def test_no_token_begins_both_a_yes_and_a_no() -> None:
    # In this vocabulary " Yes", " no" and " No" all begin with a space as a token of its own, 220.
    assert YesNoTokens.of(load("tiny").reader.tokenizer) == YesNoTokens(yes=(56, 341, 675), no=(45, 673))


def test_it_is_the_probability_of_yes_in_the_distribution_of_the_next_token(model: Bagel) -> None:
    cache = model.network.empty_cache(latents=False)
    model.reader.sync(cache, (Picture(photo()), Text(QUESTION)))
    tokens = YesNoTokens.of(model.reader.tokenizer)
    with torch.inference_mode():
        start = model.reader.tokenizer.text_start
        hidden = model.network.read_text([start], CacheView(cache, cache.end, kept=True))
        probabilities = model.network.logits(hidden[-1]).softmax(dim=0)
    yes, no = (probabilities[list(ids)].sum().item() for ids in (tokens.yes, tokens.no))
    assert model.judge(photo(), QUESTION) == pytest.approx(yes / (yes + no), rel=1e-4)


def test_certain_logits_give_0_or_1() -> None:
    tokens = YesNoTokens(yes=(0, 2), no=(1,))
    assert tokens.probability_of_yes(torch.tensor([3.0, -200.0, 3.0])) == 1
    assert tokens.probability_of_yes(torch.tensor([-200.0, 3.0, -200.0])) == pytest.approx(0, abs=1e-80)
    assert tokens.probability_of_yes(torch.tensor([1.0, 1.0, 1.0])) == pytest.approx(2 / 3)


def test_the_same_question_gives_the_same_bits_whatever_came_before(model: Bagel) -> None:
    score = model.judge(photo(), QUESTION)
    list(model.draw(CAT, SETTINGS, seeds=(1, 2)))
    model.judge(photo(), "Is it night?")
    assert model.judge(photo(), QUESTION) == score


def test_it_leaves_the_context_and_no_memory_behind(model: Bagel) -> None:
    list(model.draw(CAT, SETTINGS, seeds=(1,)))
    full = model.branches(CAT, SETTINGS).full
    keys, values = full.cache.stacked(full.at.tokens)
    before, caches = model.tokens_read, live_caches()

    model.judge(photo(), QUESTION)

    assert live_caches() == caches
    patches = sum(model.spec.image_tokens(64, 64)) - (64 // model.spec.stride_px) ** 2 - 2
    assert model.tokens_read == before + patches + len(model.reader.tokenizer.frame(QUESTION))
    after = model.tokens_read
    again = model.branches(CAT, SETTINGS).full
    assert model.tokens_read == after, "nothing of the context is read again"
    assert all(map(torch.equal, again.cache.stacked(again.at.tokens), (keys, values)))


def test_the_likelihood_of_an_answer_is_that_of_writing_it_token_by_token(model: Bagel) -> None:
    answer = model.reader.tokenizer.frame("a red circle")
    cache = model.network.empty_cache(latents=False)
    model.reader.sync(cache, (Picture(photo()), Text("What is it?")))
    at, product = cache.end, 1.0
    with torch.inference_mode():
        for token, following in pairwise(answer):
            hidden = model.network.read_text([token], CacheView(cache, at, kept=True))
            product *= model.network.logits(hidden[-1]).double().softmax(dim=0)[following].item()
            at = CacheOffset(at.tokens + 1, at.position + 1)
    expected = product ** (1 / (len(answer) - 1))
    assert model.judge(photo(), "What is it?", "a red circle") == pytest.approx(expected, rel=1e-4)


def test_tiny_bagel_finds_the_description_that_fits() -> None:
    tiny, rng = load("tiny"), random.Random(0)
    right = 0
    for _ in range(20):
        scene = random_scene(rng, 1)
        true, false = (
            tiny.judge(picture(scene), "What is in the picture?", told.text) for told in (scene, changed(scene, rng))
        )
        right += true > false
    assert right >= 15


def live_caches() -> int:
    return sum(type(found) is LayerKV for found in gc.get_objects())


def test_tiny_bagel_says_yes_to_what_was_true_in_its_training() -> None:
    # There, a description that left something out was always true, and one that named everything in three of eight
    # cases: the model learned these odds, and little about what tells a true full description from a false one.
    tiny, rng = load("tiny"), random.Random(0)
    true, false = [], []
    for number in range(20):
        scene = random_scene(rng, 1)
        (thing,) = scene.things
        text = scene.text if number % 5 < 3 else f"a {thing.colour} {thing.shape}"
        drawn = picture(scene)
        true.append(tiny.judge(drawn, f"Does the picture match: {text}?"))
        false.append(tiny.judge(drawn, f"Does the picture match: {changed(scene, rng).text}?"))
    assert mean(true) > mean(false) + 0.1
    assert mean(false) == pytest.approx(3 / 8, abs=0.1)

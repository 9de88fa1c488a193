"""BAGEL as core uses it: writing, drawing, sizes, previews; the same input gives the same bits."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from core.bagel import Bagel
from core.protocol import Context, Denoising, Drawn, Picture, Text, UnifiedModel
from recipes.recipe import ImageSettings, TextSettings
from tests.core.bagel.golden import MODELS, load

FOREST = Context(items=(Text("A magical forest"),))
SETTINGS = ImageSettings(width=64, height=48, num_timesteps=5)


@pytest.fixture(scope="module")
def model() -> Bagel:
    return load("random")


@pytest.fixture(scope="module")
def tiny() -> Bagel:
    return load("tiny")


def draw(model: UnifiedModel, context: Context, settings: ImageSettings, seed: int = 0) -> Image.Image:
    *_, last = model.draw(context, settings, seeds=(seed,))
    assert isinstance(last, Drawn)
    return last.images[0]


def write(model: UnifiedModel, context: Context, settings: TextSettings, seed: int = 0) -> str:
    return "".join(model.write(context, settings, seed=seed))


def test_the_card_is_that_of_the_folder(model: Bagel) -> None:
    assert (model.spec.name, model.spec.stride_px, model.spec.max_side_px) == ("random", 16, 256)
    assert Bagel.load(MODELS["random"], name="mine", device="cpu").spec.name == "mine"


def test_drawing_tells_each_step_and_ends_with_the_image(model: Bagel) -> None:
    *steps, last = model.draw(FOREST, SETTINGS, seeds=(0,))
    assert [(step.done, step.total) for step in steps if isinstance(step, Denoising)] == [(i, 4) for i in range(1, 5)]
    assert isinstance(last, Drawn)
    assert (last.images[0].size, last.images[0].mode) == ((64, 48), "RGB")


def test_the_same_seed_draws_and_writes_the_same_in_any_order_of_work(model: Bagel) -> None:
    sampled = TextSettings(max_new_tokens=12, temperature=1.0)
    image, text = draw(model, FOREST, SETTINGS, seed=4), write(model, FOREST, sampled, seed=4)
    draw(model, Context(items=(Text("Else"), Picture(image))), SETTINGS, seed=5)
    other = load("random")
    assert write(other, FOREST, sampled, seed=4) == text
    assert draw(other, FOREST, SETTINGS, seed=4).tobytes() == image.tobytes()
    assert draw(model, FOREST, SETTINGS, seed=4).tobytes() == image.tobytes()
    assert draw(model, FOREST, SETTINGS, seed=5).tobytes() != image.tobytes()
    assert write(model, FOREST, sampled, seed=5) != text


def test_global_randomness_is_neither_used_nor_moved(model: Bagel) -> None:
    state = torch.random.get_rng_state()
    draw(model, FOREST, SETTINGS)
    write(model, FOREST, TextSettings(max_new_tokens=4, temperature=1.0))
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_suspended_generation_leaves_the_callers_torch_as_it_was(model: Bagel) -> None:
    for started in (model.draw(FOREST, SETTINGS, seeds=(0,)), model.write(FOREST, TextSettings(), seed=0)):
        next(iter(started))
        assert not torch.is_inference_mode_enabled()
        started.close()  # type: ignore[union-attr]  # the protocol says generators


def test_warming_up_leaves_nothing_and_changes_nothing() -> None:
    cold, warm, state = load("random"), load("random"), torch.random.get_rng_state()
    warm.warm_up()
    assert (warm.tokens_read, warm.tokens_decoded, warm.kv_bytes) == (0, 0, 0)
    assert torch.equal(state, torch.random.get_rng_state())
    sampled = TextSettings(max_new_tokens=12, temperature=1.0)
    assert write(warm, FOREST, sampled) == write(cold, FOREST, sampled)
    assert draw(warm, FOREST, SETTINGS).tobytes() == draw(cold, FOREST, SETTINGS).tobytes()
    assert warm.tokens_read == cold.tokens_read


def test_previews_do_not_change_the_image(model: Bagel) -> None:
    sizes = set()
    for step in model.draw(FOREST, SETTINGS, seeds=(9,)):
        if isinstance(step, Denoising):
            sizes.add(step.preview().size)
        else:
            seen = step.images[0]
    assert sizes == {(64, 48)}
    assert seen.tobytes() == draw(model, FOREST, SETTINGS, seed=9).tobytes()


def test_a_preview_of_a_large_image_is_small(model: Bagel) -> None:
    first = next(iter(model.draw(FOREST, replace(SETTINGS, width=256, height=64), seeds=(9,))))
    assert isinstance(first, Denoising)
    assert first.preview().size == (128, 32)


def test_the_last_preview_is_the_image(tiny: Bagel) -> None:
    *_, step, last = tiny.draw(FOREST, replace(SETTINGS, height=64), seeds=(1,))
    assert isinstance(step, Denoising)
    assert isinstance(last, Drawn)
    assert step.preview().tobytes() == last.images[0].tobytes()


def test_without_a_size_the_last_image_gives_it(model: Bagel) -> None:
    context = FOREST.plus(Picture(Image.new("RGB", (32, 32))), Picture(Image.new("RGB", (90, 45))), Text("Darker"))
    assert draw(model, context, replace(SETTINGS, width=None, height=None)).size == (64, 32)


@pytest.mark.parametrize(
    ("width", "height", "said"),
    [
        (None, None, "no width and height are given, and the context has no image"),
        (64, None, "only one of width and height is given"),
        (60, 64, "can't draw 60x64: sides are multiples of 16 up to 256 pixels"),
        (64, 272, "can't draw 64x272: sides are multiples of 16 up to 256 pixels"),
    ],
)
def test_a_size_that_can_not_be_drawn_is_refused(
    model: Bagel, width: int | None, height: int | None, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        draw(model, FOREST, replace(SETTINGS, width=width, height=height))


def test_writing_stops_at_its_limit(model: Bagel) -> None:
    model.branches(FOREST, SETTINGS)
    assert len(list(model.write_ids(TextSettings(max_new_tokens=5, temperature=0.0), seed=0))) == 5


def test_writing_stops_at_the_end_token(tiny: Bagel) -> None:
    context = Context(items=(Picture(draw(tiny, FOREST, replace(SETTINGS, height=64))),))
    text = write(tiny, context, TextSettings(max_new_tokens=100, temperature=0.0))
    assert text.endswith(".")
    assert "<|" not in text


def test_text_comes_in_whole_characters(model: Bagel) -> None:
    parts = list(model.write(FOREST, TextSettings(max_new_tokens=60, temperature=2.0), seed=0))
    model.branches(FOREST, SETTINGS)
    ids = list(model.write_ids(TextSettings(max_new_tokens=60, temperature=2.0), seed=0))
    assert all(parts)
    assert "".join(parts) == model.reader.tokenizer.decode(ids)


def test_the_tiny_model_draws_what_it_is_told(tiny: Bagel) -> None:
    prompt = Context(items=(Text("A large red circle at the center on a white background"),))
    settings = ImageSettings(width=64, height=64, num_timesteps=24, cfg_text_scale=2.0)
    image = draw(tiny, prompt, settings, seed=1)
    (red, *others), corner = image.getpixel((32, 32)), image.getpixel((3, 3))  # type: ignore[misc]  # an RGB image
    assert red > 180
    assert max(others) < 80
    assert min(corner) > 220  # type: ignore[arg-type]  # an RGB image


def test_bfloat16_draws_about_the_same() -> None:
    half = Bagel.load(MODELS["tiny"], device="cpu", dtype="bfloat16")
    assert {parameter.dtype for parameter in half.network.parameters()} == {torch.bfloat16}
    settings = ImageSettings(width=64, height=64, num_timesteps=10, cfg_text_scale=2.0, cfg_img_scale=1.5)
    context = FOREST.plus(Picture(draw(half, FOREST, settings)), Text("Make it warmer"))
    whole = load("tiny")
    found, expected = (
        torch.frombuffer(bytearray(draw(m, context, settings).tobytes()), dtype=torch.uint8) for m in (half, whole)
    )
    assert (found.float() - expected.float()).abs().mean() < 12
    assert write(half, context, TextSettings(max_new_tokens=20, temperature=0.0))

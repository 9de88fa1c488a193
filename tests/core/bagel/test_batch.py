"""Images drawn together from one context are those drawn alone, and share what was read of it."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import Tensor

from core.bagel import Bagel
from core.bagel.flow import gaussian_noise
from core.protocol import Context, Denoising, Drawn, Picture, Text
from recipes.recipe import ImageSettings
from tests.core.bagel.golden import MODELS, SETS, levels, load

SETTINGS = ImageSettings(
    width=64, height=64, num_timesteps=6, cfg_text_scale=4.0, cfg_img_scale=2.0, cfg_interval=(0.2, 1.0)
)
SEEDS = (11, 3, 7)


@pytest.fixture(scope="module", params=SETS)
def model(request: pytest.FixtureRequest) -> Bagel:
    return load(request.param)


def edit() -> Context:
    """A context in which all three branches differ."""
    photo = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
    return Context(items=(Text("A magical forest"), Picture(photo), Text("Make it warmer")))


def draw(model: Bagel, context: Context, *seeds: int) -> tuple[Image.Image, ...]:
    *_, last = model.draw(context, SETTINGS, seeds=seeds)
    assert isinstance(last, Drawn)
    return last.images


def latents(model: Bagel, settings: ImageSettings, *seeds: int) -> Tensor:
    rows = SETTINGS.height // model.spec.stride_px if SETTINGS.height else 0
    shape = rows * rows, model.network.config.latent_width
    noise = torch.stack([gaussian_noise(*shape, seed) for seed in seeds])
    *_, last = model.denoise(edit(), settings, noise, rows)
    return last.x


def buffers(model: Bagel) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of the whole context, every layer with all the memory it has."""
    held = model.branches(edit(), SETTINGS).full.cache.layers
    return [(layer.keys, layer.values) for layer in held]


@pytest.mark.parametrize("kind", ["global", "channel", "text_channel"])
def test_an_image_drawn_in_company_is_the_one_drawn_alone(model: Bagel, kind: str) -> None:
    settings = replace(SETTINGS, cfg_renorm_type=kind)  # type: ignore[arg-type]  # parametrised
    together = latents(model, settings, *SEEDS)
    alone = torch.cat([latents(model, settings, seed) for seed in SEEDS])
    assert not torch.allclose(alone[0], alone[1], rtol=0.1, atol=0.1)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_images_come_in_the_order_of_their_seeds(model: Bagel) -> None:
    together = draw(model, edit(), *SEEDS)
    alone = [draw(model, edit(), seed)[0] for seed in SEEDS]
    assert len({image.tobytes() for image in alone}) == 3
    for found, expected in zip(together, alone, strict=True):
        assert (levels(found).int() - levels(expected).int()).abs().max() <= 1


def test_the_same_company_gives_the_same_bits(model: Bagel) -> None:
    first = [image.tobytes() for image in draw(model, edit(), *SEEDS)]
    draw(model, Context(items=(Text("Else"),)), 1)
    assert [image.tobytes() for image in draw(model, edit(), *SEEDS)] == first


def test_several_images_read_the_context_once() -> None:
    one, many = load("random"), load("random")
    draw(one, edit(), 1)
    draw(many, edit(), 1, 2, 3, 4)
    assert many.tokens_read == one.tokens_read


def test_several_images_share_the_memory_of_their_context() -> None:
    one, many = load("random"), load("random")
    draw(one, edit(), 1)
    draw(many, edit(), *range(8))
    assert [keys.shape for keys, _ in buffers(many)] == [keys.shape for keys, _ in buffers(one)]
    places = [(keys.data_ptr(), values.data_ptr()) for keys, values in buffers(one)]
    draw(one, edit(), *range(8))
    assert [(keys.data_ptr(), values.data_ptr()) for keys, values in buffers(one)] == places
    assert one.kv_bytes == many.kv_bytes > sum(keys.nbytes + values.nbytes for keys, values in buffers(one))
    one.forget()
    assert one.kv_bytes == 0


def test_more_images_than_fit_are_drawn_in_batches() -> None:
    whole, limited = load("random"), Bagel.load(MODELS["random"], device="cpu", max_batch=2)
    seeds = (1, 2, 3, 4, 5)
    *steps, last = limited.draw(edit(), SETTINGS, seeds=seeds)
    told = [(step.done, step.total, step.preview().size) for step in steps if isinstance(step, Denoising)]
    expected_steps = [*range(1, 6), 5, *range(6, 11), 10, *range(11, 16)]  # again for the second image of a batch
    assert [(done, total) for done, total, _ in told] == [(done, 15) for done in expected_steps]
    assert isinstance(last, Drawn)
    for found, expected in zip(last.images, draw(whole, edit(), *seeds), strict=True):
        assert (levels(found).int() - levels(expected).int()).abs().max() <= 1
    assert limited.tokens_read == whole.tokens_read


def test_a_preview_shows_the_images_under_way_side_by_side() -> None:
    model = Bagel.load(MODELS["tiny"], device="cpu", max_batch=2)
    previews = [step.preview() for step in model.draw(edit(), SETTINGS, seeds=SEEDS) if isinstance(step, Denoising)]
    assert [preview.size for preview in previews] == [(128, 64)] * 6 + [(64, 64)] * 5
    first, second, third = draw(model, edit(), *SEEDS)
    assert previews[4].crop((0, 0, 64, 64)).tobytes() == first.tobytes()
    assert previews[4].crop((64, 0, 128, 64)).tobytes() == second.tobytes()
    assert previews[-1].tobytes() == third.tobytes()


def test_no_image_at_once_is_refused() -> None:
    with pytest.raises(ValueError, match="max_batch is 0; allowed: 1 or more"):
        Bagel.load(MODELS["random"], device="cpu", max_batch=0)

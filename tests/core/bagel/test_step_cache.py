"""Forecast velocities are polynomials through those computed before, branch by branch; resumed images are the same."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import Tensor

from core.bagel import Bagel
from core.bagel.flow import gaussian_noise, schedule
from core.bagel.network import Pack
from core.bagel.step_cache import StepCache, lagrange
from core.cost import velocity_evaluations
from core.events import ImageReady
from core.protocol import Context, Denoising, Drawn, Picture, Text
from core.sequence import run_sequence
from recipes.recipe import ImageSettings, Recipe, StepCacheSettings, TextItem
from tests.core.bagel.golden import MODELS, load

CACHE = StepCacheSettings(interval=3, order=2, warmup=2, tail=1)
SETTINGS = ImageSettings(
    width=64,
    height=64,
    num_timesteps=9,
    cfg_text_scale=4.0,
    cfg_img_scale=2.0,
    cfg_interval=(0.2, 1.0),
    step_cache=CACHE,
)
COMPUTED = (0, 1, 4, 7)
TIMES = schedule(9, 3.0)[:-1].tolist()
SEEDS = (11, 3, 7)


@pytest.fixture(scope="module")
def model() -> Bagel:
    return load("tiny")


def edit() -> Context:
    """A context in which all three branches differ."""
    photo = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
    return Context(items=(Text("A magical forest"), Picture(photo), Text("Make it warmer")))


def noise(model: Bagel, *seeds: int) -> Tensor:
    return torch.stack([gaussian_noise(64, model.network.config.latent_width, seed) for seed in seeds])


def latents(model: Bagel, settings: ImageSettings, *seeds: int) -> Tensor:
    *_, last = model.denoise(edit(), settings, noise(model, *seeds), 8)
    return last.x


def forecast(cache: StepCacheSettings, velocity: Callable[[float], Tensor], branches: int = 1) -> list[Tensor]:
    """The velocities that a cache gives for the steps of TIMES."""
    kept = StepCache(replace(SETTINGS, step_cache=cache))
    return [kept.velocities(time, branches, lambda time=time: velocity(time)) for time in TIMES]  # type: ignore[misc]  # the loop's time


def test_weights_are_those_of_the_polynomial_through_the_points() -> None:
    assert list(lagrange([0.7], 0.1)) == [1]
    assert list(lagrange([1.0, 0.5], 0.0)) == [-1, 2]
    cubic = [time**3 - time for time in (1.0, 0.95, 0.6, 0.5)]
    weights = lagrange([1.0, 0.95, 0.6, 0.5], 0.2)
    assert sum(weight * value for weight, value in zip(weights, cubic, strict=True)) == pytest.approx(0.2**3 - 0.2)


@pytest.mark.parametrize("order", [1, 2])
def test_a_velocity_of_the_order_is_forecast_exactly_on_uneven_times(order: int) -> None:
    scale = torch.randn(2, 1, 5, 3, generator=torch.Generator().manual_seed(1))

    def velocity(time: float) -> Tensor:
        return scale * (1 + time**order)

    cache = StepCacheSettings(interval=2, order=order, warmup=order + 1, tail=1)
    for time, found in zip(TIMES, forecast(cache, velocity, branches=2), strict=True):
        torch.testing.assert_close(found, velocity(time), rtol=0, atol=2e-5)
    bent = [
        (found - scale * time ** (order + 1)).abs().max()
        for time, found in zip(
            TIMES, forecast(cache, lambda time: scale * time ** (order + 1), branches=2), strict=True
        )
    ]
    assert max(bent) > 1e-3, "a higher degree is not"


def test_with_one_velocity_known_it_is_kept_and_with_two_the_line_through_them() -> None:
    found = forecast(
        StepCacheSettings(interval=3, order=2, warmup=1, tail=0), lambda time: torch.full((1, 1, 1, 1), time**2)
    )
    first, later = TIMES[0] ** 2, TIMES[3] ** 2
    slope = (later - first) / (TIMES[3] - TIMES[0])
    line = [later + slope * (time - TIMES[3]) for time in TIMES[4:6]]
    assert [one.item() for one in found[:6]] == pytest.approx([first, first, first, later, *line])


def test_without_a_cache_every_step_is_computed() -> None:
    kept, made = StepCache(replace(SETTINGS, step_cache=None)), torch.zeros(1, 1, 1, 1)
    assert all(kept.velocities(time, 1, lambda: made) is made for time in TIMES)


class Evaluations:
    """Counts the velocities that a model computes: (branches, images) of each step at which it does."""

    def __init__(self, model: Bagel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shapes: list[tuple[int, int]] = []
        real = model.network.velocities

        def counted(*given: object) -> Tensor:
            found = real(*given)  # type: ignore[arg-type]  # passed on
            self.shapes.append((found.shape[0], found.shape[1]))
            return found

        monkeypatch.setattr(model.network, "velocities", counted)


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.2, 0.8), (0.6, 0.95), (0.5, 0.5)])
@pytest.mark.parametrize("cache", [None, CACHE, StepCacheSettings(interval=4, warmup=1, tail=0)])
def test_so_many_velocities_are_computed_as_were_foretold(
    model: Bagel, monkeypatch: pytest.MonkeyPatch, interval: tuple[float, float], cache: StepCacheSettings | None
) -> None:
    settings = replace(SETTINGS, cfg_interval=interval, step_cache=cache)
    evaluations = Evaluations(model, monkeypatch)
    latents(model, settings, 5)
    assert sum(branches for branches, _ in evaluations.shapes) == velocity_evaluations(settings)
    if interval == (0.0, 1.0) and cache == CACHE:
        assert evaluations.shapes == [(3, 1)] * len(COMPUTED)


@pytest.mark.parametrize("seeds", [SEEDS[:1], SEEDS])
@pytest.mark.parametrize("kind", ["global", "channel", "text_channel"])
def test_guidance_and_renormalization_are_those_of_each_branchs_forecast(
    model: Bagel, monkeypatch: pytest.MonkeyPatch, kind: str, seeds: tuple[int, ...]
) -> None:
    ends = torch.randn(2, 3, 1, 64, model.network.config.latent_width, generator=torch.Generator().manual_seed(2))

    def straight(x: Tensor, at: float, *others: object) -> Tensor:
        """The velocities of each branch are a line in time, so forecasts of order 1 are those velocities."""
        time = TIMES[at] if isinstance(at, int) else at
        *_, pack = others
        assert isinstance(pack, Pack)
        start, end = ends
        return torch.lerp(start, end, time)[: pack.contexts].expand(-1, *x.shape)

    monkeypatch.setattr(model.network, "velocities", straight)
    evaluations = Evaluations(model, monkeypatch)
    plain = replace(SETTINGS, cfg_renorm_type=kind, cfg_interval=(0.5, 1.0), step_cache=None)  # type: ignore[arg-type]  # parametrised
    expected = latents(model, plain, *seeds)
    assert len(evaluations.shapes) == 8
    cached = replace(plain, step_cache=StepCacheSettings(interval=4, order=1, warmup=2, tail=0))
    torch.testing.assert_close(latents(model, cached, *seeds), expected)
    assert evaluations.shapes[8:] == [(3, len(seeds))] * 3


def test_an_image_drawn_in_company_is_the_one_drawn_alone(model: Bagel) -> None:
    together = latents(model, SETTINGS, *SEEDS)
    alone = torch.cat([latents(model, SETTINGS, seed) for seed in SEEDS])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)


def test_each_batch_has_a_cache_of_its_own_and_previews_show_every_step() -> None:
    model = Bagel.load(MODELS["tiny"], device="cpu", max_batch=2)
    *steps, last = model.draw(edit(), SETTINGS, seeds=SEEDS)
    shown = [(step.done, step.preview().size) for step in steps if isinstance(step, Denoising)]
    told = [*range(1, 9), 8, *range(9, 17)]  # again for the second image of the first batch
    assert shown == [(done, (128, 64) if done <= 8 else (64, 64)) for done in told]
    assert isinstance(last, Drawn)
    for images, seeds in ((last.images[:2], SEEDS[:2]), (last.images[2:], SEEDS[2:])):
        *_, drawn = model.draw(edit(), SETTINGS, seeds=seeds)
        assert isinstance(drawn, Drawn)
        assert [image.tobytes() for image in images] == [image.tobytes() for image in drawn.images]


def test_a_cached_image_is_closer_to_that_of_all_steps_than_one_of_fewer_steps(model: Bagel) -> None:
    full = ImageSettings(width=64, height=64, num_timesteps=40, cfg_text_scale=2.0, cfg_img_scale=1.0)
    cached = replace(full, step_cache=StepCacheSettings(interval=3))
    fewer = replace(full, num_timesteps=17)
    assert velocity_evaluations(fewer) >= velocity_evaluations(cached)
    context = Context(items=(Text("A small red circle at the center on a white background"),))
    expected, near, far = ([*model.denoise(context, one, noise(model, 3), 8)][-1].x for one in (full, cached, fewer))
    assert (near - expected).abs().mean() < (far - expected).abs().mean() / 2


def test_a_sequence_resumed_after_an_image_equals_an_undisturbed_one() -> None:
    recipe = Recipe(
        name="test",
        context=(TextItem(text="A circle"),),
        num_images=2,
        variations_per_image=2,
        refinement_prompts=("Make it red",),
        image=replace(SETTINGS, cfg_img_scale=1.0),
    )
    whole = [event for event in run_sequence(recipe, load("tiny")) if isinstance(event, ImageReady)]
    other = Bagel.load(MODELS["tiny"], device="cpu")
    first = tuple(one for one in whole[0].variations if one.selected)
    (again,) = [
        event for event in run_sequence(recipe, other, done=(None, first, None)) if isinstance(event, ImageReady)
    ]
    assert [one.image.tobytes() for one in again.variations] == [one.image.tobytes() for one in whole[1].variations]

"""The solver follows a velocity; guidance and its renormalisations are the published formulas."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from core.bagel.flow import FlowStep, euler, gaussian_noise, guide, holds, one_ahead, schedule
from recipes.recipe import ImageSettings


def test_a_straight_flow_ends_where_it_points_and_says_so_from_the_first_step() -> None:
    noise, image = gaussian_noise(5, 3, seed=1), torch.full((5, 3), 0.25)
    steps = list(euler(lambda _x, _t: noise - image, noise, schedule(8, shift=3.0)))
    assert [(step.done, step.total) for step in steps] == [(done, 7) for done in range(1, 8)]
    torch.testing.assert_close(steps[-1].x, image, rtol=0, atol=1e-5)
    for step in steps:
        torch.testing.assert_close(step.clean, image, rtol=0, atol=1e-5)


def test_euler_converges_to_the_exponential() -> None:
    start = torch.ones(1, 1)
    *_, last = euler(lambda x, _t: x, start, torch.linspace(1, 0, 10_001))
    assert last.x.item() == pytest.approx(torch.e**-1, rel=1e-3)


def test_steps_land_on_the_product_of_their_factors() -> None:
    times = schedule(6, shift=2.0)
    *_, last = euler(lambda x, _t: x, torch.ones(1, 1), times)
    assert last.x.item() == pytest.approx(torch.prod(1 - (times[:-1] - times[1:])).item(), rel=1e-5)


def test_a_step_is_told_when_the_one_before_is_done_and_the_next_is_not_launched() -> None:
    told: list[str] = []

    def velocity(x: Tensor, number: int) -> Tensor:
        told.append(f"launch {number}")
        return x

    def mark() -> Callable[[], None]:
        name = told[-1].removeprefix("launch ")
        return lambda: told.append(f"done {name}")

    steps: Iterator[FlowStep] = one_ahead(euler(velocity, torch.ones(1, 1), schedule(4, shift=1.0)), mark)
    told.extend(f"tell {step.done - 1}" for step in steps)
    assert told == [
        *("launch 0", "tell 0"),
        *("launch 1", "done 0", "tell 1"),
        *("launch 2", "done 1", "tell 2"),
    ]


def test_the_schedule_is_shifted_towards_noise() -> None:
    assert schedule(5, shift=1.0).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    torch.testing.assert_close(schedule(5, shift=3.0), torch.tensor([1.0, 0.9, 0.75, 0.5, 0.0]))


def test_the_same_seed_makes_the_same_noise_and_touches_no_global_state() -> None:
    state = torch.random.get_rng_state()
    assert torch.equal(gaussian_noise(4, 2, seed=7), gaussian_noise(4, 2, seed=7))
    assert not torch.equal(gaussian_noise(4, 2, seed=7), gaussian_noise(4, 2, seed=8))
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(("time", "expected"), [(0.4, False), (0.41, True), (0.9, True), (0.91, False)])
def test_guidance_holds_above_the_first_bound_and_up_to_the_second(time: float, *, expected: bool) -> None:
    assert holds((0.4, 0.9), torch.tensor(time)) is expected


def settings(kind: str, least: float = 0.0, text: float = 2.0, img: float = 3.0) -> ImageSettings:
    return ImageSettings(cfg_text_scale=text, cfg_img_scale=img, cfg_renorm_type=kind, cfg_renorm_min=least)  # type: ignore[arg-type]  # parametrised


V, V_TEXT, V_IMG = torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [0.0, 0.0]])


def norm(x: Tensor) -> Tensor:
    return x.square().sum(-1).sqrt()


def test_global_renormalisation_keeps_the_norm_of_the_whole() -> None:
    guided = guide(V, V_TEXT, V_IMG, settings("global"))
    straight = V_IMG + 3 * (2 * V - V_IMG)
    torch.testing.assert_close(guided, straight * norm(V.flatten()) / norm(straight.flatten()))


def test_channel_renormalisation_keeps_the_norm_of_each_token() -> None:
    guided = guide(V, V_TEXT, V_IMG, settings("channel"))
    torch.testing.assert_close(norm(guided), norm(V))


def test_text_channel_renormalisation_comes_before_the_images_guide() -> None:
    guided = guide(V, V_TEXT, V_IMG, settings("text_channel"))
    torch.testing.assert_close(guided, V_IMG + 3 * (V - V_IMG))


def test_no_token_shrinks_below_the_least_factor_or_grows() -> None:
    torch.testing.assert_close(guide(V, V_TEXT, None, settings("channel", least=0.75)), 2 * V * 0.75)
    halved = guide(V, V_TEXT, None, settings("channel", text=0.5))
    torch.testing.assert_close(halved, 0.5 * V)


@pytest.mark.parametrize("kind", ["global", "channel", "text_channel"])
def test_each_image_keeps_its_own_norm(kind: str) -> None:
    pairs = [torch.stack((part, 5 * part.flip(0))) for part in (V, V_TEXT, V_IMG)]
    together = guide(pairs[0], pairs[1], pairs[2], settings(kind))
    for number, image in enumerate(together):
        v, v_text, v_img = (pair[number] for pair in pairs)
        torch.testing.assert_close(image, guide(v, v_text, v_img, settings(kind)))

"""Tokens are drawn from the distribution that the settings describe."""

import pytest
import torch
from torch import Tensor

from core.bagel.sample import draw_tokens, next_token, uniforms
from recipes.recipe import TextSettings

# Probabilities 0.1, 0.4, 0.2, 0.3 at temperature 1.
LOGITS = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
GRID = 10_000


def at(uniform: float) -> Tensor:
    return torch.tensor([uniform], dtype=torch.float64)


def shares(settings: TextSettings, logits: Tensor = LOGITS) -> list[float]:
    """How often each token comes out, over an even grid of uniforms."""
    drawn = draw_tokens(logits, settings, (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID).tolist()
    return [drawn.count(token) / GRID for token in range(len(logits))]


def draw_in_float64(logits: Tensor, settings: TextSettings, uniform: float) -> int:
    """The same draw from sums of float64, added in the order of the tokens on the CPU."""
    probabilities = torch.softmax(logits.float() / settings.temperature, dim=-1)
    ids = None
    if settings.top_k or settings.top_p < 1:
        probabilities, ids = probabilities.sort(descending=True, stable=True)
        probabilities = probabilities[: settings.top_k or None]
    cumulative = probabilities.double().cumsum(dim=-1)
    if ids is not None:
        before = cumulative - probabilities
        cumulative = cumulative[before < settings.top_p * cumulative[-1]]
    place = int(torch.searchsorted(cumulative, cumulative[-1] * uniform, right=True))
    place = min(place, len(cumulative) - 1)
    return place if ids is None else int(ids[place])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (TextSettings(temperature=1.0), [0.1, 0.4, 0.2, 0.3]),
        (TextSettings(temperature=0.5), [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
        (TextSettings(temperature=1.0, top_k=2), [0, 4 / 7, 0, 3 / 7]),
        (TextSettings(temperature=1.0, top_k=100), [0.1, 0.4, 0.2, 0.3]),
        (TextSettings(temperature=1.0, top_p=0.65), [0, 4 / 7, 0, 3 / 7]),
        (TextSettings(temperature=1.0, top_p=0.75), [0, 4 / 9, 2 / 9, 3 / 9]),
        (TextSettings(temperature=1.0, top_p=0.01), [0, 1, 0, 0]),
        (TextSettings(temperature=1.0, top_k=3, top_p=0.5), [0, 4 / 7, 0, 3 / 7]),
    ],
)
def test_shares_are_those_of_the_cut_distribution(settings: TextSettings, expected: list[float]) -> None:
    assert shares(settings) == pytest.approx(expected, abs=2 / GRID)


@pytest.mark.parametrize("settings", [TextSettings(temperature=1.0), TextSettings(temperature=1.0, top_p=0.9)])
@pytest.mark.parametrize("vocabulary", [4, 7, 1000])
def test_the_ends_of_the_uniform_are_tokens_too(settings: TextSettings, vocabulary: int) -> None:
    logits = torch.full((vocabulary,), -torch.inf)
    logits[1:3] = 0
    assert draw_tokens(logits, settings, at(0.0)).item() in {1, 2}
    assert draw_tokens(logits, settings, at(1 - 2**-53)).item() in {1, 2}


@pytest.mark.parametrize(
    "settings",
    [
        TextSettings(temperature=1.0),
        TextSettings(temperature=0.3),
        TextSettings(temperature=1.0, top_k=50),
        TextSettings(temperature=1.0, top_k=1_000_000),
        TextSettings(temperature=1.0, top_p=0.9),
        TextSettings(temperature=5.0, top_p=0.999),
        TextSettings(temperature=0.7, top_k=40, top_p=0.8),
    ],
    ids=lambda settings: f"{settings.temperature}-{settings.top_k}-{settings.top_p}",
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_token_is_that_of_a_sum_in_float64(settings: TextSettings, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    for scale in (0.1, 1.0, 3.0, 10.0, 30.0):
        for vocabulary in (2, 683, 20_000):
            logits = (torch.randn(vocabulary, generator=generator) * scale).to(dtype)
            drawn_at = uniforms(vocabulary, 8)
            expected = [draw_in_float64(logits, settings, uniform.item()) for uniform in drawn_at]
            assert draw_tokens(logits, settings, drawn_at).tolist() == expected


def test_a_drawn_token_does_not_depend_on_the_order_of_the_sum() -> None:
    logits = torch.randn(5000, generator=torch.Generator().manual_seed(1)) * 3
    weights = (torch.softmax(logits, dim=-1) * 2**52).round().long()
    for uniform in uniforms(1, 20):
        token = draw_tokens(logits, TextSettings(temperature=1.0), uniform[None]).item()
        below = weights[torch.arange(int(token)).flip(0)].sum()  # any order: integers
        assert below <= int(weights.sum().double() * uniform) < below + weights[int(token)]


@pytest.mark.parametrize("settings", [TextSettings(temperature=1.0), TextSettings(temperature=0.5, top_k=3, top_p=0.5)])
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_logits_that_are_not_numbers_draw_a_token_of_the_vocabulary(settings: TextSettings, wrong: float) -> None:
    logits = torch.full((5,), wrong)
    assert set(draw_tokens(logits, settings, uniforms(0, 50)).tolist()) <= set(range(5))


def test_temperature_zero_takes_the_likeliest() -> None:
    assert next_token(LOGITS, TextSettings(temperature=0.0), at(0.9)).tolist() == [1]
    assert next_token(torch.tensor([0.0, 2.0, 2.0]), TextSettings(temperature=0.0), at(0.9)).tolist() == [1]


def test_the_uniforms_of_a_seed_are_those_drawn_one_by_one() -> None:
    generator = torch.Generator().manual_seed(7)
    one_by_one = [torch.rand((), generator=generator, dtype=torch.float64).item() for _ in range(300)]
    assert uniforms(7, 300).tolist() == one_by_one
    assert uniforms(7, 20).tolist() == one_by_one[:20], "a longer limit does not change the first tokens"
    assert uniforms(8, 300).tolist() != one_by_one

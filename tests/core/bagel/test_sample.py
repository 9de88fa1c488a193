"""Tokens are drawn from the distribution that the settings describe."""

import pytest
import torch

from core.bagel.sample import Sampler, draw_token
from recipes.recipe import TextSettings

# Probabilities 0.1, 0.4, 0.2, 0.3 at temperature 1.
LOGITS = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
GRID = 10_000


def shares(settings: TextSettings, logits: torch.Tensor = LOGITS) -> list[float]:
    """How often each token comes out, over an even grid of uniforms."""
    drawn = [draw_token(logits, settings, (place + 0.5) / GRID) for place in range(GRID)]
    return [drawn.count(token) / GRID for token in range(len(logits))]


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
def test_the_ends_of_the_uniform_are_tokens_too(settings: TextSettings) -> None:
    logits = torch.tensor([-torch.inf, 0.0, 0.0, -torch.inf])
    assert draw_token(logits, settings, 0.0) in {1, 2}
    assert draw_token(logits, settings, 1 - 1e-16) in {1, 2}


def test_temperature_zero_takes_the_likeliest() -> None:
    assert Sampler(TextSettings(temperature=0.0), seed=3).choose(LOGITS) == 1


def test_the_same_seed_draws_the_same_tokens() -> None:
    def drawn(seed: int) -> list[int]:
        sampler = Sampler(TextSettings(temperature=1.0), seed)
        return [sampler.choose(LOGITS) for _ in range(40)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)

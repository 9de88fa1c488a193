"""Selection of the next token on the device: the most likely, or one drawn from the model's distribution.

Axes: V vocabulary size, T tokens of a text.
"""

import torch
from torch import Tensor

from recipes.recipe import TextSettings

UNIT = 2.0**-52
"""Probabilities are added as integer multiples of this: exactly, so the sum does not depend on its order. The sum of a
distribution still fits in a float64."""


def uniforms(seed: int, count: int) -> Tensor:
    """The random numbers of a text, one for each token: float64 (T,), from the CPU so that all devices use the same."""
    return torch.rand(count, generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float64)


def next_token(logits: Tensor, settings: TextSettings, uniform: Tensor) -> Tensor:
    """The next token id (1,), without waiting for the device.

    Args:
        logits: (V,).
        settings: with temperature 0, the most likely token is taken and `uniform` is not used.
        uniform: float64 (1,), at least 0 and less than 1.
    """
    if settings.temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    return draw_tokens(logits, settings, uniform)


def draw_tokens(logits: Tensor, settings: TextSettings, uniform: Tensor) -> Tensor:
    """For each of the numbers `uniform` (T,), the token at which the cumulative distribution exceeds it.

    The distribution is softmax(logits / temperature), restricted to the top_k most likely tokens and to the smallest
    set of them with total probability top_p.
    """
    probabilities = torch.softmax(logits.float() / settings.temperature, dim=-1)
    ids = None
    if settings.top_k or settings.top_p < 1:
        probabilities, ids = probabilities.sort(descending=True, stable=True)
        probabilities = probabilities[: settings.top_k or None]
    cumulative = (probabilities / UNIT).round_().long().cumsum(dim=-1)
    total = cumulative[-1:]
    if settings.top_p < 1:
        total = cumulative[_first(cumulative, (total.double() * settings.top_p).ceil().long() - 1)]
    place = _first(cumulative, (total * uniform).long())
    return place if ids is None else ids[place]


def _first(cumulative: Tensor, above: Tensor) -> Tensor:
    """The first places of numbers greater than `above`. Always a place, also for logits that are not numbers."""
    return torch.searchsorted(cumulative, above, right=True).clamp_(max=len(cumulative) - 1)

"""The next token: the likeliest, or one drawn from the model's distribution."""

import torch
from torch import Tensor

from recipes.recipe import TextSettings


class Sampler:
    """Chooses tokens by `settings`; its randomness is its own, from `seed`."""

    def __init__(self, settings: TextSettings, seed: int) -> None:
        self.settings = settings
        self.generator = torch.Generator("cpu").manual_seed(seed)

    def choose(self, logits: Tensor) -> int:
        """A token id, from logits (V,)."""
        if self.settings.temperature == 0:
            return int(logits.argmax())
        uniform = torch.rand((), generator=self.generator, dtype=torch.float64).item()
        return draw_token(logits, self.settings, uniform)


def draw_token(logits: Tensor, settings: TextSettings, uniform: float) -> int:
    """The token at which the distribution function passes `uniform` (0 <= uniform < 1).

    The distribution is softmax(logits / temperature), cut to the top_k likeliest tokens and to the fewest likeliest
    that hold top_p of it. It is summed on the CPU, where sums do not depend on scheduling.
    """
    probabilities = torch.softmax(logits.float() / settings.temperature, dim=-1)
    ids = None
    if settings.top_k or settings.top_p < 1:
        probabilities, ids = probabilities.sort(descending=True, stable=True)
        probabilities = probabilities[: settings.top_k or None]
    cumulative = probabilities.cpu().double().cumsum(dim=-1)
    if ids is not None:
        before = cumulative - probabilities.cpu()
        cumulative = cumulative[before < settings.top_p * cumulative[-1]]
    place = int(torch.searchsorted(cumulative, cumulative[-1] * uniform, right=True))
    place = min(place, len(cumulative) - 1)
    return place if ids is None else int(ids[place])

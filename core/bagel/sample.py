"""Selection of the next token: the most likely, or one sampled from the model's distribution."""

import torch
from torch import Tensor

from recipes.recipe import TextSettings


class Sampler:
    """Selects tokens by `settings`, with its own random generator from `seed`."""

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
    """The token at which the cumulative distribution exceeds `uniform` (0 <= uniform < 1).

    The distribution is softmax(logits / temperature), restricted to the top_k most likely tokens and to the smallest
    set of them with total probability top_p. Summed on the CPU, where the result does not depend on scheduling.
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

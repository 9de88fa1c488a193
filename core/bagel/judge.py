"""The model's answer to a question about an image, as a probability.

Axes: L tokens of an answer, V vocabulary size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.bagel.tokenizer import BagelTokenizer

YES = ("yes", "Yes", " yes", " Yes")
NO = ("no", "No", " no", " No")


@dataclass(frozen=True, kw_only=True)
class YesNoTokens:
    """The first tokens of the answers yes and no; no token is in both sets."""

    yes: tuple[int, ...]
    no: tuple[int, ...]

    @staticmethod
    def of(tokenizer: BagelTokenizer) -> "YesNoTokens":
        yes, no = ({tokenizer.first(spelling) for spelling in spellings} for spellings in (YES, NO))
        return YesNoTokens(yes=tuple(sorted(yes - no)), no=tuple(sorted(no - yes)))

    def probability_of_yes(self, logits: Tensor) -> float:
        """The probability of yes, given that the answer is yes or no, from the logits (V,) of its first token."""
        scores = logits.cpu()[[*self.yes, *self.no]].double()
        return float(scores.softmax(dim=0)[: len(self.yes)].sum())


def likelihood(logits: Tensor, ids: Sequence[int]) -> float:
    """The geometric mean of the probabilities of the tokens `ids` (L of them), from the logits (L, V) for each.

    So the length of an answer does not matter by itself.
    """
    chosen = torch.tensor(ids, device=logits.device)[:, None]
    return float(logits.double().log_softmax(dim=-1).gather(-1, chosen).mean().exp())

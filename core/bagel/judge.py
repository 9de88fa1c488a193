"""What the model answers to a question about an image, as a number.

Axes: L tokens of an answer, V of the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from core.bagel.tokenizer import BagelTokenizer

YES = ("yes", "Yes", " yes", " Yes")
NO = ("no", "No", " no", " No")


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """The tokens with which an answer begins; none begins both a yes and a no."""

    yes: tuple[int, ...]
    no: tuple[int, ...]

    @staticmethod
    def of(tokenizer: BagelTokenizer) -> "Verdicts":
        yes, no = ({tokenizer.first(spelling) for spelling in spellings} for spellings in (YES, NO))
        return Verdicts(yes=tuple(sorted(yes - no)), no=tuple(sorted(no - yes)))

    def share_of_yes(self, logits: Tensor) -> float:
        """The probability of yes among the answers that are yes or no, from the logits (V,) of an answer's start.

        It is summed on the CPU, where sums do not depend on scheduling.
        """
        scores = logits[[*self.yes, *self.no]].cpu().double()
        return float(scores.softmax(dim=0)[: len(self.yes)].sum())


def likelihood(logits: Tensor, ids: Sequence[int]) -> float:
    """The geometric mean of the probabilities of tokens `ids` (L of them) by the logits (L, V) before each.

    So the length of an answer does not count by itself. It is summed on the CPU, where sums do not depend on
    scheduling.
    """
    chosen = logits.cpu().double().log_softmax(dim=-1)[range(len(ids)), list(ids)]
    return float(chosen.mean().exp())

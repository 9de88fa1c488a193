"""Estimates the completed fraction of a run and its remaining time, from weights of the plan's steps."""

import time
from collections.abc import Callable, Sequence

from core.cost import velocity_evaluations
from core.plan import Draw, Step, Write
from recipes.recipe import Recipe

# A text usually ends long before its limit. A pass over the tokens of an image takes several times that of one token.
TYPICAL_TEXT_TOKENS = 60
PASSES_A_VELOCITY = 4
LEAST_WEIGHT = 1
RETRY_PROBABILITY = 0.2


class Pace:
    """The progress of one attempt at a run.

    Args:
        steps: the plan.
        recipe: the recipe of the plan.
        done: how many steps were committed before this attempt; the pace is measured from there.
        clock: seconds.
    """

    def __init__(
        self, steps: Sequence[Step], recipe: Recipe, *, done: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        weights = [_weight(step, recipe) for step in steps]
        self._ends = [sum(weights[:count]) / sum(weights) for count in range(len(weights) + 1)]
        self._begun_at = self._ends[done]
        self._clock = clock
        self._started = clock()

    def fraction(self, step: int, part: float = 0.0) -> float:
        """The completed fraction of the run when `part` (0 to 1) of step number `step` is done."""
        return self._ends[step - 1] + part * (self._ends[step] - self._ends[step - 1])

    def eta_s(self, fraction: float) -> float | None:
        """The remaining time in seconds; None before this attempt has made progress."""
        done_now = fraction - self._begun_at
        if done_now <= 0:
            return None
        return (self._clock() - self._started) * (1 - fraction) / done_now


def _weight(step: Step, recipe: Recipe) -> float:
    match step:
        case Write():
            return min(recipe.text.max_new_tokens, TYPICAL_TEXT_TOKENS)
        case Draw():
            probability = RETRY_PROBABILITY if step.attempt else 1
            return step.variations * velocity_evaluations(recipe.image) * PASSES_A_VELOCITY * probability
        case _:
            return LEAST_WEIGHT

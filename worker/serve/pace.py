"""Estimates how much of a run is done and how long the rest takes, from the weights of the plan's steps."""

import time
from collections.abc import Callable, Sequence

from core.cost import velocity_evaluations
from core.plan import Draw, Step, Write
from recipes.recipe import Recipe

# A text usually ends long before its limit, and a pass over an image's tokens takes several times that of one token.
TYPICAL_TEXT_TOKENS = 60
PASSES_A_VELOCITY = 4
LEAST_WEIGHT = 1
UNLIKELY_TRY = 0.2


class Pace:
    """The progress of one start of a run.

    Args:
        steps: the plan.
        recipe: the recipe of the plan.
        done: how many steps were committed before this start; the pace is measured from there.
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
        """How much of the run is done, from 0 to 1, when `part` (0 to 1) of the step number `step` is done."""
        return self._ends[step - 1] + part * (self._ends[step] - self._ends[step - 1])

    def eta_s(self, fraction: float) -> float | None:
        """The time to the end, in seconds; None before this start has made progress."""
        done_now = fraction - self._begun_at
        if done_now <= 0:
            return None
        return (self._clock() - self._started) * (1 - fraction) / done_now


def _weight(step: Step, recipe: Recipe) -> float:
    match step:
        case Write():
            return min(recipe.text.max_new_tokens, TYPICAL_TEXT_TOKENS)
        case Draw():
            likely = 1 if not step.attempt else UNLIKELY_TRY
            return step.variations * velocity_evaluations(recipe.image) * PASSES_A_VELOCITY * likely
        case _:
            return LEAST_WEIGHT

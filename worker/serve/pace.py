"""How far a run is, and how long it will take: from the plan's own weights, measured against the clock."""

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
    """Turns (step, part of it) into a fraction of the whole, and the time since the start into the time left.

    Args:
        steps: the plan.
        recipe: what it is the plan of.
        done: how many steps were done before this start: their time is not this start's.
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
        """How much of the run is done when `part` (0 to 1) of the step number `step` is."""
        return self._ends[step - 1] + part * (self._ends[step] - self._ends[step - 1])

    def eta_s(self, fraction: float) -> float | None:
        """Seconds until the end at this pace; None before anything is known."""
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

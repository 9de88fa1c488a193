"""Step caching: the velocities of some denoising steps are forecast from those of the steps before.

TaylorSeer (Liu et al. 2025) forecasts features by finite differences over evenly spaced steps. Here the velocity itself
is forecast, by the polynomial through the last computed ones at their times, which a shifted schedule spaces unevenly.

Axes: W branches, the contexts in which a velocity is computed; I images, L latent tokens, C numbers in one.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from recipes.recipe import ImageSettings

_History: TypeAlias = deque[tuple[float, Tensor]]
"""Times and velocities (I, L, C), the oldest first."""


class StepCache:
    """The last computed velocities of each branch, for one drawing of images.

    Each branch is forecast from its own history, before guidance, so that scales and norms apply to the forecasts as to
    computed velocities. Step numbers and settings alone decide which steps are computed, so that a repeated step gives
    the same bits.

    Args:
        settings: of the images; without `step_cache`, every step is computed.
    """

    def __init__(self, settings: ImageSettings) -> None:
        self._settings = settings.step_cache
        self._steps = settings.num_timesteps - 1
        self._step = -1
        self._histories: list[_History] = []

    def velocities(self, time: float, branches: int, compute: Callable[[], Tensor]) -> Tensor:
        """The velocities (W, I, L, C) of the next step, computed or forecast.

        Args:
            time: the time of the step.
            branches: W; a step with fewer has the first branches of the others.
            compute: returns the velocities, in a new tensor. It is called for every step at which a branch begins.
        """
        self._step += 1
        if self._settings is None:
            return compute()
        new = branches - len(self._histories)
        if new <= 0 and not self._settings.computes(self._step, self._steps):
            return torch.stack([_forecast(history, time) for history in self._histories[:branches]])
        computed = compute()
        self._histories += [deque(maxlen=self._settings.order + 1) for _ in range(new)]
        for history, velocity in zip(self._histories, computed, strict=False):
            history.append((time, velocity))
        return computed


def _forecast(history: _History, time: float) -> Tensor:
    """The value at `time` of the polynomial through the velocities in `history`."""
    total = torch.zeros_like(history[0][1])
    for weight, (_, velocity) in zip(lagrange([at for at, _ in history], time), history, strict=True):
        total.add_(velocity, alpha=weight)
    return total


def lagrange(times: Sequence[float], time: float) -> Iterator[float]:
    """The weights of the values at `times` in the value at `time` of the polynomial through them."""
    for number, at in enumerate(times):
        weight = 1.0
        for other in (*times[:number], *times[number + 1 :]):
            weight *= (time - other) / (at - other)
        yield weight

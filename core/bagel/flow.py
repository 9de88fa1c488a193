"""Rectified flow: from noise to an image by Euler steps along a velocity. Time runs from 1 (noise) to 0 (image).

Axes: I images, L latent tokens, C numbers in one.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from recipes.recipe import ImageSettings

NORM_EPS = 1e-8

Mark: TypeAlias = Callable[[], Callable[[], object]]
"""Marks the end of the work launched so far; the result waits until the device has done it."""


def gaussian_noise(tokens: int, width: int, seed: int) -> Tensor:
    """Initial noise of an image: (L, C) standard normal float32, from the CPU so that it is equal on all devices."""
    return torch.randn(tokens, width, generator=torch.Generator("cpu").manual_seed(seed))


def schedule(num_timesteps: int, shift: float) -> Tensor:
    """Times (num_timesteps,) from 1 to 0: shift * t / (1 + (shift - 1) * t) of evenly spaced t (Esser et al. 2024)."""
    times = torch.linspace(1, 0, num_timesteps)
    return shift * times / (1 + (shift - 1) * times)


@dataclass(frozen=True, kw_only=True)
class FlowStep:
    """The state after an Euler step."""

    done: int
    total: int
    x: Tensor
    """(I, L, C), at `time`."""
    time: float
    """The time that the step reached."""
    velocity: Tensor
    """Like x."""

    @property
    def clean(self) -> Tensor:
        """(I, L, C), the images that this step predicts at time 0."""
        return torch.sub(self.x, self.velocity, alpha=self.time)


def euler(velocity: Callable[[Tensor, int], Tensor], x: Tensor, times: Tensor) -> Iterator[FlowStep]:
    """Follow `velocity` from `x`, (I, L, C) or of any other shape, at times[0] to times[-1].

    Args:
        velocity: (x, number of a time) -> dx/dtime, float32 and of the shape of x.
        x: the state at times[0].
        times: decreasing, on the CPU.
    """
    lengths = (times[:-1] - times[1:]).tolist()
    for number, (length, reached) in enumerate(zip(lengths, times[1:].tolist(), strict=True)):
        v = velocity(x, number)
        x = torch.sub(x, v, alpha=length)
        yield FlowStep(done=number + 1, total=len(lengths), x=x, time=reached, velocity=v)


def one_ahead(steps: Iterable[FlowStep], mark: Mark | None) -> Iterator[FlowStep]:
    """Yield each step when the device has done the one before.

    So the device need not wait for the host, and a host that goes on shows that the device works.

    Args:
        steps: launches one step after the other.
        mark: None where a step is done once it is launched.
    """
    done: Callable[[], object] | None = None
    for step in steps:
        if mark is not None:
            before, done = done, mark()
            if before is not None:
                before()
        yield step


def cuda_mark(device: torch.device) -> Callable[[], object]:
    """A mark in the current stream of `device`."""
    event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # torch does not annotate it
    event.record(torch.cuda.current_stream(device))
    return event.synchronize


def holds(interval: tuple[float, float], time: Tensor) -> bool:
    """Whether guidance applies at `time`: above the first bound and up to the second."""
    return bool((time > interval[0]) & (time <= interval[1]))


def guide(v: Tensor, v_text: Tensor, v_img: Tensor | None, settings: ImageSettings) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022) by text, then by images, with BAGEL's renormalization.

    Args:
        v: velocity in the full context, (..., L, C) float32; the axes before L are images.
        v_text: velocity in the context without its last text.
        v_img: velocity in the context without its images; None without image guidance.
        settings: the guidance scales and the renormalization.
    """
    kind, least = settings.cfg_renorm_type, settings.cfg_renorm_min
    guided = v_text + settings.cfg_text_scale * (v - v_text)
    if kind == "text_channel":
        guided = guided * _shrinkage(v, guided, least, per_token=True)
    if v_img is not None:
        guided = v_img + settings.cfg_img_scale * (guided - v_img)
    if kind == "text_channel":
        return guided
    return guided * _shrinkage(v, guided, least, per_token=kind == "channel")


def _shrinkage(v: Tensor, guided: Tensor, least: float, *, per_token: bool) -> Tensor:
    """The factor, at most 1, that reduces the norm of `guided` to that of `v`, per token or per image."""
    dim = -1 if per_token else (-2, -1)
    norm, guided_norm = (torch.linalg.vector_norm(part, dim=dim, keepdim=True) for part in (v, guided))
    factor: Tensor = (norm / (guided_norm + NORM_EPS)).clamp(least, 1.0)
    return factor

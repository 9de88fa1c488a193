"""The trace of a sequence: what the interpreter tells its caller, in order."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from PIL.Image import Image

from core.plan import Forget, Step


@dataclass(frozen=True, kw_only=True)
class StepStarted:
    """A step begins."""

    step: Step


@dataclass(frozen=True, kw_only=True)
class TextDelta:
    """A part of the text being written."""

    step: Step
    text: str


@dataclass(frozen=True, kw_only=True)
class Denoised:
    """The image being drawn is one denoising step further."""

    step: Step
    done: int
    total: int
    preview: Callable[[], Image]
    """A small picture of the image as it is so far; valid until the next event is asked for."""


@dataclass(frozen=True, kw_only=True)
class ItemRead:
    """An item of the initial context is in the context. Ends its step."""

    step: Step


@dataclass(frozen=True, kw_only=True)
class TextReady:
    """A text of the sequence is final: written by the model, or a given refinement. Ends its step."""

    step: Step
    role: Literal["thinking", "refinement"]
    text: str
    given: bool
    """Whether the recipe gave this text, rather than the model."""


@dataclass(frozen=True, kw_only=True)
class ImageReady:
    """An image of the sequence is final. Ends its step."""

    step: Step
    index: int
    image: Image
    seed: int
    """What the image's noise was drawn from."""


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """Items left the context. Ends its step."""

    step: Forget


StepEnded: TypeAlias = ItemRead | TextReady | ImageReady | Forgotten
Event: TypeAlias = StepStarted | TextDelta | Denoised | StepEnded

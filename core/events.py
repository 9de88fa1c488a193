"""The trace of a sequence: what the interpreter tells its caller, in order."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from PIL.Image import Image

from core.plan import Draw, Evict, Step


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
class Variation:
    """One of the images that a step drew."""

    number: int
    """Which variation it is, from 0."""
    image: Image
    seed: int
    """What the image's noise was drawn from."""
    score: float | None = None
    """How well the model finds that it shows what it is to show, from 0 to 1; None when it was not asked."""
    selected: bool = True
    """Whether the sequence continues from it; a later attempt may replace it."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One more of the images just drawn has its score."""

    step: Draw
    question: str
    answer: str | None
    """The answer whose likelihood the scores are; None for yes against no."""
    scores: tuple[float, ...]
    """All so far, in the order of the variations."""


@dataclass(frozen=True, kw_only=True)
class ImageReady:
    """An image of the sequence is final, in all the variations that its step drew. Ends its step."""

    step: Draw
    variations: tuple[Variation, ...]

    @property
    def index(self) -> int:
        """Which of the images of its branch this is, from 0."""
        return self.step.index

    @property
    def best(self) -> Variation:
        """The selected variation; the first when all are (in a tree) or none is (an attempt that was no better)."""
        return next((one for one in self.variations if one.selected), self.variations[0])

    @property
    def image(self) -> Image:
        return self.best.image


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Nothing had to be drawn again. Ends its step."""

    step: Draw


@dataclass(frozen=True, kw_only=True)
class Evicted:
    """Items left the context. Ends its step."""

    step: Evict


StepEnded: TypeAlias = ItemRead | TextReady | ImageReady | Skipped | Evicted
Event: TypeAlias = StepStarted | TextDelta | Denoised | Judged | StepEnded

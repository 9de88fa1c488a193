"""The events that the interpreter of a sequence yields, in order."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from PIL.Image import Image

from core.plan import Draw, Evict, Step


@dataclass(frozen=True, kw_only=True)
class StepStarted:
    """A step has started."""

    step: Step


@dataclass(frozen=True, kw_only=True)
class TextDelta:
    """A part of a text that is being written."""

    step: Step
    text: str


@dataclass(frozen=True, kw_only=True)
class Denoised:
    """A denoising step of an image is done."""

    step: Step
    done: int
    total: int
    preview: Callable[[], Image]
    """Returns a small image of the current state; call it before requesting the next event."""


@dataclass(frozen=True, kw_only=True)
class ItemRead:
    """The model has read an item of the initial context. Ends its step."""

    step: Step


@dataclass(frozen=True, kw_only=True)
class TextReady:
    """A text of the sequence is complete: written by the model, or a given refinement. Ends its step."""

    step: Step
    role: Literal["thinking", "refinement"]
    text: str
    given: bool
    """Whether the text comes from the recipe, not from the model."""


@dataclass(frozen=True, kw_only=True)
class Variation:
    """One of the images that a step drew."""

    number: int
    """The number of the variation, from 0."""
    image: Image
    seed: int
    """The seed of the image's noise."""
    score: float | None = None
    """The model's score of how well the image matches its text, from 0 to 1; None if it was not scored."""
    selected: bool = True
    """Whether the sequence continues from it; a later attempt with a higher score may replace it."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Another of the images just drawn has been scored."""

    step: Draw
    question: str
    answer: str | None
    """The answer whose likelihood is the score; None scores yes against no."""
    scores: tuple[float, ...]
    """The scores so far, in the order of the variations."""


@dataclass(frozen=True, kw_only=True)
class ImageReady:
    """All variations of an image that a step drew are complete. Ends its step."""

    step: Draw
    variations: tuple[Variation, ...]

    @property
    def index(self) -> int:
        """The number of the image within its branch, from 0."""
        return self.step.index

    @property
    def best(self) -> Variation:
        """The selected variation; the first if all are (in a tree) or none is (an attempt without improvement)."""
        return next((one for one in self.variations if one.selected), self.variations[0])

    @property
    def image(self) -> Image:
        return self.best.image


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """No image had to be drawn again. Ends its step."""

    step: Draw


@dataclass(frozen=True, kw_only=True)
class Evicted:
    """Items were evicted from the context. Ends its step."""

    step: Evict


StepEnded: TypeAlias = ItemRead | TextReady | ImageReady | Skipped | Evicted
Event: TypeAlias = StepStarted | TextDelta | Denoised | Judged | StepEnded

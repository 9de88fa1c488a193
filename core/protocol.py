"""What core asks of a model: to write and to draw in a context, which is a plain value."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from PIL.Image import Image

from recipes.model_spec import ModelSpec
from recipes.recipe import ImageSettings, TextSettings


@dataclass(frozen=True)
class Text:
    """A text in a context."""

    text: str
    thought: bool = field(default=False, compare=False)
    """Whether it was thought about the image drawn next (guidance treats it as part of that image's prompt)."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An image in a context; two are the same item when they hold the same image object."""

    image: Image

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picture) and other.image is self.image

    def __hash__(self) -> int:
        return id(self.image)


Item: TypeAlias = Text | Picture


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the model has before it: the system prompt, then the items in order.

    A model's cache is a function of this value alone, so a persistent cache, a rebuilt one and a resumed run agree.
    """

    system_prompt: str | None = None
    items: tuple[Item, ...] = ()

    def plus(self, *items: Item) -> "Context":
        """This context with `items` after the others."""
        return replace(self, items=(*self.items, *items))


@dataclass(frozen=True, kw_only=True)
class Denoising:
    """Images under way."""

    done: int
    total: int
    """Steps of all that was asked for."""
    preview: Callable[[], Image]
    """A small picture of the images under way as they are so far, side by side when they are several; call it before
    the next step is asked for, or not at all."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Finished images, RGB, 8 bits a channel, in the order of their seeds."""

    images: tuple[Image, ...]


class UnifiedModel(Protocol):
    """A model that reads and makes both texts and images.

    `write` and `draw` are generators: they compute as they are consumed and stop when closed. All randomness comes
    from the seeds; the same context, settings and seeds give the same result, bit for bit, on the same kind of machine.
    """

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def tokens_read(self) -> int:
        """Tokens read into a context since the model was loaded."""
        ...

    def write(self, context: Context, settings: TextSettings, *, seed: int) -> Iterator[str]:
        """The text that follows `context`, in parts as it is written."""
        ...

    def draw(self, context: Context, settings: ImageSettings, *, seeds: Sequence[int]) -> Iterator[Denoising | Drawn]:
        """Images that each follow `context`, one for each seed: a Denoising after each step of all, then one Drawn.

        The context is read once for all of them. An image depends on its own seed; the company in which it is drawn
        changes it by no more than rounding.
        """
        ...

    def judge(self, image: Image, question: str, answer: str | None = None) -> float:
        """How likely the model is to give `answer` to `question` about `image`, 0 to 1.

        Of None, how likely yes is against no; of a text, the geometric mean of the probabilities of its tokens. The
        model sees image and question alone, and what is cached of the context stays as it is.
        """
        ...

    def forget(self) -> None:
        """Drop what is cached of the last context, and the memory it takes; the next call reads it again."""
        ...

"""The protocol of a model: it writes and draws in a context, which is a plain value."""

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
    """Whether it is a thinking text for the next image (guidance treats it as part of that image's prompt)."""


class EncodedImage(Protocol):
    """The file of an image, which is decoded each time it is read: a context of large images holds no pixels."""

    @property
    def size(self) -> tuple[int, int]: ...

    def decode(self) -> Image: ...


@dataclass(frozen=True, eq=False)
class Picture:
    """An image in a context; two are equal if they have the same source object."""

    source: Image | EncodedImage

    @property
    def image(self) -> Image:
        """The pixels; keep them no longer than needed."""
        return self.source if isinstance(self.source, Image) else self.source.decode()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.source.size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picture) and other.source is self.source

    def __hash__(self) -> int:
        return id(self.source)


Item: TypeAlias = Text | Picture


@dataclass(frozen=True, kw_only=True)
class Context:
    """The input of a generation: the system prompt, then the items in order.

    A model's cache depends only on this value, so a persistent cache, a rebuilt one and a resumed run agree.
    """

    system_prompt: str | None = None
    items: tuple[Item, ...] = ()

    def plus(self, *items: Item) -> "Context":
        """This context with `items` appended."""
        return replace(self, items=(*self.items, *items))


@dataclass(frozen=True, kw_only=True)
class Denoising:
    """The progress of images that are being drawn."""

    done: int
    total: int
    """Denoising steps for all requested images."""
    preview: Callable[[], Image]
    """Returns a small image of the current state, with several images side by side; call it before requesting the next
    step."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Finished images, RGB, 8 bits a channel, in the order of their seeds."""

    images: tuple[Image, ...]


class UnifiedModel(Protocol):
    """A model that reads and generates both texts and images.

    `write` and `draw` are generators: they compute as they are consumed and stop when closed. All randomness derives
    from the seeds; the same context, settings and seeds give bit-for-bit the same result on the same kind of machine.
    """

    max_batch: int
    """How many images are drawn at once at most; more are drawn in several batches. May be set between two calls."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def tokens_read(self) -> int:
        """Tokens read into a context since the model was loaded."""
        ...

    def warm_up(self) -> None:
        """Compute once, with no effect on later results: what is slow at first or fails on this device does so here."""
        ...

    def prefill(self, context: Context, settings: TextSettings | ImageSettings) -> Iterator[None]:
        """Read what a generation in `context` with `settings` needs and the cache lacks; yields after each item.

        `write` and `draw` read it themselves, but at one go, which takes long for a context of many images.
        """
        ...

    def write(self, context: Context, settings: TextSettings, *, seed: int) -> Iterator[str]:
        """Generate the text that follows `context`, in parts."""
        ...

    def draw(self, context: Context, settings: ImageSettings, *, seeds: Sequence[int]) -> Iterator[Denoising | Drawn]:
        """Generate one image per seed, each following `context`: yields a Denoising after each step, then one Drawn.

        The last Denoising of a batch comes again for each further image, as a sign of life while images are decoded.
        The context is read once for all images. An image depends on its own seed; the other images drawn with it change
        it only within rounding.
        """
        ...

    def judge(self, image: Image, question: str, answer: str | None = None) -> float:
        """The probability that the model gives `answer` to `question` about `image`, from 0 to 1.

        If the answer is None, that of yes against no; otherwise the geometric mean of the probabilities of its tokens.
        The model sees only the image and the question. The cached context is unchanged.
        """
        ...

    def forget(self) -> None:
        """Release the cache of the last context and its memory; the next call reads the context again."""
        ...


class ModelWrapper:
    """A model that leaves everything to another one; a subclass changes what it needs to."""

    def __init__(self, model: UnifiedModel) -> None:
        self.model = model

    @property
    def max_batch(self) -> int:
        return self.model.max_batch

    @max_batch.setter
    def max_batch(self, images: int) -> None:
        self.model.max_batch = images

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    @property
    def tokens_read(self) -> int:
        return self.model.tokens_read

    def warm_up(self) -> None:
        self.model.warm_up()

    def prefill(self, context: Context, settings: TextSettings | ImageSettings) -> Iterator[None]:
        return self.model.prefill(context, settings)

    def write(self, context: Context, settings: TextSettings, *, seed: int) -> Iterator[str]:
        return self.model.write(context, settings, seed=seed)

    def draw(self, context: Context, settings: ImageSettings, *, seeds: Sequence[int]) -> Iterator[Denoising | Drawn]:
        return self.model.draw(context, settings, seeds=seeds)

    def judge(self, image: Image, question: str, answer: str | None = None) -> float:
        return self.model.judge(image, question, answer)

    def forget(self) -> None:
        self.model.forget()

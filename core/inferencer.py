"""AutoInterleavedInferencer: the engine for Python scripts and notebooks, without services."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypedDict, Unpack

from PIL.Image import Image

from core.events import Event, ImageReady, TextReady
from core.protocol import Context, Drawn, Item, Picture, Text, UnifiedModel
from core.sequence import derive_seed, run_sequence
from recipes.defaults import image_defaults, image_settings, text_defaults
from recipes.recipe import (
    ContextItem,
    ImageItem,
    ImageSettings,
    JudgeSettings,
    Mode,
    Recipe,
    Retry,
    TextItem,
    TextSettings,
)
from recipes.rules import check


class SequenceFields(TypedDict, total=False):
    """The fields of a recipe (see recipes.recipe.Recipe) that generate_auto_sequence accepts unchanged."""

    num_images: int
    think: bool
    auto_refine: bool
    refine_instruction: str | None
    max_context_items: int | None
    variations_per_image: int
    select: Literal["first", "judge", "tree"]
    judge: JudgeSettings
    retry: Retry | None


class AutoInterleavedInferencer:
    """Reads texts and images into a context and generates from it, one output or a whole sequence at a time.

    Args:
        model: the model, such as `core.bagel.Bagel.load(folder)`.
        seed: the seed; all randomness derives from it and from the number of outputs since `reset`.
    """

    def __init__(self, model: UnifiedModel, *, seed: int = 0) -> None:
        self.model = model
        self.seed = seed
        self.context = Context()
        self._outputs = 0

    def reset(self) -> None:
        """Clear the context."""
        self.context = Context()
        self._outputs = 0

    def fork(self, *, seed: int | None = None) -> "AutoInterleavedInferencer":
        """A copy with the same context and model; later changes to one do not affect the other.

        The shared part of the context stays cached as long as one is used after the other.

        Args:
            seed: the seed of the copy; with None it has the same seed, and the same calls give the same outputs.
        """
        other = AutoInterleavedInferencer(self.model, seed=self.seed if seed is None else seed)
        other.context, other._outputs = self.context, self._outputs
        return other

    def rollback(self, n: int = 1) -> None:
        """Remove the last `n` items from the context. The next output does not repeat the randomness of earlier ones.

        Raises:
            ValueError: the context has fewer items, or n is negative; the context is unchanged.
        """
        if not 0 <= n <= len(self.context.items):
            raise ValueError(f"can't roll back {n} items: the context has {len(self.context.items)}")
        self.context = replace(self.context, items=self.context.items[: len(self.context.items) - n])

    def add_to_context(self, item: str | Image) -> None:
        """Append a text or an image to the context."""
        self.context = self.context.plus(_item(item))

    def generate_text(self, *, on_text: Callable[[str], None] | None = None, **settings: Any) -> str:
        """Generate the text that follows the context, and append it.

        Args:
            on_text: called with each part of the text.
            **settings: fields of TextSettings that differ from the model's defaults.
        """
        text_settings = self._text_settings(settings)
        parts: list[str] = []
        for part in self.model.write(self.context, text_settings, seed=self._next_seed("text")):
            parts.append(part)
            if on_text:
                on_text(part)
        text = "".join(parts)
        self.add_to_context(text)
        return text

    def generate_image(self, *, on_step: Callable[[int, int], None] | None = None, **settings: Any) -> Image:
        """Generate the image that follows the context, and append it.

        Args:
            on_step: called with (steps done, total steps) after each denoising step.
            **settings: fields of ImageSettings that differ from the model's defaults.

        Raises:
            ValueError: the model does not support the size, or none is given and the context has no image.
        """
        image_settings = self._image_settings(settings, self.context)
        for progress in self.model.draw(self.context, image_settings, seeds=(self._next_seed("noise"),)):
            if isinstance(progress, Drawn):
                (image,) = progress.images
                self.add_to_context(image)
                return image
            if on_step:
                on_step(progress.done, progress.total)
        raise RuntimeError("the model returned no image")

    def generate_auto_sequence(
        self,
        initial_context: Sequence[str | Image] = (),
        *,
        refinement_prompts: Sequence[str | None] = (),
        cfg_img_scale: float | None = None,
        text: Mapping[str, Any] | None = None,
        image: Mapping[str, Any] | None = None,
        on_event: Callable[[Event], None] | None = None,
        **fields: Unpack[SequenceFields],
    ) -> list[str | Image]:
        """Run a whole sequence from the context and return its texts and images in order.

        Only the selected variation of an image is returned (`on_event` gets all). Of a tree, all images are returned,
        depth first, and the context is then that of the last branch.

        Args:
            initial_context: items to append to the context first.
            refinement_prompts: refinement texts, used in order; the model writes those that are None.
            cfg_img_scale: guidance scale of the images in the context, if it starts with one.
            text: fields of TextSettings that differ from the model's defaults.
            image: fields of ImageSettings that differ from the model's defaults.
            on_event: called with each event.
            **fields: fields of the recipe; num_images is 3 by default.

        Raises:
            ValueError: the context is empty, or the fields are not a valid recipe; the context is unchanged.
        """
        context = self.context.plus(*(_item(item) for item in initial_context))
        if not context.items:
            raise ValueError("the context is empty: add a text or an image first")
        fields.setdefault("num_images", 3)
        scale = {} if cfg_img_scale is None else {"cfg_img_scale": cfg_img_scale}
        recipe = Recipe(
            name="python",
            seed=self.seed,
            context=tuple(_reference(item) for item in context.items),
            refinement_prompts=tuple(refinement_prompts),
            text=self._text_settings(text or {}),
            image=self._image_settings({**(image or {}), **scale}, context),
            **fields,
        )
        check(recipe, self.model.spec)
        self.context = context
        return self._run(recipe, on_event)

    def _run(self, recipe: Recipe, on_event: Callable[[Event], None] | None) -> list[str | Image]:
        outputs: dict[tuple[int, int], str | Image] = {}  # by step and variation; a later attempt replaces an image
        for event in self._events(recipe):
            if isinstance(event, TextReady):
                outputs[event.step.number, 0] = event.text
            elif isinstance(event, ImageReady):
                for one in event.variations:
                    if one.selected:
                        outputs[event.step.item, one.number if event.step.forks else 0] = one.image
            if on_event:
                on_event(event)
        return list(outputs.values())

    def _events(self, recipe: Recipe) -> Iterator[Event]:
        """The events of a sequence; at its end, the context is that of the sequence."""
        inputs = [item.source for item in self.context.items if isinstance(item, Picture)]
        self.context = yield from run_sequence(recipe, self.model, inputs=inputs)

    def _text_settings(self, given: Mapping[str, Any]) -> TextSettings:
        return TextSettings(**{**text_defaults(self.model.spec), **given})

    def _image_settings(self, given: Mapping[str, Any], context: Context) -> ImageSettings:
        mode: Mode = "editing" if any(isinstance(item, Picture) for item in context.items) else "generation"
        merged = {**image_defaults(self.model.spec, mode), **given}
        if mode == "generation":  # image guidance is off if the initial context has no image
            merged["cfg_img_scale"] = 1.0
        return image_settings(merged)

    def _next_seed(self, purpose: str) -> int:
        self._outputs += 1
        return derive_seed(self.seed, self._outputs, 0, purpose)


def _item(given: str | Image) -> Item:
    return Text(given) if isinstance(given, str) else Picture(given)


def _reference(item: Item) -> ContextItem:
    return TextItem(text=item.text) if isinstance(item, Text) else ImageItem(image="given from Python")

"""AutoInterleavedInferencer: the engine from Python, in a notebook or a script, without any service."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL.Image import Image

from core.events import Event, Forgotten, ImageReady, TextReady
from core.protocol import Context, Drawn, Item, Picture, Text, UnifiedModel
from core.sequence import PLANNING_PROMPT, derive_seed, run_sequence
from recipes.defaults import image_defaults, text_defaults
from recipes.recipe import ContextItem, ImageItem, ImageSettings, Mode, Recipe, TextItem, TextSettings
from recipes.rules import check


class AutoInterleavedInferencer:
    """Reads texts and images into a context and goes on from it, one output or a whole sequence at a time.

    Args:
        model: what reads, writes and draws, such as `core.bagel.Bagel.load(folder)`.
        seed: all randomness comes from this number and from how many outputs were made since `reset`.
    """

    def __init__(self, model: UnifiedModel, *, seed: int = 0) -> None:
        self.model = model
        self.seed = seed
        self.context = Context()
        self._outputs = 0

    def reset(self) -> None:
        """Forget everything."""
        self.context = Context()
        self._outputs = 0

    def add_to_context(self, item: str | Image) -> None:
        """Append a text or an image to the context."""
        self.context = self.context.plus(_item(item))

    def generate_text(self, *, on_text: Callable[[str], None] | None = None, **settings: Any) -> str:
        """Write the text that follows the context, and append it.

        Args:
            on_text: called with each part as it is written.
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
        """Draw the image that follows the context, and append it.

        Args:
            on_step: called with (steps done, steps in all) after each denoising step.
            **settings: fields of ImageSettings that differ from the model's defaults.

        Raises:
            ValueError: a size is off the model's grid, or none is given and the context has no image to take it from.
        """
        image_settings = self._image_settings(settings, self.context)
        for progress in self.model.draw(self.context, image_settings, seeds=(self._next_seed("noise"),)):
            if isinstance(progress, Drawn):
                (image,) = progress.images
                self.add_to_context(image)
                return image
            if on_step:
                on_step(progress.done, progress.total)
        raise RuntimeError("the model ended without an image")

    def generate_auto_sequence(  # noqa: PLR0913 (the established keyword arguments of this call)
        self,
        initial_context: Sequence[str | Image] = (),
        *,
        num_images: int = 3,
        think: bool = False,
        auto_refine: bool = True,
        refinement_prompts: Sequence[str] = (),
        refine_instruction: str | None = None,
        max_context_items: int | None = None,
        cfg_img_scale: float | None = None,
        text: Mapping[str, Any] | None = None,
        image: Mapping[str, Any] | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> list[str | Image]:
        """Run a whole sequence from the context and return its texts and images in order.

        Args:
            initial_context: appended to the context first.
            num_images: the sequence ends when this many images exist.
            think: write a plan before each image.
            auto_refine: write the refinement texts that refinement_prompts does not give.
            refinement_prompts: given refinement texts, used in order, first.
            refine_instruction: seen only while a refinement is written.
            max_context_items: keep the context of this call's start and the most recent others, at most this many.
            cfg_img_scale: how strongly the context's images guide, when it starts with one.
            text: fields of TextSettings that differ from the model's defaults.
            image: fields of ImageSettings that differ from the model's defaults.
            on_event: called with each event as it happens.

        Raises:
            ValueError: there is nothing to begin with, or too few refinement prompts with auto_refine off; the context
                is as before.
        """
        context = self.context.plus(*(_item(item) for item in initial_context))
        if not context.items:
            raise ValueError("the context is empty: add a text or an image first")
        if cfg_img_scale is not None:
            image = {**(image or {}), "cfg_img_scale": cfg_img_scale}
        recipe = Recipe(
            name="python",
            seed=self.seed,
            context=tuple(_reference(item) for item in context.items),
            num_images=num_images,
            think=think,
            auto_refine=auto_refine,
            refinement_prompts=tuple(refinement_prompts),
            refine_instruction=refine_instruction,
            max_context_items=max_context_items,
            text=self._text_settings(text or {}),
            image=self._image_settings(image or {}, context),
        )
        check(recipe, self.model.card)
        self.context = context
        return self._run(recipe, on_event)

    def _run(self, recipe: Recipe, on_event: Callable[[Event], None] | None) -> list[str | Image]:
        inputs = [item.image for item in self.context.items if isinstance(item, Picture)]
        outputs: list[str | Image] = []
        made: dict[int, Item] = dict(enumerate(self.context.items, start=1))  # step number -> item, as in the plan
        for event in run_sequence(recipe, self.model, inputs=inputs):
            if isinstance(event, TextReady):
                made[event.step.number] = Text(event.text, thought=event.role == "thinking")
                outputs.append(event.text)
            elif isinstance(event, ImageReady):
                made[event.step.number] = Picture(event.image)
                outputs.append(event.image)
            elif isinstance(event, Forgotten):
                for number in event.step.dropped:
                    del made[number]
            if on_event:
                on_event(event)
        system_prompt = PLANNING_PROMPT if recipe.think else None
        self.context = Context(system_prompt=system_prompt, items=tuple(made.values()))
        return outputs

    def _text_settings(self, given: Mapping[str, Any]) -> TextSettings:
        return TextSettings(**{**text_defaults(self.model.card), **given})

    def _image_settings(self, given: Mapping[str, Any], context: Context) -> ImageSettings:
        mode: Mode = "editing" if any(isinstance(item, Picture) for item in context.items) else "generation"
        merged = {**image_defaults(self.model.card, mode), **given}
        if mode == "generation":  # rule 1 of the plan: image guidance is off without an image to begin with
            merged["cfg_img_scale"] = 1.0
        low, high = merged.get("cfg_interval", ImageSettings.cfg_interval)
        return ImageSettings(**{**merged, "cfg_interval": (low, high)})

    def _next_seed(self, purpose: str) -> int:
        self._outputs += 1
        return derive_seed(self.seed, self._outputs, 0, purpose)


def _item(given: str | Image) -> Item:
    return Text(given) if isinstance(given, str) else Picture(given)


def _reference(item: Item) -> ContextItem:
    return TextItem(text=item.text) if isinstance(item, Text) else ImageItem(image="given from Python")

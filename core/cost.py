"""The estimated cost of each step of a plan: tokens, KV cache and forward passes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.plan import Draw, Evict, Read, Step, Write
from core.sequence import PLANNING_PROMPT, fill_instruction
from recipes.model_spec import ModelSpec
from recipes.recipe import ImageItem, ImageSettings, Recipe, TextItem

TEXT_MARKERS = 2  # the start and end tokens of a text item


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """The cost of one step, assuming the maximum length for texts to be written and all attempts for images."""

    step: Step
    new_tokens: int
    """Tokens that the step makes the model read: its item, or after an eviction the items that follow the evicted."""
    context_tokens: int
    """Tokens in the context after the step."""
    kv_values: int
    """Numbers in the KV cache after the step, of 2 bytes in bfloat16 or 4 in float32."""
    forward_passes: int
    """Passes through the decoder: one per written token and per guidance branch of a denoising step; images drawn
    together count separately."""


def costs(
    steps: Sequence[Step],
    recipe: Recipe,
    spec: ModelSpec,
    *,
    count_tokens: Callable[[str], int],
    input_sizes: Sequence[tuple[int, int]] = (),
) -> tuple[StepCost, ...]:
    """The cost of each step of `recipe`'s plan on the model of `spec`.

    Args:
        steps: `plan(recipe)`.
        recipe: the recipe with its defaults filled in.
        spec: the spec of the model.
        count_tokens: returns the number of tokens of a text.
        input_sizes: (width, height) in pixels of the images in the initial context, in order.
    """
    ledger = _Ledger(recipe, spec, count_tokens, list(input_sizes))
    return tuple(ledger.add(step) for step in steps)


class _Ledger:
    """Tracks the size of the context through the plan."""

    def __init__(
        self,
        recipe: Recipe,
        spec: ModelSpec,
        count_tokens: Callable[[str], int],
        input_sizes: list[tuple[int, int]],
    ) -> None:
        self.recipe = recipe
        self.spec = spec
        self.count_tokens = count_tokens
        self.input_sizes = input_sizes
        self.last_size: tuple[int, int] | None = None
        self.items: dict[int, int] = {}  # step number -> tokens of its item
        self.texts: dict[int, str] = {}  # step number -> the given text
        self.seen: tuple[int, ...] = ()  # the context of the latest generation, which therefore has been read
        self.system_tokens = TEXT_MARKERS + count_tokens(PLANNING_PROMPT) if recipe.think else 0

    def add(self, step: Step) -> StepCost:
        passes = self._forward_passes(step)
        new, item = self._tokens(step)
        self.items.setdefault(step.number, item)
        if isinstance(step, Write | Draw):
            self.seen = step.context
        context = self.system_tokens + sum(self.items[number] for number in step.after)
        kv_values = context * self.spec.kv_values_per_token
        return StepCost(step=step, new_tokens=new, context_tokens=context, kv_values=kv_values, forward_passes=passes)

    def _tokens(self, step: Step) -> tuple[int, int]:
        """The tokens that `step` makes the model read, and those of its item in the context."""
        match step:
            case Evict():
                behind = step.context[step.context.index(step.dropped[-1]) + 1 :]
                return sum(self.items[number] for number in behind if number in self.seen), 0
            case Draw():
                tokens = self._item_tokens(step)
                judged = step.variations * self._judged_tokens(step) if self.recipe.is_judged else 0
                read_back = 0 if step.attempt else tokens * (step.variations if step.forks else 1)
                return read_back + judged, tokens
            case _:
                tokens = self._item_tokens(step)
                return tokens, tokens

    def _judged_tokens(self, step: Draw) -> int:
        """Tokens of one image and the question about it; only the ViT block of the image is read."""
        question = self.recipe.judge.question
        instruction = self.texts.get(step.shows)
        if instruction is None:  # not written yet
            question_tokens = self.count_tokens(question) + self.recipe.text.max_new_tokens
        else:
            question_tokens = self.count_tokens(fill_instruction(question, instruction))
        return self.spec.image_tokens(*self._drawn_size())[1] + TEXT_MARKERS + question_tokens

    def _item_tokens(self, step: Step) -> int:
        match step:
            case Read(item=TextItem(text=text)):
                self.texts[step.number] = text
                return TEXT_MARKERS + self.count_tokens(text)
            case Read(item=ImageItem()):
                return self._image_tokens(self.input_sizes.pop(0))
            case Write():
                return TEXT_MARKERS + self.recipe.text.max_new_tokens
            case Draw():
                return self._image_tokens(self._drawn_size())
            case _:
                return 0

    def _image_tokens(self, size: tuple[int, int]) -> int:
        self.last_size = self.spec.vae.size(*size)
        return sum(self.spec.image_tokens(*size))

    def _drawn_size(self) -> tuple[int, int]:
        settings = self.recipe.image
        if settings.width is not None and settings.height is not None:
            return settings.width, settings.height
        if self.last_size is None:
            raise ValueError("image.width and image.height are null, but the context has no image whose size to use")
        return self.last_size

    def _forward_passes(self, step: Step) -> int:
        match step:
            case Read(item=ImageItem()):
                return 2
            case Read():
                return 1
            case Write():
                return self.recipe.text.max_new_tokens + 2
            case Draw():
                return step.variations * (velocity_evaluations(self.recipe.image) + 2 + 2 * self.recipe.is_judged)
            case _:
                return 0


def velocity_evaluations(settings: ImageSettings) -> int:
    """Forward passes to denoise one image: one per computed step, and one more per guidance that applies at its time.

    A step at which guidance begins is always computed, since nothing is known from which to forecast it.
    """
    shift, last = settings.timestep_shift, settings.num_timesteps - 1
    low, high = settings.cfg_interval
    branches = 1 + (1 + (settings.cfg_img_scale > 1) if settings.cfg_text_scale > 1 else 0)
    linear = (1 - step / last for step in range(last))
    times = (shift * t / (1 + (shift - 1) * t) for t in linear)
    active = [branches if low < t <= high else 1 for t in times]
    cache = settings.step_cache
    return sum(
        count
        for step, count in enumerate(active)
        if cache is None or cache.computes(step, last) or count > max(active[:step], default=0)
    )

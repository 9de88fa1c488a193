"""What a plan costs before any of it runs: tokens, KV memory and forward passes, step by step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.plan import Draw, Evict, Read, Step, Write
from core.sequence import PLANNING_PROMPT, worded
from recipes.model_spec import ModelSpec
from recipes.recipe import ImageItem, ImageSettings, Recipe, TextItem

TEXT_MARKERS = 2  # a text item stands between bos and eos


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """What one step takes; of texts yet to be written the longest is assumed, and of images every try."""

    step: Step
    new_tokens: int
    """Tokens that are read because of the step: its item, or after items were forgotten those behind them again."""
    context_tokens: int
    """Tokens in the context after the step."""
    kv_values: int
    """Numbers the KV cache holds after the step; times 2 bytes in bfloat16, 4 in float32."""
    forward_passes: int
    """Passes through the decoder that the step makes, one for each token written and each guidance branch drawn; of
    images drawn together, one for each."""


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
        recipe: with its defaults filled in.
        spec: the model's.
        count_tokens: tokens of a text.
        input_sizes: (width, height) in pixels of the initial context's images, in order.
    """
    ledger = _Ledger(recipe, spec, count_tokens, list(input_sizes))
    return tuple(ledger.add(step) for step in steps)


class _Ledger:
    """Follows the size of the context through the plan."""

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
        self.seen: tuple[int, ...] = ()  # the items before the latest generation, which therefore have been read
        self.system_tokens = TEXT_MARKERS + count_tokens(PLANNING_PROMPT) if recipe.think else 0

    def add(self, step: Step) -> StepCost:
        passes = self._forward_passes(step)
        new, item = self._tokens(step)
        self.items.setdefault(step.number, item)
        if isinstance(step, Write | Draw):
            self.seen = step.context
        context = self.system_tokens + item + sum(self.items[number] for number in step.context)
        if isinstance(step, Evict):
            context -= sum(self.items[number] for number in step.dropped)
        kv_values = context * self.spec.kv_values_per_token
        return StepCost(step=step, new_tokens=new, context_tokens=context, kv_values=kv_values, forward_passes=passes)

    def _tokens(self, step: Step) -> tuple[int, int]:
        """What is read because of `step`, and what its item holds of the context."""
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
        """Of one image and the question about it; the image is read by its ViT block alone."""
        question = self.recipe.judge.question
        instruction = self.texts.get(step.shows)
        if instruction is None:  # yet to be written
            question_tokens = self.count_tokens(question) + self.recipe.text.max_new_tokens
        else:
            question_tokens = self.count_tokens(worded(question, instruction))
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
            raise ValueError("image.width and image.height are null and the context has no image to take them from")
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
    """Forward passes of one denoising: one for each step, and one more for each guidance that holds at its time."""
    shift, last = settings.timestep_shift, settings.num_timesteps - 1
    low, high = settings.cfg_interval
    branches = 1 + (1 + (settings.cfg_img_scale > 1) if settings.cfg_text_scale > 1 else 0)
    linear = (1 - step / last for step in range(last))
    times = (shift * t / (1 + (shift - 1) * t) for t in linear)
    return sum(branches if low < t <= high else 1 for t in times)

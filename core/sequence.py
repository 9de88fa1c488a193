"""The interpreter: runs a plan on a model and yields what happens."""

import hashlib
from collections.abc import Iterator, Sequence

from PIL.Image import Image

from core.events import Denoised, Event, Forgotten, ImageReady, ItemRead, StepStarted, TextDelta, TextReady
from core.plan import Draw, Forget, Read, Step, Write, plan
from core.protocol import Context, Drawn, Item, Picture, Text, UnifiedModel
from recipes.recipe import Recipe, TextItem

# BAGEL's own prompt for planning an image before drawing it; the model was trained on these very words.
PLANNING_PROMPT = (
    "You should first think about the planning process in the mind and then generate the image. \n"
    "The planning process is enclosed within <think> </think> tags, "
    "i.e. <think> planning process here </think> image here"
)


def derive_seed(run_seed: int, step: int, variation: int, purpose: str) -> int:
    """The seed of one use of randomness, from what it is for alone: the first 63 bits of a SHA-256."""
    digest = hashlib.sha256(f"{run_seed}/{step}/{variation}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def run_sequence(
    recipe: Recipe, model: UnifiedModel, *, inputs: Sequence[Image] = (), done: Sequence[Item | None] = ()
) -> Iterator[Event]:
    """Interpret the plan of `recipe` on `model`.

    Args:
        recipe: with its defaults filled in.
        model: what reads, writes and draws.
        inputs: the images of the initial context, RGB or RGBA, in the order in which the recipe refers to them.
        done: what the first steps already made (an item each; None for a step that makes none). They are taken as
            they are, without an event, and the sequence goes on behind them: a resumed run equals an undisturbed one.
    """
    interpreter = _Interpreter(recipe, model, inputs)
    for step in plan(recipe):
        if step.number <= len(done):
            interpreter.restore(step, done[step.number - 1])
            continue
        yield StepStarted(step=step)
        yield from interpreter.run(step)


class _Interpreter:
    """The items made so far, by the number of the step that made them."""

    def __init__(self, recipe: Recipe, model: UnifiedModel, inputs: Sequence[Image]) -> None:
        self.recipe = recipe
        self.model = model
        self.inputs = iter(inputs)
        self.items: dict[int, Item] = {}

    @property
    def context(self) -> Context:
        system_prompt = PLANNING_PROMPT if self.recipe.think else None
        return Context(system_prompt=system_prompt, items=tuple(self.items.values()))

    def restore(self, step: Step, item: Item | None) -> None:
        """Take `step` as done, with the item it made."""
        match step:
            case Read():
                self._read(step)
            case Forget():
                self._forget(step)
            case Write() | Draw():
                if item is None:
                    raise ValueError(f"step {step.number} made an item, none was given")
                self.items[step.number] = item

    def run(self, step: Step) -> Iterator[Event]:
        match step:
            case Read():
                yield self._read(step)
            case Write():
                yield from self._write(step)
            case Draw():
                yield from self._draw(step)
            case Forget():
                self._forget(step)
                yield Forgotten(step=step)

    def _read(self, step: Read) -> Event:
        item = step.item
        if isinstance(item, TextItem):
            self.items[step.number] = Text(item.text)
            if step.role == "refinement":
                return TextReady(step=step, role="refinement", text=item.text, given=True)
        else:
            self.items[step.number] = Picture(next(self.inputs))
        return ItemRead(step=step)

    def _write(self, step: Write) -> Iterator[Event]:
        context = self.context.plus(Text(step.instruction)) if step.instruction else self.context
        seed = derive_seed(self.recipe.seed, step.number, 0, "text")
        parts: list[str] = []
        for part in self.model.write(context, self.recipe.text, seed=seed):
            parts.append(part)
            yield TextDelta(step=step, text=part)
        text = "".join(parts)
        self.items[step.number] = Text(text, thought=step.role == "thinking")
        yield TextReady(step=step, role=step.role, text=text, given=False)

    def _draw(self, step: Draw) -> Iterator[Event]:
        seed = derive_seed(self.recipe.seed, step.number, 0, "noise")
        for progress in self.model.draw(self.context, self.recipe.image, seeds=(seed,)):
            if isinstance(progress, Drawn):
                (image,) = progress.images
                self.items[step.number] = Picture(image)
                yield ImageReady(step=step, index=step.index, image=image, seed=seed)
            else:
                yield Denoised(step=step, done=progress.done, total=progress.total, preview=progress.preview)

    def _forget(self, step: Forget) -> None:
        for number in step.dropped:
            del self.items[number]

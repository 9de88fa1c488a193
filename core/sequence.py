"""The interpreter: runs a plan on a model and yields its events."""

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from PIL.Image import Image

from core.events import (
    Denoised,
    Event,
    Evicted,
    ImageReady,
    ItemRead,
    Judged,
    Skipped,
    StepStarted,
    TextDelta,
    TextReady,
    Variation,
)
from core.plan import Draw, Evict, Path, Read, Step, Write, plan
from core.protocol import Context, Drawn, EncodedImage, Item, Picture, Text, UnifiedModel
from recipes.recipe import INSTRUCTION, ImageSettings, Recipe, TextItem, TextSettings

SCORE_DIGITS = 6
"""Decimal places of a score in events, in records and in comparisons."""

# BAGEL's prompt for planning an image before drawing it; the model was trained with this exact text.
PLANNING_PROMPT = (
    "You should first think about the planning process in the mind and then generate the image. \n"
    "The planning process is enclosed within <think> </think> tags, "
    "i.e. <think> planning process here </think> image here"
)


def derive_seed(run_seed: int, step: int, variation: int, purpose: str) -> int:
    """The seed for one purpose, which depends only on the arguments: the first 63 bits of a SHA-256."""
    digest = hashlib.sha256(f"{run_seed}/{step}/{variation}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Unused:
    """Stands for the output of a step that no remaining step uses."""


StepOutput: TypeAlias = str | tuple[Variation, ...] | Unused | None
"""The output of a step for later steps: the written text, the selected variations, or None."""


def fill_instruction(template: str, instruction: str) -> str:
    """A question or an answer with its placeholder replaced with `instruction`, without a final full stop."""
    return template.replace(INSTRUCTION, instruction.strip().removesuffix("."))


def run_sequence(
    recipe: Recipe,
    model: UnifiedModel,
    *,
    inputs: Sequence[Image | EncodedImage] = (),
    done: Iterable[StepOutput] = (),
    heartbeat: Callable[[], object] = lambda: None,
) -> Generator[Event, None, Context]:
    """Interpret the plan of `recipe` on `model`.

    Args:
        recipe: the recipe with its defaults filled in.
        model: the model.
        inputs: the images of the initial context, RGB or RGBA, in the order of the recipe.
        done: the outputs of the first steps, which are skipped without events: a resumed run equals an uninterrupted
            one. Those of steps that are not in `used_after` may be Unused.
        heartbeat: called after each item that the model reads before a text or an image, where no event tells that the
            work goes on: how many items it reads depends on its cache. What it raises ends the sequence.

    Returns:
        The final context; of a tree, that of the last branch.
    """
    steps = plan(recipe)
    interpreter = _Interpreter(recipe, model, steps, inputs, heartbeat)
    ahead = iter(steps)
    for output in done:
        interpreter.restore(next(ahead), output)
    for step in ahead:
        yield StepStarted(step=step)
        yield from interpreter.run(step)
    return interpreter.context_after(steps[-1])


def used_after(steps: Sequence[Step], done: int) -> frozenset[int]:
    """The numbers of the first `done` of `steps` whose output is in the context of a later step or of the end."""
    last_use = _last_use(steps)
    until = min(done + 1, len(steps))
    made = {step.number: step.item if isinstance(step, Draw) else step.number for step in steps[:done]}
    return frozenset(number for number, item in made.items() if last_use.get(item, 0) >= until)


class _Interpreter:
    """Runs steps, and keeps the items that later steps need, by the number of the step that produced them."""

    def __init__(
        self,
        recipe: Recipe,
        model: UnifiedModel,
        steps: Sequence[Step],
        inputs: Sequence[Image | EncodedImage],
        heartbeat: Callable[[], object],
    ) -> None:
        self.recipe = recipe
        self.model = model
        self.heartbeat = heartbeat
        self.inputs = iter(inputs)
        self.read: dict[int, Item] = {}  # given or written
        self.drawn: dict[int, dict[Path, Variation]] = {}  # the selected variation of each branch
        self.last_use = _last_use(steps)

    def context_after(self, step: Step) -> Context:
        """The context after `step`."""
        number = step.after[-1]
        path = list(self.drawn[number])[-1] if number in self.drawn else step.path
        return self._context(step.after, path)

    def restore(self, step: Step, output: StepOutput) -> None:
        """Restore the output of a step that is already done."""
        match step:
            case Read():
                self._read(step)
            case _ if isinstance(output, Unused):
                pass
            case Write() if isinstance(output, str):
                self._keep_text(step, output)
            case Draw() if isinstance(output, tuple):
                kept = self.drawn.setdefault(step.item, {})
                kept.update({_branch(step, variation): variation for variation in output})
            case Write() | Draw(attempt=0):
                raise ValueError(f"the output of step {step.number} can't be {output!r}")
        self._drop_unused(step)

    def run(self, step: Step) -> Iterator[Event]:
        match step:
            case Read():
                yield self._read(step)
            case Write():
                yield from self._write(step)
            case Draw():
                yield from self._draw(step)
            case Evict():
                yield Evicted(step=step)
        self._drop_unused(step)

    def _context(self, numbers: Sequence[int], path: Path) -> Context:
        system_prompt = PLANNING_PROMPT if self.recipe.think else None
        return Context(system_prompt=system_prompt, items=tuple(self._item(number, path) for number in numbers))

    def _item(self, number: int, path: Path) -> Item:
        if number in self.read:
            return self.read[number]
        here = [one for branch, one in self.drawn[number].items() if path[: len(branch)] == branch]
        return Picture(here[0].image)

    def _drop_unused(self, step: Step) -> None:
        """Drop the items that no later step needs, so that memory does not grow with the length of the sequence."""
        for items in (self.read, self.drawn):
            for number in [number for number in items if self.last_use[number] < step.number]:
                del items[number]

    def _read(self, step: Read) -> Event:
        item = step.item
        if isinstance(item, TextItem):
            self.read[step.number] = Text(item.text, thought=item.thought)
            if step.role == "refinement":
                return TextReady(step=step, role="refinement", text=item.text, given=True)
        else:
            self.read[step.number] = Picture(next(self.inputs))
        return ItemRead(step=step)

    def _write(self, step: Write) -> Iterator[Event]:
        context = self._context(step.context, step.path)
        if step.instruction:
            context = context.plus(Text(step.instruction))
        self._prefill(context, self.recipe.text)
        seed = derive_seed(self.recipe.seed, step.number, 0, "text")
        parts: list[str] = []
        for part in self.model.write(context, self.recipe.text, seed=seed):
            parts.append(part)
            yield TextDelta(step=step, text=part)
        text = "".join(parts)
        self._keep_text(step, text)
        yield TextReady(step=step, role=step.role, text=text, given=False)

    def _prefill(self, context: Context, settings: TextSettings | ImageSettings) -> None:
        for _ in self.model.prefill(context, settings):
            self.heartbeat()

    def _keep_text(self, step: Write, text: str) -> None:
        self.read[step.number] = Text(text, thought=step.role == "thinking")

    def _draw(self, step: Draw) -> Iterator[Event]:
        wanted = self._wanted(step)
        if not wanted:
            yield Skipped(step=step)
            return
        seeds = [derive_seed(self.recipe.seed, step.number, number, "noise") for number in wanted]
        context = self._context(step.context, step.path)
        self._prefill(context, self.recipe.image)
        images: Sequence[Image] = ()
        for progress in self.model.draw(context, self.recipe.image, seeds=seeds):
            if isinstance(progress, Drawn):
                images = progress.images
            else:
                yield Denoised(step=step, done=progress.done, total=progress.total, preview=progress.preview)
        drawn = [
            Variation(number=number, image=image, seed=seed)
            for number, image, seed in zip(wanted, images, seeds, strict=True)
        ]
        if self.recipe.is_judged:
            drawn = yield from self._judge(step, drawn)
        yield ImageReady(step=step, variations=self._select(step, drawn))

    def _wanted(self, step: Draw) -> Sequence[int]:
        """The variations that `step` has to draw: all in the first attempt, later those with too low a score."""
        if not step.attempt or self.recipe.retry is None:
            return range(step.variations)
        below, kept = self.recipe.retry.below, self.drawn[step.item].values()
        low = [variation.number for variation in kept if _score(variation) < below]
        return range(step.variations) if low and self.recipe.select == "judge" else low

    def _judge(self, step: Draw, drawn: Sequence[Variation]) -> Generator[Event, None, list[Variation]]:
        """Score `drawn`, with an event for each, and return them with their scores."""
        shown = self.read[step.shows]
        instruction, asked = shown.text if isinstance(shown, Text) else "", self.recipe.judge
        question = fill_instruction(asked.question, instruction)
        answer = None if asked.answer is None else fill_instruction(asked.answer, instruction)
        scores: list[float] = []
        for one in drawn:
            scores.append(round(self.model.judge(one.image, question, answer), SCORE_DIGITS))
            yield Judged(step=step, question=question, answer=answer, scores=tuple(scores))
        return [replace(one, score=score) for one, score in zip(drawn, scores, strict=True)]

    def _select(self, step: Draw, drawn: Sequence[Variation]) -> tuple[Variation, ...]:
        """Mark the selected variations: in each branch the best so far."""
        kept = self.drawn.setdefault(step.item, {})
        ranked = sorted(drawn, key=_score, reverse=True) if self.recipe.select == "judge" else drawn
        for one in ranked:
            branch = _branch(step, one)
            if branch not in kept or (step.attempt and _score(one) > _score(kept[branch])):
                kept[branch] = one
        selected = {id(one) for one in kept.values()}
        return tuple(replace(one, selected=id(one) in selected) for one in drawn)


def _last_use(steps: Sequence[Step]) -> dict[int, int]:
    """The number of the last step that uses each item."""
    return {number: step.number for step in steps for number in _uses(step)}


def _uses(step: Step) -> tuple[int, ...]:
    """The numbers of the steps whose items `step` uses or produces."""
    shows = (step.shows,) if isinstance(step, Draw) else ()
    return (*step.context, *step.after, *shows)


def _branch(step: Draw, variation: Variation) -> Path:
    """The branch that continues from a variation, if it is selected."""
    return step.branch(variation.number) if step.forks else step.path


def _score(variation: Variation) -> float:
    return variation.score or 0.0

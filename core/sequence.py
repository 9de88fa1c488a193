"""The interpreter: runs a plan on a model and yields what happens."""

import hashlib
from collections.abc import Generator, Iterable, Iterator, Sequence
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
from core.protocol import Context, Drawn, Item, Picture, Text, UnifiedModel
from recipes.recipe import INSTRUCTION, Recipe, TextItem

SCORE_DIGITS = 6
"""What a score is rounded to, as it is told, stored and compared."""

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


StepOutput: TypeAlias = str | tuple[Variation, ...] | None
"""What a step leaves to those after it: the text that it wrote, the variations that it chose, or nothing of its own."""


def worded(wording: str, instruction: str) -> str:
    """A question, or its answer, about an image that is to show what `instruction` says."""
    return wording.replace(INSTRUCTION, instruction.strip().removesuffix("."))


def run_sequence(
    recipe: Recipe, model: UnifiedModel, *, inputs: Sequence[Image] = (), done: Iterable[StepOutput] = ()
) -> Generator[Event, None, Context]:
    """Interpret the plan of `recipe` on `model`.

    Args:
        recipe: with its defaults filled in.
        model: what reads, writes and draws.
        inputs: the images of the initial context, RGB or RGBA, in the order in which the recipe refers to them.
        done: what the first steps already made. It is taken as it is, without an event, and the sequence goes on
            behind it: a resumed run equals an undisturbed one.

    Returns:
        The context at the end; of a tree, that of its last branch.
    """
    steps = plan(recipe)
    interpreter = _Interpreter(recipe, model, steps, inputs)
    ahead = iter(steps)
    for made in done:
        interpreter.restore(next(ahead), made)
    for step in ahead:
        yield StepStarted(step=step)
        yield from interpreter.run(step)
    return interpreter.context_after(steps[-1])


class _Interpreter:
    """The items that are still needed, by the number of the step that made them."""

    def __init__(self, recipe: Recipe, model: UnifiedModel, steps: Sequence[Step], inputs: Sequence[Image]) -> None:
        self.recipe = recipe
        self.model = model
        self.inputs = iter(inputs)
        self.read: dict[int, Item] = {}  # given, or written
        self.drawn: dict[int, dict[Path, Variation]] = {}  # what goes on, by the branches that it goes on in
        self.last_use = {number: step.number for step in steps for number in _uses(step)}

    def context_after(self, step: Step) -> Context:
        """What is before the model once `step` is done."""
        number = step.item if isinstance(step, Draw) else step.number
        path = list(self.drawn[number])[-1] if number in self.drawn else step.path
        return self._context((*step.context, number), path)

    def restore(self, step: Step, made: StepOutput) -> None:
        """Take `step` as done, with what it made."""
        match step:
            case Read():
                self._read(step)
            case Write() if isinstance(made, str):
                self._keep_text(step, made)
            case Draw() if isinstance(made, tuple):
                kept = self.drawn.setdefault(step.item, {})
                kept.update({_branch(step, variation): variation for variation in made})
            case Write() | Draw(attempt=0):
                raise ValueError(f"step {step.number} made something, {made!r} was given")
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
        """Let go of what no later step needs, so that memory does not grow with the length of the sequence."""
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
        seed = derive_seed(self.recipe.seed, step.number, 0, "text")
        parts: list[str] = []
        for part in self.model.write(context, self.recipe.text, seed=seed):
            parts.append(part)
            yield TextDelta(step=step, text=part)
        text = "".join(parts)
        self._keep_text(step, text)
        yield TextReady(step=step, role=step.role, text=text, given=False)

    def _keep_text(self, step: Write, text: str) -> None:
        self.read[step.number] = Text(text, thought=step.role == "thinking")

    def _draw(self, step: Draw) -> Iterator[Event]:
        wanted = self._wanted(step)
        if not wanted:
            yield Skipped(step=step)
            return
        seeds = [derive_seed(self.recipe.seed, step.number, number, "noise") for number in wanted]
        images: Sequence[Image] = ()
        for progress in self.model.draw(self._context(step.context, step.path), self.recipe.image, seeds=seeds):
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
        yield ImageReady(step=step, variations=self._choose(step, drawn))

    def _wanted(self, step: Draw) -> Sequence[int]:
        """The variations that `step` is to draw: all in the first try, then those whose score is too low."""
        if not step.attempt or self.recipe.retry is None:
            return range(step.variations)
        below, kept = self.recipe.retry.below, self.drawn[step.item].values()
        low = [variation.number for variation in kept if _score(variation) < below]
        return range(step.variations) if low and self.recipe.select == "judge" else low

    def _judge(self, step: Draw, drawn: Sequence[Variation]) -> Generator[Event, None, list[Variation]]:
        """Returns `drawn` with the scores that the model gives them; an event for each, as it takes a while."""
        shown = self.read[step.shows]
        instruction, asked = shown.text if isinstance(shown, Text) else "", self.recipe.judge
        question = worded(asked.question, instruction)
        answer = None if asked.answer is None else worded(asked.answer, instruction)
        scores: list[float] = []
        for one in drawn:
            scores.append(round(self.model.judge(one.image, question, answer), SCORE_DIGITS))
            yield Judged(step=step, question=question, answer=answer, scores=tuple(scores))
        return [replace(one, score=score) for one, score in zip(drawn, scores, strict=True)]

    def _choose(self, step: Draw, drawn: Sequence[Variation]) -> tuple[Variation, ...]:
        """Mark what goes on: in each branch the best so far."""
        kept = self.drawn.setdefault(step.item, {})
        ranked = sorted(drawn, key=_score, reverse=True) if self.recipe.select == "judge" else drawn
        for one in ranked:
            branch = _branch(step, one)
            if branch not in kept or (step.attempt and _score(one) > _score(kept[branch])):
                kept[branch] = one
        selected = {id(one) for one in kept.values()}
        return tuple(replace(one, selected=id(one) in selected) for one in drawn)


def _uses(step: Step) -> tuple[int, ...]:
    """The numbers of the steps whose items `step` needs or makes."""
    if isinstance(step, Draw):
        return (*step.context, step.item, step.shows)
    return (*step.context, step.number)


def _branch(step: Draw, variation: Variation) -> Path:
    """Where a variation goes on, if it does."""
    return step.branch(variation.number) if step.forks else step.path


def _score(variation: Variation) -> float:
    return variation.score or 0.0

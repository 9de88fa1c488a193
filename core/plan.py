"""The plan of a recipe: every step of the sequence, known and numbered before any of it is computed.

Each step says which items are before the model, by the numbers of the steps that made them. So a context is a function
of the plan alone, whatever was drawn again, forgotten or branched off before it.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeAlias

from recipes.recipe import ContextItem, ImageItem, Recipe, TextItem

Path: TypeAlias = tuple[int, ...]
"""A branch of a tree: which variation went on at each of its images. A sequence that does not branch has ()."""
SHORTEST_MEMORY = 3
"""What is never forgotten in bulk: the last image, its refinement and the thought about the next."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """The model reads a given item: one of the initial context, or a given refinement text."""

    kind: ClassVar = "read"

    number: int
    path: Path = ()
    context: tuple[int, ...] = ()
    """The numbers of the steps whose items are before the model, in their order."""
    role: Literal["initial", "refinement"]
    item: ContextItem


@dataclass(frozen=True, kw_only=True)
class Write:
    """The model writes a text and reads it back."""

    kind: ClassVar = "write"

    number: int
    path: Path = ()
    context: tuple[int, ...] = ()
    role: Literal["thinking", "refinement"]
    instruction: str | None = None
    """Seen while this text is written, then gone from the context."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The model draws the variations of an image from one context, or draws again those that were judged too low."""

    kind: ClassVar = "draw"

    number: int
    path: Path = ()
    context: tuple[int, ...] = ()
    index: int
    """Which of the images of its branch this is, from 0."""
    variations: int = 1
    forks: bool = False
    """Whether each variation goes on, as a branch of its own; else one does."""
    attempt: int = 0
    """0 for the first try; a further one is skipped when nothing is left to draw again."""
    shows: int
    """The number of the step whose text the image is to show."""

    @property
    def item(self) -> int:
        """The number under which contexts hold what goes on: that of the first try."""
        return self.number - self.attempt

    def branch(self, variation: int) -> Path:
        """What names a variation: the path on which it goes on, or just its number, and none for the only or first."""
        if self.forks:
            return (*self.path, variation)
        return (variation,) if variation else ()


@dataclass(frozen=True, kw_only=True)
class Evict:
    """Items leave the context, whole."""

    kind: ClassVar = "forget"

    number: int
    path: Path = ()
    context: tuple[int, ...] = ()
    dropped: tuple[int, ...]
    """The numbers of the steps whose items go."""


Step: TypeAlias = Read | Write | Draw | Evict


def plan(recipe: Recipe) -> tuple[Step, ...]:
    """The steps of `recipe`, numbered from 1.

    After a text comes an image, with `think` a thinking text before it, unless the initial context ends with one; after
    an image comes a refinement text (given, or written) while more images are wanted; items above `max_context_items`
    go before the next generation. A tree is gone through depth first, so that a branch finds what it shares with the
    one before it still read.
    """
    return tuple(_Planner(recipe).steps())


@dataclass(kw_only=True)
class _Branch:
    """Where the planner stands on one path."""

    path: Path = ()
    context: tuple[int, ...] = ()
    prompts: tuple[str | None, ...]
    """The given refinement texts that are left, None for one to be written."""
    text: int = 0
    """The number of the step with the latest text that is no thought."""

    def fork(self, variation: int) -> "_Branch":
        return replace(self, path=(*self.path, variation))


class _Planner:
    """Numbers the steps and follows which items are in the context of each branch."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.forks = recipe.select == "tree"
        self.pinned = recipe.num_pinned
        self.numbers = itertools.count(1)

    def steps(self) -> Iterator[Step]:
        trunk = _Branch(prompts=self.recipe.refinement_prompts)
        for item in self.recipe.context:
            yield self._read(trunk, "initial", item)
        yield from self._images(trunk, 0)

    def _images(self, branch: _Branch, index: int) -> Iterator[Step]:
        """The images from `index` on, with all that comes between them."""
        if index == self.recipe.num_images:
            return
        if index or isinstance(self.recipe.context[-1], ImageItem):
            yield from self._refine(branch)
        yield from self._draw(branch, index)
        paths = range(self.recipe.variations_per_image) if self.forks else ()
        for path in [branch.fork(variation) for variation in paths] or [branch]:
            yield from self._images(path, index + 1)

    def _read(self, branch: _Branch, role: Literal["initial", "refinement"], item: ContextItem) -> Step:
        step = Read(number=next(self.numbers), path=branch.path, context=branch.context, role=role, item=item)
        if isinstance(item, TextItem) and not item.thought:
            branch.text = step.number
        branch.context += (step.number,)
        return step

    def _refine(self, branch: _Branch) -> Iterator[Step]:
        """A refinement text: the next given one, else written by the model."""
        given, branch.prompts = next(iter(branch.prompts), None), branch.prompts[1:]
        if given is not None:
            yield self._read(branch, "refinement", TextItem(text=given))
            return
        yield from self._write(branch, "refinement", self.recipe.refine_instruction)
        branch.text = branch.context[-1]

    def _write(
        self, branch: _Branch, role: Literal["thinking", "refinement"], instruction: str | None = None
    ) -> Iterator[Step]:
        yield from self._forget(branch)
        step = Write(
            number=next(self.numbers), path=branch.path, context=branch.context, role=role, instruction=instruction
        )
        branch.context += (step.number,)
        yield step

    def _draw(self, branch: _Branch, index: int) -> Iterator[Step]:
        """An image, and with `think` the thinking text before it; then every further try that there may be."""
        if self.recipe.think and not (index == 0 and self._begins_with_thought()):
            yield from self._write(branch, "thinking")
        yield from self._forget(branch)
        first = Draw(
            number=next(self.numbers),
            path=branch.path,
            context=branch.context,
            index=index,
            variations=self.recipe.variations_per_image,
            forks=self.forks,
            shows=branch.text,
        )
        branch.context += (first.number,)
        yield first
        for attempt in range(1, self.recipe.retry.times + 1 if self.recipe.retry else 1):
            yield replace(first, number=next(self.numbers), attempt=attempt)

    def _begins_with_thought(self) -> bool:
        """Whether the initial context ends with the plan for the first image."""
        last = self.recipe.context[-1]
        return isinstance(last, TextItem) and last.thought

    def _forget(self, branch: _Branch) -> Iterator[Step]:
        """Make room ahead of a generation: the oldest unpinned items go, about half of them at once.

        What stays has to be read again, since it no longer stands where it did. Were items dropped one by one, that
        would be all of it each time; so it is half of it now and then, and the whole takes time linear in its length.
        """
        limit = self.recipe.max_context_items
        if limit is None or len(branch.context) <= limit:
            return
        room = limit - self.pinned
        kept = max(room // 2, min(room, SHORTEST_MEMORY))
        pinned, others = branch.context[: self.pinned], branch.context[self.pinned :]
        dropped, latest = others[:-kept], others[-kept:]
        yield Evict(number=next(self.numbers), path=branch.path, context=branch.context, dropped=dropped)
        branch.context = pinned + latest

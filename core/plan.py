"""The plan of a recipe: all steps of the sequence, numbered before any of them is computed.

Each step states its context by the numbers of the steps that produced its items. So a context depends only on the plan,
whatever was drawn again, evicted or branched before.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeAlias

from recipes.recipe import ContextItem, ImageItem, Recipe, TextItem

Path: TypeAlias = tuple[int, ...]
"""A branch of a tree: the number of the variation at each of its images. () if the sequence does not branch."""
SHORTEST_MEMORY = 3
"""Items that an eviction always keeps: the last image, its refinement text and the thinking text for the next image."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """The model reads a given item: one of the initial context, or a given refinement text."""

    kind: ClassVar[Literal["read"]] = "read"

    number: int
    path: Path = ()
    context: tuple[int, ...] = ()
    """The numbers of the steps whose items are the context, in order."""
    role: Literal["initial", "refinement"]
    item: ContextItem

    @property
    def after(self) -> tuple[int, ...]:
        """The context after the step."""
        return (*self.context, self.number)


@dataclass(frozen=True, kw_only=True)
class Write:
    """The model writes a text and reads it back."""

    kind: ClassVar[Literal["write"]] = "write"

    number: int
    path: Path = ()
    context: tuple[int, ...] = ()
    role: Literal["thinking", "refinement"]
    instruction: str | None = None
    """An instruction that is in the context only while this text is written."""

    @property
    def after(self) -> tuple[int, ...]:
        """The context after the step."""
        return (*self.context, self.number)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The model draws the variations of an image from one context, or draws those with too low a score again."""

    kind: ClassVar[Literal["draw"]] = "draw"

    number: int
    path: Path = ()
    context: tuple[int, ...] = ()
    index: int
    """The number of the image within its branch, from 0."""
    variations: int = 1
    forks: bool = False
    """Whether each variation becomes a branch; otherwise the sequence continues from one of them."""
    attempt: int = 0
    """0 for the first attempt; a further one is skipped if no image has to be drawn again."""
    shows: int
    """The number of the step whose text the image should match."""

    @property
    def item(self) -> int:
        """The number of the selected image in contexts: that of the first attempt."""
        return self.number - self.attempt

    @property
    def after(self) -> tuple[int, ...]:
        """The context after the step."""
        return (*self.context, self.item)

    def branch(self, variation: int) -> Path:
        """The path that identifies a variation: that of its branch, or just its number, and () for the first."""
        if self.forks:
            return (*self.path, variation)
        return (variation,) if variation else ()


@dataclass(frozen=True, kw_only=True)
class Evict:
    """Whole items are evicted from the context."""

    kind: ClassVar[Literal["forget"]] = "forget"

    number: int
    path: Path = ()
    context: tuple[int, ...] = ()
    dropped: tuple[int, ...]
    """The numbers of the steps whose items are evicted."""

    @property
    def after(self) -> tuple[int, ...]:
        """The context after the step."""
        return tuple(number for number in self.context if number not in self.dropped)


Step: TypeAlias = Read | Write | Draw | Evict


def plan(recipe: Recipe) -> tuple[Step, ...]:
    """The steps of `recipe`, numbered from 1.

    A text is followed by an image, with `think` by a thinking text first, unless the initial context ends with one. An
    image is followed by a refinement text (given or written) if more images are to come. Items are evicted before a
    generation whose context exceeds `max_context_items`. Trees are traversed depth first, so that what a branch shares
    with the previous one is still cached.
    """
    return tuple(_Planner(recipe).steps())


@dataclass(kw_only=True)
class _Branch:
    """The state of the planner on one branch."""

    path: Path = ()
    context: tuple[int, ...] = ()
    prompts: tuple[str | None, ...]
    """The remaining refinement texts; None for one that the model writes."""
    text: int = 0
    """The number of the step with the latest text other than a thinking text."""

    def fork(self, variation: int) -> "_Branch":
        return replace(self, path=(*self.path, variation))


class _Planner:
    """Numbers the steps and tracks the context of each branch."""

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
        """The steps of the images from `index` on, and those between them."""
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
        """The step of a refinement text: the next given one, or one that the model writes."""
        given, branch.prompts = next(iter(branch.prompts), None), branch.prompts[1:]
        if given is not None:
            yield self._read(branch, "refinement", TextItem(text=given))
            return
        yield from self._write(branch, "refinement", self.recipe.refine_instruction)
        branch.text = branch.context[-1]

    def _write(
        self, branch: _Branch, role: Literal["thinking", "refinement"], instruction: str | None = None
    ) -> Iterator[Step]:
        yield from self._evict(branch)
        step = Write(
            number=next(self.numbers), path=branch.path, context=branch.context, role=role, instruction=instruction
        )
        branch.context += (step.number,)
        yield step

    def _draw(self, branch: _Branch, index: int) -> Iterator[Step]:
        """The steps of an image: with `think` its thinking text, the first attempt and all possible further ones."""
        if self.recipe.think and not (index == 0 and self._begins_with_thought()):
            yield from self._write(branch, "thinking")
        yield from self._evict(branch)
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
        """Whether the initial context ends with the thinking text of the first image."""
        last = self.recipe.context[-1]
        return isinstance(last, TextItem) and last.thought

    def _evict(self, branch: _Branch) -> Iterator[Step]:
        """Evict the oldest items that are not pinned, about half of them, if the context exceeds its maximum.

        The remaining items have to be read again, since their positions change. Evicting half of the items at once
        makes that rare, so that the total time stays linear in the length of the sequence.
        """
        limit = self.recipe.max_context_items
        if limit is None or len(branch.context) <= limit:
            return
        room = limit - self.pinned
        kept = max(room // 2, min(room, SHORTEST_MEMORY))
        dropped = branch.context[self.pinned : -kept]
        step = Evict(number=next(self.numbers), path=branch.path, context=branch.context, dropped=dropped)
        branch.context = step.after
        yield step

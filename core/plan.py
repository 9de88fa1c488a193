"""The plan of a recipe: every step of the sequence, known and numbered before any of it is computed."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from recipes.recipe import ContextItem, ImageItem, Recipe, TextItem


@dataclass(frozen=True, kw_only=True)
class Read:
    """The model reads a given item: one of the initial context, or a given refinement text."""

    number: int
    role: Literal["initial", "refinement"]
    item: ContextItem


@dataclass(frozen=True, kw_only=True)
class Write:
    """The model writes a text and reads it back."""

    number: int
    role: Literal["thinking", "refinement"]
    instruction: str | None = None
    """Seen while this text is written, then gone from the context."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The model draws an image and reads it back."""

    number: int
    index: int
    """Which of the run's images this is, from 0."""


@dataclass(frozen=True, kw_only=True)
class Forget:
    """Items leave the context, whole."""

    number: int
    dropped: tuple[int, ...]
    """The numbers of the steps whose items go."""


Step: TypeAlias = Read | Write | Draw | Forget


def plan(recipe: Recipe) -> tuple[Step, ...]:
    """The steps of `recipe`, numbered from 1.

    After a text comes an image, with `think` a thinking text before it; after an image comes a refinement text (given
    ones first) while more images are wanted; items above `max_context_items` go before the next generation.
    """
    planner = _Planner(recipe)
    for item in recipe.context:
        planner.read("initial", item)
    if isinstance(recipe.context[-1], ImageItem):
        planner.refine()
    for index in range(recipe.num_images):
        if index:
            planner.refine()
        planner.draw(index)
    return tuple(planner.steps)


class _Planner:
    """Numbers the steps and follows which items are in the context."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.steps: list[Step] = []
        self.context: list[int] = []  # step numbers of the items in the context, oldest first
        self.prompts = list(recipe.refinement_prompts)

    @property
    def next_number(self) -> int:
        return len(self.steps) + 1

    def read(self, role: Literal["initial", "refinement"], item: ContextItem) -> None:
        self._add(Read(number=self.next_number, role=role, item=item))

    def refine(self) -> None:
        """A refinement text: the next given one, else written by the model."""
        if self.prompts:
            self.read("refinement", TextItem(text=self.prompts.pop(0)))
            return
        self._forget()
        instruction = self.recipe.refine_instruction
        self._add(Write(number=self.next_number, role="refinement", instruction=instruction))

    def draw(self, index: int) -> None:
        """An image, and with `think` the thinking text before it."""
        if self.recipe.think:
            self._forget()
            self._add(Write(number=self.next_number, role="thinking"))
        self._forget()
        self._add(Draw(number=self.next_number, index=index))

    def _add(self, step: Read | Write | Draw) -> None:
        self.steps.append(step)
        self.context.append(step.number)

    def _forget(self) -> None:
        """Drop the oldest unpinned items above the limit, ahead of a generation."""
        limit = self.recipe.max_context_items
        if limit is None or len(self.context) <= limit:
            return
        pinned = len(self.recipe.context) if self.recipe.pin == "initial" else 0
        stop = pinned + len(self.context) - limit
        dropped = tuple(self.context[pinned:stop])
        self.steps.append(Forget(number=self.next_number, dropped=dropped))
        del self.context[pinned:stop]

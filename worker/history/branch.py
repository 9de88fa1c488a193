"""A branch: a recipe that continues a run after one of its steps, with the run's context as its initial context."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.plan import Draw, Path, Read, Step, Write
from recipes.canonical import to_document
from recipes.recipe import ContextItem, Recipe
from recipes.variables import escaped
from storage.journal import Artifact, Journal
from worker.history.history import History, PlaceError, read_history


@dataclass(frozen=True, kw_only=True)
class ForkPoint:
    """A step of a run after which another run can branch off."""

    history: History
    step: Step
    path: Path
    """The continued branch of a tree, with the variation of the last image."""
    drawn: Artifact | None
    """The image to continue from, if the step drew images."""

    @property
    def images(self) -> int:
        """The number of images up to the fork point."""
        return sum(isinstance(step, Draw) and not step.attempt for step in self._before)

    @property
    def refinements(self) -> int:
        """The number of refinement texts up to the fork point."""
        return sum(isinstance(step, Read | Write) and step.role == "refinement" for step in self._before)

    @property
    def _before(self) -> tuple[Step, ...]:
        return self.history.before(self.step.number, self.path)

    def context(self) -> tuple[ContextItem, ...]:
        """The context at the fork point. Raises PlaceError, CorruptRecordError."""
        return self.history.items(self.step, self.path, self.drawn)

    def recipe(self) -> Recipe:
        """The recipe of the rest of the run. It is invalid, with `num_images` 0, if no images remain.

        Raises PlaceError, CorruptRecordError.
        """
        parent, context = self.history.recipe, self.context()
        pinned = parent.num_pinned  # the branch pins the same items, not all of its longer initial context
        return replace(
            parent,
            context=context,
            num_images=parent.num_images - self.images,
            refinement_prompts=parent.refinement_prompts[self.refinements :],
            pin=pinned if parent.pin == "initial" and pinned != len(context) else parent.pin,
            parent=f"{self.history.run_id}@{self.step.number}",
        )


def fork_at(history: History, at: int, variation: int | None = None) -> ForkPoint:
    """The fork point after the step `at`.

    Args:
        history: of the run.
        at: the number of a completed step.
        variation: which image of the step to continue from; by default the selected one.

    Raises PlaceError.
    """
    step = history.step(at)
    begin = len(history.recipe.context)
    if at < begin:
        raise PlaceError(f"{history.place(at)}: is in the middle of the initial context; allowed: {begin} or later")
    if isinstance(step, Draw):
        drawn = _pick(history, step, variation)
        path = step.branch(drawn.variation) if step.forks else step.path
        return ForkPoint(history=history, step=step, path=path, drawn=drawn)
    if variation is not None:
        raise PlaceError(f"{history.place(at)}: draws no image, so no variation can be selected")
    return ForkPoint(history=history, step=step, path=step.path, drawn=None)


def branched(
    journal: Journal, *, at: int, variation: int | None = None, overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The recipe, as data, that continues a run after the step `at`, without the values of `overrides`.

    Raises:
        RunNotFoundError: the run is not in the bucket.
        PlaceError: the run can't be branched there.
        CorruptRecordError, NewerRecordError, StoreUnavailableError, StoreRefusedError: the run can't be read.
    """
    history = read_history(journal, last=at)
    recipe = fork_at(history, at, variation).recipe()
    if recipe.num_images < 1 and "num_images" not in (overrides or {}):
        raise PlaceError(
            f"{history.place(at)}: all {history.recipe.num_images} images are complete; "
            "set how many more to draw: num_images=1 or more"
        )
    document: dict[str, Any] = escaped(to_document(recipe))
    return document


def _pick(history: History, step: Draw, variation: int | None) -> Artifact:
    """The image of `step` to continue from."""
    drawn = history.candidates(step)
    numbers = ", ".join(map(str, sorted(drawn)))
    if variation is not None:
        if variation not in drawn:
            raise PlaceError(f"{history.place(step.number)}: has no variation {variation}; allowed: {numbers}")
        return drawn[variation]
    selected = [one for one in drawn.values() if one.selected] or list(drawn.values())
    if len(selected) != 1:
        what = "selected several images; select one by its variation"
        raise PlaceError(f"{history.place(step.number)}: {what}: {numbers}")
    return selected[0]

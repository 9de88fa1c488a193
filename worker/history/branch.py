"""A branch: a recipe that continues a run after one of its steps; its initial context is the run's context there."""

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
    """A place in a run where another run can branch off."""

    history: History
    step: Step
    path: Path
    """The branch of a tree that is continued, with the variation of the last image."""
    drawn: Artifact | None
    """The image to continue from, when the step drew some."""

    @property
    def images(self) -> int:
        """How many images the sequence has up to there."""
        return sum(isinstance(step, Draw) and not step.attempt for step in self._before)

    @property
    def refinements(self) -> int:
        """How many refinement texts it has up to there."""
        return sum(isinstance(step, Read | Write) and step.role == "refinement" for step in self._before)

    @property
    def _before(self) -> tuple[Step, ...]:
        return self.history.before(self.step.number, self.path)

    def context(self) -> tuple[ContextItem, ...]:
        """The context there. Raises PlaceError, CorruptRecordError."""
        return self.history.items(self.step, self.path, self.drawn)

    def recipe(self) -> Recipe:
        """The recipe that continues from there as the run itself does. It may have no images left, which is invalid.

        Raises PlaceError, CorruptRecordError.
        """
        parent, context = self.history.recipe, self.context()
        pinned = parent.num_pinned  # the same items at the beginning, whatever came behind them
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
        at: the number of a step that is done.
        variation: which of the images that it drew to continue from; by default the selected one.

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
        raise PlaceError(f"{history.place(at)}: draws no image that could be chosen by its variation")
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
            f"{history.place(at)}: all {history.recipe.num_images} images are there; "
            "say how many more are wanted: num_images=1 or more"
        )
    document: dict[str, Any] = escaped(to_document(recipe))
    return document


def _pick(history: History, step: Draw, variation: int | None) -> Artifact:
    """One of the images that `step` drew."""
    drawn = history.candidates(step)
    numbers = ", ".join(map(str, sorted(drawn)))
    if variation is not None:
        if variation not in drawn:
            raise PlaceError(f"{history.place(step.number)}: has no variation {variation}; allowed: {numbers}")
        return drawn[variation]
    selected = [one for one in drawn.values() if one.selected] or list(drawn.values())
    if len(selected) != 1:
        what = "drew several images that may go on; choose by variation"
        raise PlaceError(f"{history.place(step.number)}: {what}: {numbers}")
    return selected[0]

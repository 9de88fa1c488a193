"""The history of a run, read from the bucket: its committed steps and the context at each of them."""

from collections.abc import Iterator
from dataclasses import dataclass

from core.plan import Draw, Path, Read, Step, Write, plan
from recipes.recipe import MAX_TEXT_CHARS, ContextItem, ImageItem, Recipe, TextItem
from storage import keys
from storage.errors import ObjectNotFoundError, RunNotFoundError
from storage.journal import Artifact, Commit, Journal
from worker.jobs.stored_recipe import StoredRecipe, read_stored_recipe


class PlaceError(ValueError):
    """A step or variation can't be used. The message has the step, the problem and what is allowed."""


@dataclass(frozen=True, kw_only=True)
class History:
    """The committed part of a run, which may be in progress, complete, failed or cancelled."""

    journal: Journal
    recipe: Recipe
    """Resolved."""
    steps: tuple[Step, ...]
    """The whole plan."""
    commits: tuple[Commit, ...]
    """Those of the first steps, in order."""

    @property
    def run_id(self) -> str:
        return self.journal.run_id

    def place(self, number: int) -> str:
        """The name of a step in error messages."""
        return f"run {self.run_id}, step {number}"

    def step(self, number: int) -> Step:
        """A completed step. Raises PlaceError."""
        if not 1 <= number <= len(self.steps):
            raise PlaceError(f"{self.place(number)}: does not exist; allowed: 1 to {len(self.steps)}")
        if number > len(self.commits):
            done = f"steps 1 to {len(self.commits)}" if self.commits else "none yet"
            raise PlaceError(f"{self.place(number)}: is not complete yet; allowed: {done}")
        return self.steps[number - 1]

    def before(self, number: int, path: Path) -> tuple[Step, ...]:
        """The steps up to and including `number` on the branch `path`."""
        return tuple(step for step in self.steps[:number] if is_on(step.path, path))

    def candidates(self, step: Draw) -> dict[int, Artifact]:
        """The images that `step` drew, by variation; if it was skipped, those selected before."""
        artifacts = self.commits[step.number - 1].artifacts
        return {one.variation: one for one in artifacts} if artifacts else self.kept(step)

    def kept(self, last: Draw) -> dict[int, Artifact]:
        """The images that are selected after the attempt `last`, by variation: one, or in a tree one per branch."""
        kept: dict[Path, Artifact] = {}
        for number in range(last.item, last.number + 1):
            for one in self.commits[number - 1].artifacts:
                if one.selected:
                    kept[last.branch(one.variation) if last.forks else last.path] = one
        return {one.variation: one for one in kept.values()}

    def items(self, step: Step, path: Path, drawn: Artifact | None = None) -> tuple[ContextItem, ...]:
        """The context once `step` is done and the sequence continues on `path`, as items of a recipe.

        Args:
            step: a completed step.
            path: the branch, with the selected variation.
            drawn: the image to continue from, if `step` drew images.
        """
        if drawn is None:
            return tuple(self._item(number, path) for number in step.after)
        return (*(self._item(number, path) for number in step.context), self._picture(drawn))

    def _item(self, number: int, path: Path) -> ContextItem:
        step = self.steps[number - 1]
        match step:
            case Read(item=ImageItem() as item):
                return ImageItem(image=self.journal.address(item.image), sha256=item.sha256)
            case Read(item=item):
                return item
            case Write(role=role):
                return TextItem(text=self._text(number), thought=role == "thinking")
            case Draw():
                last = [one for one in self.steps if isinstance(one, Draw) and one.item == number][-1]
                kept = self.kept(last)
                return self._picture(kept[path[len(step.path)]] if step.forks else next(iter(kept.values())))
            case _:
                raise ValueError(f"{self.place(number)}: leaves no item")

    def _picture(self, drawn: Artifact) -> ImageItem:
        return ImageItem(image=self.journal.address(drawn.key), sha256=drawn.sha256)

    def _text(self, number: int) -> str:
        (artifact,) = self.commits[number - 1].artifacts
        text = read_text(self.journal, artifact)
        if not 1 <= len(text) <= MAX_TEXT_CHARS:
            raise PlaceError(
                f"{self.place(number)}: its text has {len(text):,} characters, which a context can't hold; "
                f"allowed: 1 to {MAX_TEXT_CHARS:,}"
            )
        return text


def read_history(journal: Journal, *, last: int | None = None) -> History:
    """The committed steps of the run of `journal`, up to the step `last` if one is given.

    Raises:
        RunNotFoundError: the bucket has no such run, or no worker has started it.
        CorruptRecordError: a record is invalid.
        NewerRecordError: a newer release wrote a record that this one can't read.
        StoreUnavailableError, StoreRefusedError: the bucket can't be read.
    """
    recipe = read_recipe(journal).recipe
    steps = plan(recipe)
    return History(journal=journal, recipe=recipe, steps=steps, commits=tuple(_commits(journal, steps[:last])))


def read_recipe(journal: Journal) -> StoredRecipe:
    """The stored recipe of a run. Raises RunNotFoundError, CorruptRecordError, NewerRecordError."""
    try:
        return read_stored_recipe(journal)
    except ObjectNotFoundError:
        address = journal.address(keys.RECIPE)
        raise RunNotFoundError(
            f"run {journal.run_id}: {address} does not exist; a worker writes it when it starts the run"
        ) from None


def read_text(journal: Journal, artifact: Artifact) -> str:
    """The text of an artifact. Raises CorruptRecordError."""
    return journal.read_artifact(artifact).decode()


def is_on(path: Path, branch: Path) -> bool:
    """Whether `path` is a prefix of `branch` or equal to it."""
    return branch[: len(path)] == path


def _commits(journal: Journal, steps: tuple[Step, ...]) -> Iterator[Commit]:
    for step in steps:
        try:
            yield journal.read_commit(step.number)
        except ObjectNotFoundError:
            return

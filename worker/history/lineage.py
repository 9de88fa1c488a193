"""The lineage of a run: the texts and images of its ancestors up to each fork point, then its own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from core.plan import Draw, Path, Step
from recipes.recipe import ContextItem, ImageItem, TextItem
from storage.errors import RunNotFoundError
from storage.journal import Artifact, Journal
from worker.history.branch import ForkPoint, fork_at
from worker.history.history import History, PlaceError, is_on, read_history, read_text

Role: TypeAlias = Literal["given", "refinement", "thinking", "image"]
JournalOf: TypeAlias = Callable[[str], Journal]
"""The folder of a run, by its id."""
ROLES: tuple[Role, ...] = ("given", "refinement", "thinking", "image")


@dataclass(frozen=True, kw_only=True, order=True)
class Place:
    """A position in a sequence, independent of step numbers."""

    path: Path = ()
    """The branch of a tree; for an image, the branch of its step."""
    images: int
    """The number of images before it on its branch."""
    rank: int
    """The index of its role in ROLES."""
    item: int = 0
    """The index of an item of the initial context."""
    attempt: int = 0
    variation: int = 0

    @property
    def role(self) -> Role:
        return ROLES[self.rank]

    def __str__(self) -> str:
        branch = f"branch {'.'.join(map(str, self.path))}, " if self.path else ""
        if self.role == "given":
            return f"given item {self.item + 1}"
        if self.role != "image":
            return f"{branch}{self.role} before image {self.images + 1}"
        marks = f", try {self.attempt + 1}" * bool(self.attempt) + f", variation {self.variation}" * bool(
            self.variation
        )
        return f"{branch}image {self.images + 1}{marks}"


@dataclass(frozen=True, kw_only=True)
class LineageItem:
    """One text or image of a sequence."""

    place: Place
    run_id: str
    """The run that read or generated it."""
    step: int
    text: str | None = None
    """None for an image."""
    key: str = ""
    """Name of its object within the run's folder."""
    sha256: str = ""
    selected: bool = True
    """Whether the sequence continues from it; False for other variations and dropped attempts."""
    journal: Journal = field(compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """The whole sequence of a run, as far as it is complete."""

    history: History
    fork_point: ForkPoint | None
    """Where the run branched off; None if it did not, or if its parent is not in this bucket."""
    items: tuple[LineageItem, ...]
    path: Path = ()
    """The prefix of the run's own branches."""
    images: int = 0
    """The number of images before the run's own."""

    @property
    def run_id(self) -> str:
        return self.history.run_id

    @property
    def is_done(self) -> bool:
        return len(self.history.commits) == len(self.history.steps)

    def along(self, path: Path) -> "Lineage":
        """Only the items of a tree that lead to `path` or follow it."""
        return replace(self, items=tuple(one for one in self.items if _is_along(one.place, path)))


def read_lineage(history: History, journal_of: JournalOf) -> Lineage:
    """The lineage of a run. Raises CorruptRecordError, NewerRecordError and what S3 raises."""
    fork = _fork_point(history, journal_of)
    if fork is None:
        items = tuple(_given(history))
        lineage = Lineage(history=history, fork_point=None, items=items)
    else:
        before = read_lineage(fork.history, journal_of)
        path = before.path + fork.path
        items = tuple(_inherited(before, fork, path))
        lineage = Lineage(history=history, fork_point=fork, items=items, path=path, images=before.images + fork.images)
    return replace(lineage, items=(*items, *_own(lineage)))


def _is_along(place: Place, path: Path) -> bool:
    if not (is_on(place.path, path) or is_on(path, place.path)):
        return False
    depth = len(place.path)
    return place.role != "image" or depth >= len(path) or place.variation == path[depth]


def _fork_point(history: History, journal_of: JournalOf) -> ForkPoint | None:
    """The fork point in the parent that has the run's initial context."""
    if history.recipe.parent is None:
        return None
    run_id, _, number = history.recipe.parent.rpartition("@")
    try:
        parent = read_history(journal_of(run_id), last=int(number))
        forks = list(_forks(parent, int(number)))
        context = _contents(history.recipe.context)
        return next((fork for fork in forks if _contents(fork.context()) == context), None)
    except (RunNotFoundError, PlaceError):
        return None


def _forks(parent: History, number: int) -> Iterator[ForkPoint]:
    step = parent.step(number)
    for variation in parent.candidates(step) if isinstance(step, Draw) else (None,):
        yield fork_at(parent, number, variation)


def _contents(context: tuple[ContextItem, ...]) -> list[object]:
    """The items of a context, images by their hashes."""
    return [one.sha256 if isinstance(one, ImageItem) else one for one in context]


def _given(history: History) -> Iterator[LineageItem]:
    for number, item in enumerate(history.recipe.context[: len(history.commits)]):
        place = Place(images=0, rank=0, item=number)
        given = LineageItem(place=place, run_id=history.run_id, step=number + 1, journal=history.journal)
        if isinstance(item, TextItem):
            yield replace(given, text=item.text)
        else:
            yield replace(given, key=item.image, sha256=item.sha256 or "")


def _inherited(before: Lineage, fork: ForkPoint, path: Path) -> Iterator[LineageItem]:
    """The items up to the fork point. The branch may select another image there than its parent."""
    for item in before.items:
        if not is_on(item.place.path, path):
            continue
        parents = item.run_id == fork.history.run_id and item.place.role == "image"
        if parents and fork.drawn and _item(fork.history, item.step) == _item(fork.history, fork.step.number):
            yield replace(item, selected=item.key == fork.drawn.key)
        elif parents and len(path) > len(item.place.path):
            yield replace(item, selected=item.selected and item.place.variation == path[len(item.place.path)])
        else:
            yield item


def _item(history: History, number: int) -> int | None:
    step = history.steps[number - 1]
    return step.item if isinstance(step, Draw) else None


def _own(lineage: Lineage) -> Iterator[LineageItem]:
    """The texts and images of the run itself."""
    history = lineage.history
    kept = {one.key for one in _selected(history)}
    for step, commit in zip(history.steps, history.commits, strict=False):
        for artifact in commit.artifacts:
            yield LineageItem(
                place=_place(lineage, step, artifact),
                run_id=history.run_id,
                step=step.number,
                text=read_text(history.journal, artifact) if artifact.kind == "text" else None,
                key=artifact.key,
                sha256=artifact.sha256,
                selected=artifact.kind == "text" or artifact.key in kept,
                journal=history.journal,
            )


def _place(lineage: Lineage, step: Step, artifact: Artifact) -> Place:
    if isinstance(step, Draw):
        images = step.index
    else:
        before = lineage.history.before(step.number, step.path)
        images = sum(isinstance(one, Draw) and not one.attempt for one in before)
    return Place(
        path=lineage.path + step.path,
        images=lineage.images + images,
        rank=ROLES.index(artifact.role),
        attempt=artifact.attempt,
        variation=artifact.variation,
    )


def _selected(history: History) -> Iterator[Artifact]:
    """The images that the run selected, as far as it is complete."""
    done = [step for step in history.steps[: len(history.commits)] if isinstance(step, Draw)]
    for last in {step.item: step for step in done}.values():
        yield from history.kept(last).values()

"""The images of a run, grouped by place: the selected ones, the other variations and the dropped attempts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from storage.journal import Artifact, selected_images

SCORE_DIGITS = 3
"""Decimal places of a displayed score; records have more."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """All images that were drawn at one place of the sequence, from one context."""

    step: int
    """The number of the step of the first attempt."""
    index: int
    """The position of the image in its branch, from 0."""
    branch: str
    """The branch of a tree that it continues, such as 0.1; empty on the trunk and without a tree."""
    forks: bool
    """Whether each variation is continued as a separate branch."""
    selected: tuple[Artifact, ...]
    """One image, or one for each branch where the figure forks."""
    others: tuple[Artifact, ...]
    """The other variations of the attempt that the selected image is from."""
    dropped: tuple[Artifact, ...]
    """The images of the other attempts, in order."""

    @property
    def variations(self) -> int:
        """The number of images that one attempt drew."""
        return 1 + max(one.variation for one in (*self.selected, *self.others, *self.dropped))

    @property
    def attempts(self) -> int:
        return 1 + max(one.attempt for one in (*self.selected, *self.others, *self.dropped))

    @property
    def is_single(self) -> bool:
        """Whether there was only one image."""
        return len(self.selected) == 1 and not self.others and not self.dropped and not self.forks

    def continued_by(self, other: "Figure") -> Artifact | None:
        """The selected image that `other` continues in a tree; None when it continues none of them."""
        return next((one for one in self.selected if self.forks and one.path == other.branch), None)


def figures(artifacts: Iterable[Artifact]) -> tuple[Figure, ...]:
    """The figures of a run, in the order in which they were drawn."""
    images = [artifact for artifact in artifacts if artifact.kind == "image"]
    places: dict[tuple[str, int], list[Artifact]] = {}
    for image in images:
        places.setdefault((branch_of(image), image.index or 0), []).append(image)
    kept = set(selected_images(images))
    return tuple(_figure(branch, index, drawn, kept) for (branch, index), drawn in places.items())


def _figure(branch: str, index: int, drawn: Sequence[Artifact], kept: set[str]) -> Figure:
    selected = tuple(sorted((one for one in drawn if one.key in kept), key=lambda one: one.variation))
    forks = bool(drawn[0].path)
    together = {one.step for one in selected} if not forks else set()
    rest = [one for one in drawn if one.key not in kept]
    return Figure(
        step=min(one.step for one in drawn),
        index=index,
        branch=branch,
        forks=forks,
        selected=selected,
        others=tuple(one for one in rest if one.step in together),
        dropped=tuple(one for one in rest if one.step not in together),
    )


def branch_of(artifact: Artifact) -> str:
    """The branch that an artifact continues: for an image, that of the context from which it was drawn."""
    return artifact.path.rpartition(".")[0] if artifact.kind == "image" else artifact.path


def branches_to(path: str) -> Iterator[str]:
    """The branches that lead to `path`, including itself: 0, 0.1 and 0.1.1 for 0.1.1."""
    numbers = path.split(".") if path else []
    return (".".join(numbers[: depth + 1]) for depth in range(len(numbers)))


def image_name(index: int | None, *, path: str = "", variation: int = 0) -> str:
    """The displayed name of an image: image 2, image 2 v1 (a variation), or 0.1 image 2 (on a branch)."""
    name = "image" if index is None else f"image {index + 1}"
    if path:
        return f"{path} {name}"
    return f"{name} v{variation}" if variation else name


def score_text(score: float) -> str:
    """A score as it is displayed: 0.874."""
    return f"{score:.{SCORE_DIGITS}f}"

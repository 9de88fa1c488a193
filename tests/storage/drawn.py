"""Builders for the tests of figures, pages and sheets: runs as their artifacts, without a model."""

from collections.abc import Iterator
from dataclasses import replace

from storage.journal import Artifact


def image(step: int, index: int = 0, size: int = 64) -> Artifact:
    return Artifact(
        kind="image",
        role="image",
        step=step,
        key=f"steps/{step:03d}-image.png",
        content_type="image/png",
        size=12_345,
        sha256="ab" * 32,
        index=index,
        seed=987_654_321,
        width=size,
        height=size,
    )


def variations(
    step: int, *scores: float, index: int = 0, attempt: int = 0, selected: int | None = 0
) -> tuple[Artifact, ...]:
    """The variations that one try drew, one for each of its scores; `selected` is the one that went on then."""
    return tuple(
        replace(
            image(step, index),
            key=f"steps/{step:03d}-image.v{number}.png",
            variation=number,
            attempt=attempt,
            score=score,
            selected=number == selected,
        )
        for number, score in enumerate(scores)
    )


def tree(depth: int, across: int) -> tuple[Artifact, ...]:
    """All the images of a tree, in the order in which they are drawn."""
    steps = iter(range(2, 1000))

    def grown(path: tuple[int, ...]) -> Iterator[Artifact]:
        if len(path) == depth:
            return
        step = next(steps)
        for number in range(across):
            branch = (*path, number)
            yield replace(
                image(step, len(path)),
                key=f"steps/{step:03d}-image{''.join(f'.v{part}' for part in branch)}.png",
                path=".".join(map(str, branch)),
                variation=number,
            )
        for number in range(across):
            yield from grown((*path, number))

    return tuple(grown(()))

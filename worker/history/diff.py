"""The difference of two runs: their recipes field by field, then their texts and images place by place."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image, ImageChops, ImageStat

from recipes.canonical import to_document
from storage.errors import CorruptRecordError, ObjectNotFoundError
from worker.history.history import is_on, read_history
from worker.history.lineage import JournalOf, Lineage, LineageItem, Place, read_lineage


@dataclass(frozen=True, kw_only=True)
class Change:
    """A field in which two recipes differ."""

    field: str
    """Its dotted path."""
    one: Any
    other: Any


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The items of two runs at one place of the sequence."""

    place: Place
    one: LineageItem | None
    """None if the run has no item there, or not yet."""
    other: LineageItem | None
    same: bool
    """Whether the texts or pixels are equal, and both or neither of the items are selected."""
    distance: float | None = None
    """The mean absolute difference of two images of equal size, over pixels and channels, 0 to 255."""

    @property
    def is_image(self) -> bool:
        return any(item is not None and item.text is None for item in (self.one, self.other))

    def to_data(self) -> dict[str, Any]:
        """As JSON data."""
        place = self.place
        where = {"path": ".".join(map(str, place.path)), "attempt": place.attempt, "variation": place.variation}
        return {
            "place": str(place),
            "role": place.role,
            **where,
            "same": self.same,
            "mean_absolute_difference": self.distance,
            "runs": [None if one is None else _item_data(one) for one in (self.one, self.other)],
        }


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two runs, side by side."""

    one: Lineage
    other: Lineage
    changes: tuple[Change, ...]
    pairs: tuple[Pair, ...]
    """In the order of the sequence."""

    @cached_property
    def first_divergence(self) -> Pair | None:
        """The first place at which they differ."""
        return next((pair for pair in self.pairs if not pair.same), None)

    @property
    def same(self) -> bool:
        return self.first_divergence is None and not self.changes

    def to_data(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "runs": [self.one.run_id, self.other.run_id],
            "same": self.same,
            "recipe": [{"field": one.field, "values": [one.one, one.other]} for one in self.changes],
            "first_divergence": str(self.first_divergence.place) if self.first_divergence else None,
            "places": [pair.to_data() for pair in self.pairs],
        }


def compare(one: str, other: str, journal_of: JournalOf) -> Difference:
    """The difference of the runs `one` and `other`, as far as they are complete.

    Raises:
        RunNotFoundError: a run is not in the bucket.
        CorruptRecordError, NewerRecordError, StoreUnavailableError, StoreRefusedError: a run can't be read.
    """
    first, second = (read_lineage(read_history(journal_of(run_id)), journal_of) for run_id in (one, other))
    deeper = max(first.path, second.path, key=len)
    if is_on(first.path, deeper) and is_on(second.path, deeper):
        # the other branches of the parent's tree are not a difference
        first, second = first.along(deeper), second.along(deeper)
    return Difference(
        one=first,
        other=second,
        changes=tuple(_changes("", _content(first, second), _content(second, first))),
        pairs=tuple(_pairs(first, second)),
    )


def load_image(item: LineageItem) -> Image.Image:
    """The image of an item, RGB. Raises CorruptRecordError."""
    try:
        with Image.open(io.BytesIO(item.journal.get(item.key))) as image:
            return image.convert("RGB")
    except (ObjectNotFoundError, OSError, SyntaxError, ValueError) as error:
        raise CorruptRecordError(f"{item.journal.address(item.key)}: is not a readable image: {error}") from error


def _item_data(item: LineageItem) -> dict[str, Any]:
    """As JSON data."""
    data: dict[str, Any] = {"run_id": item.run_id, "step": item.step, "selected": item.selected}
    if item.text is not None:
        return {**data, "text": item.text}
    return {**data, "address": item.journal.address(item.key), "sha256": item.sha256}


def _content(lineage: Lineage, other: Lineage) -> dict[str, Any]:
    """The recipe of a run as data, without its parent, its images by their hashes.

    If `other` branched off the run, only the rest of its recipe after the fork point.
    """
    fork = other.fork_point
    is_parent = fork is not None and fork.history.run_id == lineage.run_id
    document = to_document(fork.recipe() if fork and is_parent else lineage.history.recipe)
    del document["parent"]
    document["context"] = [
        {"image": f"sha256 {item['sha256']}"} if "image" in item else item for item in document["context"]
    ]
    return document


def _changes(path: str, one: Any, other: Any) -> Iterator[Change]:  # noqa: ANN401 - any part of a recipe
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in dict.fromkeys((*one, *other)):
            yield from _changes(f"{path}.{name}" if path else name, one.get(name), other.get(name))
    elif isinstance(one, list) and isinstance(other, list) and path in ("context", "refinement_prompts"):
        for index in range(max(len(one), len(other))):
            values = [values[index] if index < len(values) else None for values in (one, other)]
            yield from _changes(f"{path}.{index}", *values)
    elif one != other:
        yield Change(field=path, one=one, other=other)


def _pairs(one: Lineage, other: Lineage) -> Iterator[Pair]:
    first = {item.place: item for item in one.items}
    second = {item.place: item for item in other.items}
    for place in _merged(list(first), list(second)):
        yield _pair(place, first.get(place), second.get(place))


def _merged(one: list[Place], other: list[Place]) -> list[Place]:
    """All places in the order of the sequence; a place that only `other` has follows its predecessor in `other`."""
    merged = list(one)
    known = set(one)
    behind = 0
    for place in other:
        if place in known:
            behind = merged.index(place) + 1
        else:
            merged.insert(behind, place)
            behind += 1
    return merged


def _pair(place: Place, one: LineageItem | None, other: LineageItem | None) -> Pair:
    if one is None or other is None:
        return Pair(place=place, one=one, other=other, same=False)
    alike = one.selected == other.selected
    if one.text is not None or other.text is not None:
        return Pair(place=place, one=one, other=other, same=alike and one.text == other.text)
    if one.sha256 == other.sha256:
        return Pair(place=place, one=one, other=other, same=alike, distance=0.0)
    # The files name their runs in text chunks, so only the pixels can be equal.
    distance = _distance(load_image(one), load_image(other))
    return Pair(place=place, one=one, other=other, same=alike and distance == 0, distance=distance)


def _distance(one: Image.Image, other: Image.Image) -> float | None:
    """The mean absolute difference of two RGB images, 0 to 255; None if their sizes differ."""
    if one.size != other.size:
        return None
    means = ImageStat.Stat(ImageChops.difference(one, other)).mean
    return sum(means) / len(means)

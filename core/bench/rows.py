"""The measurements: sequences by length, variations in one batch, trees, and one long sequence."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

from core.bench.usage import Meter, Usage, total
from core.events import ImageReady
from core.protocol import Context
from core.sequence import run_sequence
from recipes.recipe import ImageSettings, Recipe

STRETCH_IMAGES = 5


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured quantity, a sample for each round."""

    name: str
    samples: tuple[Usage, ...]
    baseline: tuple[Usage, ...]
    """What the ratios compare with."""

    def values(self, field: str) -> list[float]:
        """The samples of a field of Usage."""
        return [getattr(sample, field) for sample in self.samples]

    def median(self, field: str) -> float:
        return median(self.values(field))

    def ratio(self, field: str) -> float:
        """Median by median of the baseline; 1 when both are 0."""
        base = median(getattr(sample, field) for sample in self.baseline)
        return self.median(field) / base if base else 1.0


def readings(meter: Meter, recipe: Recipe) -> Iterator[tuple[int, Usage]]:
    """Run `recipe` from an empty cache: (images so far, reading) at the start and after each image step."""
    meter.model.forget()
    images = 0
    yield images, meter.read()
    for event in run_sequence(recipe, meter.model):
        if isinstance(event, ImageReady):
            images += len(event.variations)
            yield images, meter.read()


def whole(meter: Meter, recipe: Recipe) -> Usage:
    """The usage of a run of `recipe`."""
    (_, start), *_, (_, end) = readings(meter, recipe)
    return end.since(start)


def sequence_rows(
    meter: Meter, recipe: Recipe, lengths: Sequence[int], rounds: int
) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """A row for each whole sequence and a row for its last image; the baseline is the first length.

    The last image starts when the previous image is final, so its texts and all tokens read for them are included.
    """
    runs: list[list[list[Usage]]] = [[] for _ in lengths]
    for _ in range(rounds):  # all lengths in each round, so that a busy minute does not distort one length alone
        for images, found in zip(lengths, runs, strict=True):
            found.append([usage for _, usage in readings(meter, replace(recipe, num_images=images))])
    wholes = [(f"{n}", [run[-1].since(run[0]) for run in found]) for n, found in zip(lengths, runs, strict=True)]
    lasts = [(f"{n} of {n}", [run[-1].since(run[-2]) for run in found]) for n, found in zip(lengths, runs, strict=True)]
    return _rows(wholes, baseline=0), _rows(lasts, baseline=0)


def _rows(named: Iterable[tuple[str, Sequence[Usage]]], *, baseline: int) -> tuple[Row, ...]:
    """A row for each name and its samples; the one at `baseline` is what all are compared with."""
    found = [(name, tuple(samples)) for name, samples in named]
    return tuple(Row(name=name, samples=samples, baseline=found[baseline][1]) for name, samples in found)


def variation_rows(
    meter: Meter, context: Context, settings: ImageSettings, variations: int, rounds: int
) -> tuple[Row, ...]:
    """Images from one context, as one batch and, the baseline, as separate runs; each starts from an empty cache."""
    batches, runs = [], []
    for _ in range(rounds):
        batches.append(_drawn(meter, context, settings, range(variations)))
        runs.append(total([_drawn(meter, context, settings, (seed,)) for seed in range(variations)]))
    return _rows([(f"{variations}, one batch", batches), (f"{variations}, separate runs", runs)], baseline=1)


def _drawn(meter: Meter, context: Context, settings: ImageSettings, seeds: Sequence[int]) -> Usage:
    meter.model.forget()
    start = meter.read()
    for _ in meter.model.draw(context, settings, seeds=seeds):
        pass
    return meter.read().since(start)


def tree_rows(meter: Meter, recipe: Recipe, width: int, depth: int, rounds: int) -> tuple[Row, ...]:
    """A tree of `width` variations and `depth` images per path and, the baseline, a separate run for each path.

    The baseline is one measured path, its time and counts multiplied by the number of paths; its memory is not.
    """
    path = replace(recipe, num_images=depth)
    tree = replace(path, variations_per_image=width, select="tree")
    trees, runs = [], []
    for _ in range(rounds):
        trees.append(whole(meter, tree))
        runs.append(whole(meter, path).scaled(width**depth))
    return _rows([(f"{width}x{depth}, tree", trees), (f"{width}x{depth}, {width**depth} runs", runs)], baseline=1)


def stretch_rows(meter: Meter, recipe: Recipe, images: int = STRETCH_IMAGES) -> Iterator[Row]:
    """One run of `recipe`: means per image over each `images` images, as they are final; the baseline is the first."""
    ahead = readings(meter, recipe)
    first, start = next(ahead)
    baseline: tuple[Usage, ...] = ()
    for last, end in ahead:
        if last - first >= images or last == recipe.num_images:
            samples = (end.since(start).scaled(1 / (last - first)),)
            baseline = baseline or samples
            yield Row(name=f"{first + 1} to {last}", samples=samples, baseline=baseline)
            first, start = last, end

"""The measurements: sequences by length, variations in one batch, trees, and one long sequence."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TypeAlias

from core.bench.usage import Meter, Usage, total
from core.events import ImageReady
from core.protocol import Context, ModelWrapper, UnifiedModel
from core.sequence import run_sequence
from recipes.recipe import ImageSettings, Recipe, TextSettings

SEGMENT_IMAGES = 5
Samples: TypeAlias = Sequence[Usage]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured quantity, a sample for each round."""

    name: str
    samples: Samples
    baseline: Samples
    """What the ratios compare with."""
    limit_s: float | None = None
    """The least seconds that the machine needs for the counted work (see core.bench.machine)."""

    def values(self, field: str) -> list[float]:
        """The samples of a field of Usage."""
        return [getattr(sample, field) for sample in self.samples]

    def median(self, field: str) -> float:
        return median(self.values(field))

    def ratio(self, field: str) -> float:
        """Median by median of the baseline; 1 when the latter is 0."""
        base = median(getattr(sample, field) for sample in self.baseline)
        return self.median(field) / base if base else 1.0


def readings(meter: Meter, recipe: Recipe, model: UnifiedModel | None = None) -> Iterator[tuple[int, Usage]]:
    """Run `recipe` from an empty cache: (images so far, reading) at the start and after each image step."""
    meter.model.forget()
    images = 0
    yield images, meter.read()
    for event in run_sequence(recipe, model or meter.model):
        if isinstance(event, ImageReady):
            images += len(event.variations)
            yield images, meter.read()


def run_usage(meter: Meter, recipe: Recipe, model: UnifiedModel | None = None) -> Usage:
    """The usage of a run of `recipe`, on `model` if it wraps the meter's."""
    (_, start), *_, (_, end) = readings(meter, recipe, model)
    return end.since(start)


def sequence_rows(
    meter: Meter, recipe: Recipe, lengths: Sequence[int], rounds: int
) -> tuple[Sequence[Row], Sequence[Row]]:
    """A row for each whole sequence and a row for its last image; the baseline is the first length.

    The last image starts when the previous image is complete, so its texts and all tokens read for them are included.
    """
    recipes = [replace(recipe, num_images=images) for images in lengths]
    # All lengths in each round, so that a short load on the machine does not distort one length alone.
    runs = [[[usage for _, usage in readings(meter, one)] for one in recipes] for _ in range(rounds)]
    by_length = list(zip(lengths, zip(*runs, strict=True), strict=True))
    sequences = [(f"{n}", [run[-1].since(run[0]) for run in found]) for n, found in by_length]
    last_images = [(f"{n} of {n}", [run[-1].since(run[-2]) for run in found]) for n, found in by_length]
    return list(_rows(sequences)), list(_rows(last_images))


class Rereading(ModelWrapper):
    """Reads the whole context again for each output, as a script does that keeps no cache."""

    def prefill(self, context: Context, settings: TextSettings | ImageSettings) -> Iterator[None]:
        self.forget()
        return super().prefill(context, settings)


def reread_rows(meter: Meter, recipe: Recipe, lengths: Sequence[int], rounds: int) -> Iterator[Row]:
    """Sequences that read everything again for each output (the baseline), and with a context that is kept."""
    ways: Mapping[str, UnifiedModel] = {"read again": Rereading(meter.model), "kept": meter.model}
    samples: dict[tuple[int, str], list[Usage]] = {(images, way): [] for images in lengths for way in ways}
    for _ in range(rounds):
        for (images, way), found in samples.items():
            found.append(run_usage(meter, replace(recipe, num_images=images), ways[way]))
    for images in lengths:
        yield from _rows([(f"{images}, {way}", samples[images, way]) for way in ways])


def variation_rows(
    meter: Meter, context: Context, settings: ImageSettings, sizes: Sequence[int], rounds: int
) -> Iterator[Row]:
    """Images from one context, as separate runs (the baseline) and as one batch; each starts from an empty cache."""
    for size in sizes:
        runs, batches = [], []
        for _ in range(rounds):
            runs.append(total([_draw_usage(meter, context, settings, (seed,)) for seed in range(size)]))
            batches.append(_draw_usage(meter, context, settings, range(size)))
        yield from _rows([(f"{size}, separate runs", runs), (f"{size}, one batch", batches)])


def _draw_usage(meter: Meter, context: Context, settings: ImageSettings, seeds: Sequence[int]) -> Usage:
    meter.model.forget()
    start = meter.read()
    for _ in meter.model.draw(context, settings, seeds=seeds):
        pass
    return meter.read().since(start)


def tree_rows(meter: Meter, recipe: Recipe, trees: Sequence[tuple[int, int]], rounds: int) -> Iterator[Row]:
    """Trees of (variations, images per path), each after a separate run for each of its paths, the baseline.

    The baseline is one measured path, its time and counts multiplied by the number of paths; its memory is not.
    """
    for width, depth in trees:
        path = replace(recipe, num_images=depth)
        tree = replace(path, variations_per_image=width, select="tree")
        runs, whole_trees = [], []
        for _ in range(rounds):
            runs.append(run_usage(meter, path).scaled(width**depth))
            whole_trees.append(run_usage(meter, tree))
        yield from _rows([(f"{width}x{depth}, {width**depth} runs", runs), (f"{width}x{depth}, tree", whole_trees)])


def segment_rows(meter: Meter, recipe: Recipe, rounds: int, images: int = SEGMENT_IMAGES) -> Iterator[Row]:
    """Runs of `recipe`: means per image over each `images` images; the baseline is the first segment.

    The rows of the last round's run are yielded as soon as they are measured.
    """
    earlier = [[usage for _, usage in _segments(meter, recipe, images)] for _ in range(rounds - 1)]
    segments = enumerate(_segments(meter, recipe, images))
    return _rows((name, [*(run[place] for run in earlier), usage]) for place, (name, usage) in segments)


def _segments(meter: Meter, recipe: Recipe, images: int) -> Iterator[tuple[str, Usage]]:
    ahead = readings(meter, recipe)
    first, start = next(ahead)
    for last, end in ahead:
        if last - first >= images or last == recipe.num_images:
            yield f"{first + 1} to {last}", end.since(start).scaled(1 / (last - first))
            first, start = last, end


def _rows(named: Iterable[tuple[str, Samples]]) -> Iterator[Row]:
    """A row for each name and its samples; the baseline is the first."""
    baseline: Samples = ()
    for name, samples in named:
        baseline = baseline or samples
        yield Row(name=name, samples=samples, baseline=baseline)

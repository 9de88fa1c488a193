"""How a run grows: what a tree takes beside one path of it, and a long sequence from its first images to its last."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from core.events import ImageReady
from core.plan import plan
from core.protocol import UnifiedModel
from core.sequence import run_sequence
from recipes.recipe import Recipe

STRETCH_IMAGES = 5
MIB = 2**20


class Measurable(UnifiedModel, Protocol):
    """A model that says how much memory its cache takes."""

    @property
    def kv_bytes(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Some images of a run in a row, with all that was read, written and judged for them."""

    upto: int
    """How many images there were at its end."""
    images: int
    seconds: float
    cpu_s: float
    """What the processor spent on it: unlike `seconds`, the same on a machine that has more to do."""
    tokens_read: int
    kv_bytes: int
    """The memory of keys and values at its end: it grows when it must, so it is the most there was."""
    resident_bytes: int
    """The memory of this process at its end."""


def stretches(model: Measurable, recipe: Recipe, images: int = STRETCH_IMAGES) -> Iterator[Stretch]:
    """Run `recipe` on `model`, from an empty cache, and measure each `images` of its images, and those left over."""
    model.forget()
    count = last = 0
    start, cpu_start, before = time.perf_counter(), time.process_time(), model.tokens_read
    end = plan(recipe)[-1].number
    for event in run_sequence(recipe, model):
        if not isinstance(event, ImageReady):
            continue
        count += len(event.variations)
        if count - last >= images or event.step.number == end:
            yield Stretch(
                upto=count,
                images=count - last,
                seconds=time.perf_counter() - start,
                cpu_s=time.process_time() - cpu_start,
                tokens_read=model.tokens_read - before,
                kv_bytes=model.kv_bytes,
                resident_bytes=_resident_bytes(),
            )
            last, before = count, model.tokens_read
            start, cpu_start = time.perf_counter(), time.process_time()


def whole(model: Measurable, recipe: Recipe) -> Stretch:
    """A run of `recipe` from its start to its end."""
    (found,) = stretches(model, recipe, images=2**31)
    return found


def tree_table(model: Measurable, recipe: Recipe, trees: Sequence[tuple[int, int]]) -> str:
    """Trees of so many variations and images a path, and what their paths would take as runs of their own."""
    rows = [
        "   tree  images  seconds    runs   share     CPU s   share   tokens read    runs   share    KV MiB   a run"
    ]
    for width, depth in trees:
        path = whole(model, replace(recipe, num_images=depth))
        tree = whole(model, replace(recipe, num_images=depth, variations_per_image=width, select="tree"))
        paths = width**depth
        seconds, tokens = path.seconds * paths, path.tokens_read * paths
        rows.append(
            f"{f'{width}x{depth}':>7}{tree.images:>8}{tree.seconds:>9.2f}{seconds:>8.2f}{tree.seconds / seconds:>8.2f}"
            f"{tree.cpu_s:>10.2f}{tree.cpu_s / (path.cpu_s * paths):>8.2f}"
            f"{tree.tokens_read:>14,}{tokens:>8,}{tree.tokens_read / tokens:>8.2f}"
            f"{tree.kv_bytes / MIB:>10.2f}{path.kv_bytes / MIB:>8.2f}"
        )
    return "\n".join(rows)


def long_table(model: Measurable, recipe: Recipe) -> Iterator[str]:
    """The lines of a table of the images of `recipe`, as they come."""
    limit = "no limit" if recipe.max_context_items is None else f"at most {recipe.max_context_items} items"
    yield f"{recipe.num_images} images, {limit} in the context"
    yield " image   tokens an image   seconds an image   CPU s an image   KV MiB   process MiB"
    for found in stretches(model, recipe):
        yield (
            f"{found.upto:>6}{found.tokens_read / found.images:>18.1f}{found.seconds / found.images:>19.2f}"
            f"{found.cpu_s / found.images:>17.2f}"
            f"{found.kv_bytes / MIB:>9.2f}{found.resident_bytes / MIB:>14.0f}"
        )


def _resident_bytes() -> int:
    """What Linux holds of this process in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

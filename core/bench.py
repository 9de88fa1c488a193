"""How time, tokens and memory grow with the length of a sequence, and what variations and trees save.

python -m core.bench --model_path models/tiny-bagel
"""

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.bagel import Bagel
from core.events import ImageReady, StepStarted
from core.growth import long_table, tree_table
from core.model_folder import ModelFolderError
from core.protocol import Context, Drawn, Picture, Text
from core.sequence import run_sequence
from recipes.defaults import image_defaults, text_defaults
from recipes.recipe import ImageSettings, Recipe, TextItem, TextSettings

PROMPT = "A magical forest"
REFINEMENT = "Make it warmer"
LENGTHS = (1, 2, 4, 8)
VARIATIONS = (1, 2, 4, 8)
ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One thinking sequence of `images` images, from an empty context."""

    images: int
    total_s: float
    last_image_s: float
    tokens_read: int


def measure(model: Bagel, recipe: Recipe) -> Measurement:
    """Run `recipe` on `model`, from an empty context."""
    list(model.write(Context(), TextSettings(max_new_tokens=1), seed=0))  # empties the cache
    before = model.tokens_read
    start = step_start = time.perf_counter()
    last_image_s = 0.0
    for event in run_sequence(recipe, model):
        if isinstance(event, StepStarted):
            step_start = time.perf_counter()
        elif isinstance(event, ImageReady):
            last_image_s = time.perf_counter() - step_start
    return Measurement(
        images=recipe.num_images,
        total_s=time.perf_counter() - start,
        last_image_s=last_image_s,
        tokens_read=model.tokens_read - before,
    )


def table(measured: Sequence[Measurement]) -> str:
    """The measurements as text, each beside its ratio to the first."""
    first = measured[0]
    rows = [" images   seconds   ratio   tokens read   ratio   last image (s)"]
    rows += [
        f"{found.images:>7}{found.total_s:>10.2f}{found.total_s / first.total_s:>8.1f}"
        f"{found.tokens_read:>14,}{found.tokens_read / first.tokens_read:>8.1f}{found.last_image_s:>17.2f}"
        for found in measured
    ]
    return "\n".join(rows)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What drawing takes, from an empty cache."""

    seconds: float
    tokens_read: int
    kv_bytes: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Images that follow one context: drawn as one batch, and by runs of their own, which read it each for itself."""

    variations: int
    batch: Cost
    runs: Cost


def compare(model: Bagel, context: Context, settings: ImageSettings, *, variations: int, rounds: int) -> Comparison:
    """Draw so many images both ways, in turns; of the times the shortest counts."""
    batches, runs = [], []
    for _ in range(rounds):
        batches.append(_cost(model, context, settings, range(variations)))
        apart = [_cost(model, context, settings, (seed,)) for seed in range(variations)]
        runs.append(
            Cost(
                seconds=sum(run.seconds for run in apart),
                tokens_read=sum(run.tokens_read for run in apart),
                kv_bytes=sum(run.kv_bytes for run in apart),
            )
        )
    return Comparison(variations=variations, batch=_fastest(batches), runs=_fastest(runs))


def _cost(model: Bagel, context: Context, settings: ImageSettings, seeds: Sequence[int]) -> Cost:
    model.forget()
    before, start = model.tokens_read, time.perf_counter()
    _draw(model, context, settings, seeds)
    return Cost(seconds=time.perf_counter() - start, tokens_read=model.tokens_read - before, kv_bytes=model.kv_bytes)


def _fastest(costs: Iterable[Cost]) -> Cost:
    return min(costs, key=lambda cost: cost.seconds)


def _draw(model: Bagel, context: Context, settings: ImageSettings, seeds: Sequence[int]) -> Drawn:
    *_, last = model.draw(context, settings, seeds=seeds)
    if not isinstance(last, Drawn):
        raise TypeError(f"drawing ended with {last}")
    return last


def comparison_table(compared: Sequence[Comparison]) -> str:
    """The comparisons as text: each number of the batch, and its share of what the runs take together."""
    rows = [" variations   seconds    runs   share   tokens read    runs   share    KV MiB    runs   share"]
    for found in compared:
        batch, runs = found.batch, found.runs
        rows.append(
            f"{found.variations:>11}{batch.seconds:>10.2f}{runs.seconds:>8.2f}{batch.seconds / runs.seconds:>8.2f}"
            f"{batch.tokens_read:>14,}{runs.tokens_read:>8,}{batch.tokens_read / runs.tokens_read:>8.2f}"
            f"{batch.kv_bytes / 2**20:>10.2f}{runs.kv_bytes / 2**20:>8.2f}{batch.kv_bytes / runs.kv_bytes:>8.2f}"
        )
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 when all is well, 2 when the model can't be used."""
    options = _parser().parse_args(arguments)
    try:
        model = Bagel.load(options.model_path, device=options.device, dtype=options.dtype, max_batch=options.max_batch)
    except (ModelFolderError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    image = {"cfg_interval": ImageSettings().cfg_interval, **image_defaults(model.spec, "generation")}
    if options.num_timesteps:
        image["num_timesteps"] = options.num_timesteps
    recipe = Recipe(
        name="bench",
        seed=options.seed,
        context=(TextItem(text=PROMPT),),
        think=True,
        text=TextSettings(**text_defaults(model.spec)),
        image=ImageSettings(**{**image, "cfg_interval": tuple(image["cfg_interval"])}),
    )
    measure(model, recipe)  # the first run of all also pays for loading code and for filling caches
    sys.stdout.write(table([measure(model, replace(recipe, num_images=images)) for images in options.images]) + "\n")
    context = Context(items=(Text(PROMPT),))
    first = _draw(model, context, recipe.image, (options.seed,))
    context = context.plus(Picture(first.images[0]), Text(REFINEMENT))
    compared = [
        compare(model, context, recipe.image, variations=variations, rounds=options.rounds)
        for variations in options.variations
    ]
    sys.stdout.write("\n" + comparison_table(compared) + "\n")
    if options.trees:
        sys.stdout.write("\n" + tree_table(model, recipe, options.trees) + "\n")
    if options.long:
        long = replace(recipe, num_images=options.long, max_context_items=options.max_context_items)
        sys.stdout.writelines(f"\n{line}" for line in long_table(model, long))
        sys.stdout.write("\n")
    return 0


def _width_by_depth(said: str) -> tuple[int, int]:
    width, _, depth = said.partition("x")
    return int(width), int(depth)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m core.bench",
        description="Thinking sequences of growing length; variations drawn as one batch against runs of their own.",
    )
    parser.add_argument("--model_path", type=Path, required=True, help="a model folder in the official BAGEL layout")
    parser.add_argument("--images", type=int, nargs="+", default=LENGTHS, help="how many images, one run for each")
    parser.add_argument("--variations", type=int, nargs="+", default=VARIATIONS, help="how many images in a batch")
    parser.add_argument("--trees", type=_width_by_depth, nargs="*", help="variations x images a path, as 2x3")
    parser.add_argument("--long", type=int, help="one sequence of so many images, measured five by five")
    parser.add_argument("--max_context_items", type=int, help="of the long sequence; keeps all when left out")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each is drawn; the fastest counts")
    parser.add_argument("--num_timesteps", type=int, help="of each image; the model's default")
    parser.add_argument("--max_batch", type=int, default=max(VARIATIONS), help="how many are computed at once, at most")
    parser.add_argument("--device", help="cpu, cuda, cuda:1; CUDA when there is one")
    parser.add_argument("--dtype", help="float32 or bfloat16")
    parser.add_argument("--seed", type=int, default=3)
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""The command line of the benchmark: python -m core.bench --model_path models/tiny-bagel."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from core.bagel import Bagel
from core.bench.rows import run_usage, segment_rows, sequence_rows, tree_rows, variation_rows
from core.bench.table import LEGEND, print_table
from core.bench.usage import Meter
from core.protocol import Context, Picture, Text
from recipes.defaults import image_defaults, image_settings, text_defaults
from recipes.model_spec import ModelSpec
from recipes.recipe import ImageSettings, Recipe, TextItem, TextSettings
from recipes.rules import check

PROMPT = "A magical forest"
REFINEMENT = "Make it warmer"
LENGTHS = (1, 2, 4, 8)
VARIATIONS = (1, 2, 4, 8)
ROUNDS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print. Exit 2 when an argument is invalid or the model can't be used."""
    options = _parser().parse_args(arguments)
    try:
        model = Bagel.load(options.model_path, device=options.device, dtype=options.dtype, max_batch=options.max_batch)
        recipe = _recipe(options, model.spec)
        long = replace(recipe, num_images=options.long or 1, max_context_items=options.max_context_items)
        check(long, model.spec)
    except ValueError as error:
        sys.stderr.write(f"error: {error}".replace("\n", "; ") + "\n")
        return 2
    meter, rounds = Meter(model), options.rounds
    _print_setup(model, recipe, rounds)
    run_usage(meter, recipe)  # warm-up: the first run also pays for lazy loading
    sequences, last_images = sequence_rows(meter, recipe, options.images, rounds)
    print_table("Sequences, by number of images; ratio to the first row", sequences)
    title = "Last image of each, since the previous image or the start; includes its texts and all tokens read"
    print_table(title, last_images)
    picture = Picture(Image.new("RGB", model.size(Context(), recipe.image)))
    context = Context(items=(Text(PROMPT), picture, Text(REFINEMENT)))
    variations = variation_rows(meter, context, recipe.image, options.variations, rounds)
    print_table("Variations of one image; ratio to separate runs", variations)
    if options.trees:
        title = "Trees, variations x images per path; ratio to a separate run for each path (one is measured)"
        print_table(title, tree_rows(meter, recipe, options.trees, rounds))
    if options.long:
        limit = "no limit" if long.max_context_items is None else f"at most {long.max_context_items} items"
        title = f"One sequence of {options.long} images, means per image; {limit} in the context"
        print_table(title, segment_rows(meter, long, rounds))
    return 0


def _recipe(options: argparse.Namespace, spec: ModelSpec) -> Recipe:
    """A thinking sequence with the model's defaults; without a default size, the largest up to the official one."""
    side = min(ImageSettings().width or 0, spec.max_side_px) // spec.stride_px * spec.stride_px
    image = {"width": side, "height": side, **image_defaults(spec, "generation")}
    text = text_defaults(spec)
    if options.greedy:
        text["temperature"] = 0.0
    if options.num_timesteps:
        image["num_timesteps"] = options.num_timesteps
    return Recipe(
        name="bench",
        seed=options.seed,
        context=(TextItem(text=PROMPT),),
        think=True,
        text=TextSettings(**text),
        image=image_settings(image),
    )


def _print_setup(model: Bagel, recipe: Recipe, rounds: int) -> None:
    network, image = model.network, recipe.image
    sys.stdout.write(
        f"{model.spec.name} on {network.device}, {str(network.dtype).removeprefix('torch.')}; "
        f"{image.width}x{image.height}, {image.num_timesteps - 1} denoising steps; "
        f"temperature {recipe.text.temperature:g}, seed {recipe.seed}; rounds: {rounds}\n\n{LEGEND}"
    )


def _at_least(least: int) -> Callable[[str], int]:
    def parse(given: str) -> int:
        if not given.isdecimal() or int(given) < least:
            raise argparse.ArgumentTypeError(f"{given!r} is not allowed; allowed: a whole number, {least} or more")
        return int(given)

    return parse


def _width_by_depth(given: str) -> tuple[int, int]:
    if not re.fullmatch("[1-9][0-9]*x[1-9][0-9]*", given):
        raise argparse.ArgumentTypeError(f"{given!r} is not allowed; allowed: VARIATIONSxIMAGES, such as 2x3")
    width, _, depth = given.partition("x")
    return int(width), int(depth)


def _parser() -> argparse.ArgumentParser:
    count = _at_least(1)
    prog = "python -m core.bench"
    usage = f"{prog} --model_path MODEL_PATH [options]"
    parser = argparse.ArgumentParser(prog=prog, usage=usage, description="Benchmark the engine on one model.")
    parser.add_argument("--model_path", type=Path, required=True, help="model folder in the official BAGEL layout")
    parser.add_argument("--images", type=count, nargs="+", default=LENGTHS, help="sequence lengths")
    parser.add_argument("--variations", type=count, nargs="+", default=VARIATIONS, help="batch sizes")
    parser.add_argument("--trees", type=_width_by_depth, nargs="+", help="variations x images per path, such as 2x3")
    parser.add_argument("--long", type=count, help="length of one long sequence, reported every five images")
    parser.add_argument("--max_context_items", type=count, help="limit for the long sequence (default: none)")
    parser.add_argument("--rounds", type=count, default=ROUNDS, help="samples for each row (default: %(default)s)")
    parser.add_argument("--greedy", action="store_true", help="decode at temperature 0")
    parser.add_argument("--num_timesteps", type=_at_least(2), help="for each image (default: the model's)")
    parser.add_argument("--max_batch", type=count, default=max(VARIATIONS), help="most images computed at once")
    parser.add_argument("--device", help="cpu, cuda or cuda:1 (default: CUDA if available)")
    parser.add_argument("--dtype", help="float32 or bfloat16 (default: bfloat16 on CUDA, else float32)")
    parser.add_argument("--seed", type=_at_least(0), default=3, help="default: %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())

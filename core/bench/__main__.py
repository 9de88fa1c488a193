"""The command line of the benchmark: python -m core.bench --model_path models/tiny-bagel."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from core.bagel import Bagel
from core.bagel.model import default_dtype, torch_dtype
from core.bagel.placement import choose_device
from core.bagel.quantize import METHODS
from core.bench.machine import measure_machine
from core.bench.phases import phase_rows, phases_of
from core.bench.plot import write_plot
from core.bench.random_weights import SIZES, random_model
from core.bench.report import Report, Setup
from core.bench.rows import reread_rows, run_usage, segment_rows, sequence_rows, tree_rows, variation_rows
from core.bench.table import LEGEND
from core.bench.usage import Meter
from core.protocol import Context, Picture, Text
from recipes.defaults import image_defaults, image_settings, text_defaults
from recipes.model_spec import ModelSpec
from recipes.recipe import ImageSettings, Recipe, TextItem, TextSettings
from recipes.rules import check

PROMPT = "A magical forest"
REFINEMENT = "Make it warmer"
TABLES = ("phases", "reading", "sequences", "variations", "trees", "long")
CONTEXTS = (100, 1000)
LENGTHS = (1, 2, 4, 8)
VARIATIONS = (1, 2, 4, 8)
ROUNDS = 3


def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m core.bench") -> int:
    """Measure and print. Exit 2 when an argument is invalid or the model can't be used."""
    options = _parser(prog).parse_args(arguments)
    try:
        model = _load(options)
        recipe = _recipe(options, model.spec)
        long = replace(recipe, num_images=options.long or 1, max_context_items=options.max_context_items)
        check(long, model.spec)
    except ValueError as error:
        sys.stderr.write(f"error: {error}".replace("\n", "; ") + "\n")
        return 2
    report = Report(machine=measure_machine(model.network.device, model.network.dtype), setup=_setup(options, recipe))
    _print_setup(report)
    _measure(report, Meter(model), recipe, options)
    if options.long and "long" in options.only:
        limit = "no limit" if long.max_context_items is None else f"at most {long.max_context_items} items"
        title = f"One sequence of {options.long} images, means per image; {limit} in the context"
        report.add("long", title, segment_rows(Meter(model), long, options.rounds))
    if options.json:
        report.write(options.json)
    if options.plot:
        write_plot(report, options.plot)
    return 0


def _load(options: argparse.Namespace) -> Bagel:
    """Raises ValueError."""
    device, dtype, quantize = choose_device(options.device, ()), options.dtype, options.quantize
    if options.random_weights is None:
        if options.model_path is None:
            raise ValueError("no model: give --model_path or --random-weights")
        folder, batch = options.model_path, options.max_batch
        return Bagel.load(folder, device=device, dtype=dtype, quantize=quantize, max_batch=batch)
    random_dtype = torch_dtype(dtype or default_dtype(device))
    return random_model(options.random_weights, torch.device(device), random_dtype, quantize=quantize)


def _measure(report: Report, meter: Meter, recipe: Recipe, options: argparse.Namespace) -> None:
    """Add the tables of `options.only` to `report`, except for the long sequence."""
    model, rounds, only = meter.model, options.rounds, options.only
    run_usage(meter, recipe)  # warm-up: the first run also pays for lazy loading
    if "phases" in only:
        phases = list(phases_of(model, recipe.image, options.contexts))
        report.add("phases", "Phases; one unit of each", phase_rows(meter, phases, report.machine, rounds))
    if "reading" in only:
        title = "Sequences, by number of images; ratio to reading everything again for each output"
        report.add("reading", title, reread_rows(meter, recipe, options.images, rounds))
    if "sequences" in only:
        sequences, last_images = sequence_rows(meter, recipe, options.images, rounds)
        report.add("sequences", "Sequences, by number of images; ratio to the first row", sequences)
        title = "Last image of each, since the previous image or the start; includes its texts and all tokens read"
        report.add("last images", title, last_images)
    if "variations" in only:
        picture = Picture(Image.new("RGB", model.size(Context(), recipe.image)))
        context = Context(items=(Text(PROMPT), picture, Text(REFINEMENT)))
        rows = variation_rows(meter, context, recipe.image, options.variations, rounds)
        report.add("variations", "Variations of one image; ratio to separate runs", rows)
    if options.trees and "trees" in only:
        title = "Trees, variations x images per path; ratio to a separate run for each path (one is measured)"
        report.add("trees", title, tree_rows(meter, recipe, options.trees, rounds))


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


def _setup(options: argparse.Namespace, recipe: Recipe) -> Setup:
    image = recipe.image
    return {
        "model": f"{options.random_weights}, random weights" if options.random_weights else options.model_path.name,
        "quantization": options.quantize or "none",
        "width": image.width or 0,
        "height": image.height or 0,
        "denoising steps": image.num_timesteps - 1,
        "temperature": recipe.text.temperature,
        "seed": recipe.seed,
        "rounds": options.rounds,
    }


def _print_setup(report: Report) -> None:
    machine = report.machine
    rates = f"products {machine.flop_per_s / 1e12:.3g} TFLOP/s, copies {machine.bytes_per_s / 1e9:.3g} GB/s"
    setup = ", ".join(f"{name} {value}" for name, value in report.setup.items())
    sys.stdout.write(
        f"{machine.device}, {machine.dtype}, {machine.threads} threads, torch {machine.torch}, "
        f"commit {machine.commit}\nmeasured rates: {rates}\n{setup}\n\n{LEGEND}"
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


def _parser(prog: str) -> argparse.ArgumentParser:
    count = _at_least(1)
    usage = f"{prog} (--model_path MODEL_PATH | --random-weights SIZE) [options]"
    parser = argparse.ArgumentParser(prog=prog, usage=usage, description="Benchmark the engine on one model.")
    parser.add_argument("--model_path", type=Path, help="model folder in the official BAGEL layout")
    help_ = "a model of this size with random weights, made on the device, instead of a folder"
    parser.add_argument("--random-weights", "--random_weights", choices=SIZES, help=help_)
    parser.add_argument("--quantize", choices=METHODS, help="quantize the experts' weights")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, help="measure only these tables")
    parser.add_argument("--contexts", type=count, nargs="+", default=CONTEXTS, help="tokens before a text token")
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
    parser.add_argument("--json", type=Path, help="write all samples to this file")
    parser.add_argument("--plot", type=Path, help="write a plot of phases and sequences to this file (SVG)")
    parser.add_argument("--seed", type=_at_least(0), default=3, help="default: %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())

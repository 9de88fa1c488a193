"""How time and tokens grow with the length of a sequence: python -m core.bench --model_path models/tiny-bagel."""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.bagel import Bagel
from core.events import ImageReady, StepStarted
from core.protocol import Context
from core.sequence import run_sequence
from recipes.card import ModelFolderError
from recipes.defaults import image_defaults, text_defaults
from recipes.recipe import ImageSettings, Recipe, TextItem, TextSettings

PROMPT = "A magical forest"
LENGTHS = (1, 2, 4, 8)


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 when all is well, 2 when the model can't be used."""
    options = _parser().parse_args(arguments)
    try:
        model = Bagel.load(options.model_path, device=options.device, dtype=options.dtype)
    except (ModelFolderError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    image = {"cfg_interval": ImageSettings().cfg_interval, **image_defaults(model.card, "generation")}
    recipe = Recipe(
        name="bench",
        seed=options.seed,
        context=(TextItem(text=PROMPT),),
        think=True,
        text=TextSettings(**text_defaults(model.card)),
        image=ImageSettings(**{**image, "cfg_interval": tuple(image["cfg_interval"])}),
    )
    measure(model, recipe)  # the first run of all also pays for loading code and for filling caches
    sys.stdout.write(table([measure(model, replace(recipe, num_images=images)) for images in options.images]) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m core.bench", description="Thinking sequences of growing length.")
    parser.add_argument("--model_path", type=Path, required=True, help="a model folder in the official BAGEL layout")
    parser.add_argument("--images", type=int, nargs="+", default=LENGTHS, help="how many images, one run for each")
    parser.add_argument("--device", help="cpu, cuda, cuda:1; CUDA when there is one")
    parser.add_argument("--dtype", help="float32 or bfloat16")
    parser.add_argument("--seed", type=int, default=3)
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""Run the engine without services: python -m core.demo --model_path models/tiny-bagel --demo all."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from core.bagel import Bagel
from core.events import Denoised, Event, ImageReady, StepStarted, TextDelta, TextReady
from core.inferencer import AutoInterleavedInferencer
from core.model_folder import ModelFolderError
from core.plan import Draw, Write

GENERATION_PROMPT = "A magical forest"
EDITING_PROMPT = "Make the circle blue"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the selected demos. Returns 0 on success, 2 if the model or the image can't be used."""
    options = _parser().parse_args(arguments)
    gpus = [int(number) for number in options.gpu_ids.split(",")] if options.gpu_ids else None
    try:
        image = _example_photo() if options.image is None else Image.open(options.image)
        model = Bagel.load(options.model_path, gpus=gpus)
    except (ModelFolderError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    demos: dict[str, list[str | Image.Image]] = {
        "auto_generation": [options.prompt or GENERATION_PROMPT],
        "auto_editing": [image, options.prompt or EDITING_PROMPT],
    }
    for name in demos if options.demo == "all" else [options.demo]:
        folder = options.output_dir / name
        folder.mkdir(parents=True, exist_ok=True)
        print(f"\n== {name}: {options.num_images} images ==")
        _run(AutoInterleavedInferencer(model, seed=options.seed), demos[name], options, folder)
    return 0


def _run(
    inferencer: AutoInterleavedInferencer,
    context: Sequence[str | Image.Image],
    options: argparse.Namespace,
    folder: Path,
) -> None:
    for item in context:
        print(f"given: {item if isinstance(item, str) else f'an image of {item.width} x {item.height}'}")
    inferencer.generate_auto_sequence(
        context,
        num_images=options.num_images,
        think=options.think,
        max_context_items=options.max_context_items,
        cfg_img_scale=options.cfg_img_scale,
        on_event=lambda event: _print_event(event, folder),
    )
    print(f"tokens read into the context so far: {inferencer.model.tokens_read}")


def _print_event(event: Event, folder: Path) -> None:
    """Print an event, and save each image."""
    match event:
        case StepStarted(step=Write(role=role, number=number)):
            print(f"[{number}] {role}: ", end="", flush=True)
        case StepStarted(step=Draw(index=index, number=number)):
            print(f"[{number}] image {index + 1}: ", end="", flush=True)
        case TextDelta(text=text):
            print(text, end="", flush=True)
        case TextReady():
            print()
        case Denoised(done=done, total=total):
            print("." if done < total else f" {total} steps", end="", flush=True)
        case ImageReady(image=image, index=index):
            path = folder / f"image_{index + 1:02d}.png"
            image.save(path)
            print(f" -> {path}")


def _example_photo() -> Image.Image:
    """A red circle on white, drawn large and then resized so that its edge is smooth."""
    image = Image.new("RGB", (256, 256), (250, 250, 250))
    ImageDraw.Draw(image).ellipse((88, 88, 168, 168), fill=(222, 40, 40))
    return image.resize((64, 64), Image.Resampling.BOX)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m core.demo", description="Automatic sequences on BAGEL.")
    parser.add_argument("--model_path", type=Path, required=True, help="a model folder in the official BAGEL layout")
    parser.add_argument("--demo", choices=["auto_generation", "auto_editing", "all"], default="all")
    parser.add_argument("--gpu_ids", default="", help="GPUs to distribute the model over, such as 0,1")
    parser.add_argument("--prompt", help="prompt that replaces the default of the demo")
    parser.add_argument("--image", type=Path, help="image to edit; the default is a generated one")
    parser.add_argument("--num_images", type=int, default=3)
    parser.add_argument("--think", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--max_context_items", type=int, default=None)
    parser.add_argument("--cfg_img_scale", type=float, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", type=Path, default=Path("out/demo"))
    return parser


if __name__ == "__main__":
    sys.exit(main())

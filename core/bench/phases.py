"""The measurements of single phases, such as a text token, a denoising step or reading an image."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import torch
from PIL import Image

from core.bagel import Bagel
from core.bagel.images import resized, to_pixels
from core.bagel.vision import to_patches
from core.bench.machine import Machine, least_work, synchronize
from core.bench.rows import Row
from core.bench.usage import Meter, Usage
from core.protocol import Context, Denoising, Item, Picture, Text
from recipes.recipe import ImageSettings, TextSettings

TOKENS = 16
STEPS = 3
IMAGE_SCALE = 2.0
WORD = " forest"
PROMPT = Text("A magical forest")
QUESTION = "Does the picture match: a magical forest?"


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of the work of a sequence. `prepare` is not measured; what it returns does some units of the phase."""

    name: str
    prepare: Callable[[], Callable[[], int]]
    """Its result returns the number of units that it did."""
    counted: Callable[[], Callable[[], int]] | None = None
    """Does the same without CUDA graphs, whose work can't be counted; None: so does `prepare`."""


def phase_rows(meter: Meter, phases: Sequence[Phase], machine: Machine, rounds: int) -> list[Row]:
    """A row for each phase, of one unit; all phases in each round. Their limit is that of the counted work."""
    samples: dict[str, list[Usage]] = {phase.name: [] for phase in phases}
    limits = {phase.name: _limit_s(meter.model, phase, machine) for phase in phases}  # warms up as well
    for _ in range(rounds):
        for phase in phases:
            samples[phase.name].append(_usage(meter, phase))
    return [Row(name=name, samples=found, baseline=found, limit_s=limits[name]) for name, found in samples.items()]


def phases_of(model: Bagel, image: ImageSettings, contexts: Sequence[int]) -> Iterator[Phase]:
    """The phases of `model`.

    Args:
        model: the model.
        image: the settings for images; with guidance.
        contexts: lengths of contexts, in tokens, in which a text token is measured.
    """
    size = model.size(Context(), image)
    picture = Picture(Image.new("RGB", size, "darkgreen"))
    plain, editing = Context(items=(PROMPT,)), Context(items=(picture, PROMPT))
    for tokens in contexts:
        counted = partial(_token, model, tokens, cuda_graphs=False)
        yield Phase(name=f"text token, {tokens:,} before it", prepare=partial(_token, model, tokens), counted=counted)
    guided = replace(image, cfg_interval=(0.0, 1.0), num_timesteps=STEPS + 2)
    without, by_text = replace(guided, cfg_text_scale=1.0), replace(guided, cfg_img_scale=1.0)
    yield Phase(name="denoising step", prepare=partial(_steps, model, plain, without))
    yield Phase(name="with text guidance", prepare=partial(_steps, model, plain, by_text))
    by_both = replace(guided, cfg_img_scale=IMAGE_SCALE)
    yield Phase(name="with text and image guidance", prepare=partial(_steps, model, editing, by_both))
    yield Phase(name="image", prepare=lambda: _whole(model, plain, image))
    yield Phase(name="read an image", prepare=lambda: _unit(lambda: _read(model, picture)))
    yield Phase(name="VAE encode", prepare=lambda: _unit(lambda: model.reader.latent_tokens(picture.image)))
    yield Phase(name="VAE decode", prepare=lambda: _decoding(model, size))
    yield Phase(name="ViT", prepare=lambda: _vision(model, picture))
    yield Phase(name="judge an image", prepare=lambda: _unit(lambda: model.judge(picture.image, QUESTION)))


def _usage(meter: Meter, phase: Phase) -> Usage:
    run = phase.prepare()
    device = meter.model.network.device
    synchronize(device)
    start = meter.read()
    units = run()
    synchronize(device)
    return meter.read().since(start).scaled(1 / units)


def _limit_s(model: Bagel, phase: Phase, machine: Machine) -> float:
    units = 0

    def run() -> None:
        nonlocal units
        units = prepared()

    phase.prepare()()  # torch can't make the bias of attention while operations are counted; now it is kept
    prepared = (phase.counted or phase.prepare)()
    work = least_work(model.network, run)
    # The weights are counted once, but each unit reads them again.
    return machine.limit_s(replace(work, flop=work.flop / units))


def _unit(run: Callable[[], object]) -> Callable[[], int]:
    def once() -> int:
        with torch.inference_mode():
            run()
        return 1

    return once


def _token(model: Bagel, context: int, *, cuda_graphs: bool = True) -> Callable[[], int]:
    """Text tokens after a text of about `context` tokens; a text that ends is begun again."""
    if not cuda_graphs:
        model = Bagel(model.spec, model.network, model.reader.tokenizer, cuda_graphs=False)
    word = model.reader.tokenizer.frame(WORD * 2)[1:-1]
    _read(model, Text(WORD * max(1, 2 * context // len(word))))
    settings = TextSettings(max_new_tokens=TOKENS, temperature=1.0)
    for _ in islice(model.write_ids(settings, 0), 1):  # records the graph
        pass

    def run() -> int:
        done = 0
        while done < TOKENS:
            written = sum(1 for _ in islice(model.write_ids(settings, done), TOKENS - done))
            done += written + (done + written < TOKENS)  # the end token is computed as well
        return done

    return torch.inference_mode()(run)


def _steps(model: Bagel, context: Context, settings: ImageSettings) -> Callable[[], int]:
    """Denoising steps after the first, which also reads the context."""
    model.forget()
    steps = model.draw(context, settings, seeds=(0,))
    next(steps)

    def run() -> int:
        return sum(isinstance(event, Denoising) for event in islice(steps, STEPS))

    return run


def _whole(model: Bagel, context: Context, settings: ImageSettings) -> Callable[[], int]:
    model.forget()
    return _unit(lambda: list(model.draw(context, settings, seeds=(0,))))


def _read(model: Bagel, item: Item) -> None:
    model.forget()
    model.branches(Context(items=(item,)), ImageSettings(cfg_text_scale=1.0))


def _decoding(model: Bagel, size: tuple[int, int]) -> Callable[[], int]:
    columns, rows = (side // model.spec.stride_px for side in size)
    latents = torch.randn(rows * columns, model.network.config.latent_width, device=model.network.device)
    return _unit(lambda: model.picture(latents, rows))


def _vision(model: Bagel, picture: Picture) -> Callable[[], int]:
    network, patch = model.network, model.network.config.vision.patch_px
    pixels = to_pixels(resized(picture.image, model.spec.vit)).to(network.device, network.dtype)
    grid = model.reader.grid(pixels.shape[1] // patch, pixels.shape[2] // patch, network.config.vision_side)
    patches = to_patches(pixels, patch)
    return _unit(lambda: network.vision(patches, grid))

"""A study of what quantization changes: images checked by their pixels, and hidden states at the size of BAGEL-7B-MoT.

Run `python -m tools.studies.quantization` in the repository; docs/measured.md has its results.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from core.bagel import Bagel
from core.bagel.network import Network
from core.bagel.quantize import METHODS, quantize_experts
from core.events import ImageReady
from core.geometry import BagelConfig
from core.protocol import Context, Picture, Text
from core.sequence import run_sequence
from recipes.recipe import ImageSettings
from tools.measured import StudyTable, Tables, markdown
from tools.studies.judging.figures import gain
from tools.studies.judging.tasks import FIRST, MATCH, Kind, Task, recipe, tasks

TINY = Path(__file__).parents[2] / "models" / "tiny-bagel"
KINDS: tuple[Kind, ...] = ("drawing", "editing")
LAYERS, WEIGHT_STD = 3, 0.02


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, and write them as JSON for tools.measured."""
    parser = argparse.ArgumentParser(prog="python -m tools.studies.quantization", description=__doc__)
    parser.add_argument("--tasks", type=int, default=110, help="tasks of each kind: drawing and editing")
    parser.add_argument("--timesteps", type=int, default=24, help="points of the denoising schedule")
    parser.add_argument("--json", type=Path, default=Path("out/quantization.json"))
    options = parser.parse_args(arguments)
    tables: Tables = {"images": images(options.tasks, options.timesteps), "layers": layers()}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(tables, indent=1) + "\n")
    for name, table in tables.items():
        sys.stdout.write(f"{name}\n\n{markdown(table)}\n")
    return 0


def images(count: int, timesteps: int) -> StudyTable:
    """Images that are right, and their mean distance from those of the exact model, in grey levels."""
    todo = [task for kind in KINDS for task in tasks(kind, count, 0)]
    exact = [_drawn(task, model, timesteps) for model in [Bagel.load(TINY, device="cpu")] for task in todo]
    rows = [["float32", *_shares(todo, exact, exact), ""]]
    for method in METHODS:
        model = Bagel.load(TINY, device="cpu", quantize=method)
        ours = [_drawn(task, model, timesteps) for task in todo]
        distance = np.mean(
            [np.abs(np.asarray(a, float) - np.asarray(b, float)).mean() for a, b in zip(ours, exact, strict=True)]
        )
        rows.append([method, *_shares(todo, ours, exact), f"{distance:.1f}"])
    return {"columns": ["", *KINDS, "mean distance, levels of 255"], "rows": rows}


def _drawn(task: Task, model: Bagel, timesteps: int) -> Image.Image:
    asked = recipe(task, FIRST, MATCH, model.spec, timesteps)
    inputs = [] if task.given is None else [task.given]
    *_, ready = [event for event in run_sequence(asked, model, inputs=inputs) if isinstance(event, ImageReady)]
    return ready.variations[0].image


def _shares(todo: Sequence[Task], ours: Sequence[Image.Image], exact: Sequence[Image.Image]) -> Iterator[str]:
    """The share of right images of each kind, with the difference from the exact model, its interval and p."""
    for kind in KINDS:
        right = [
            (task.is_right(one), task.is_right(other))
            for task, one, other in zip(todo, ours, exact, strict=True)
            if task.kind == kind
        ]
        share = f"{np.mean([one for one, _ in right]):.1%}"
        if ours is not exact:
            change = gain([one for one, _ in right], [other for _, other in right])
            share += f" ({change.difference:+.1%} [{change.low:+.1%}, {change.high:+.1%}], p {change.p:.2f})"
        yield share


def layers() -> StudyTable:
    """The relative error of the hidden states after each decoder layer, with random weights, against float32."""
    exact = _states(torch.float32, None)
    rows = [_errors("bfloat16", _states(torch.bfloat16, None), exact)]
    rows += [_errors(f"bfloat16, {method}", _states(torch.bfloat16, method), exact) for method in METHODS]
    expected = [f"{part}, layer {number}" for part in ("latents", "text") for number in range(1, LAYERS + 1)]
    return {"columns": ["", *expected], "rows": rows}


def _errors(name: str, ours: Sequence[Tensor], exact: Sequence[Tensor]) -> list[str]:
    return [name, *(f"{(a.float() - b).norm() / b.norm():.4f}" for a, b in zip(ours, exact, strict=True))]


def _states(dtype: torch.dtype, method: str | None) -> list[Tensor]:
    """The hidden states of an image's latents and of a text after each of LAYERS layers."""
    model = _random_model(dtype)
    calls: list[tuple[Tensor, Tensor | None]] = []
    for layer in list(model.network.decoder.layers)[:LAYERS]:  # the last one computes only keys and values
        if method is not None:
            quantize_experts(layer, method)
        layer.register_forward_hook(lambda _module, _inputs, outputs: calls.append(outputs))
    context = Context(items=(Picture(Image.new("RGB", (64, 64), "darkgreen")), Text("A small red circle. " * 8)))
    model.branches(context, ImageSettings(cfg_text_scale=1.0))
    latents = [gen for _, gen in calls if gen is not None]
    return [*latents, *(und for und, _ in calls[-LAYERS:])]


def _random_model(dtype: torch.dtype) -> Bagel:
    """Layers of the published size with normally distributed weights; everything else has the size of tiny-bagel."""
    tiny = Bagel.load(TINY, device="cpu")
    config = BagelConfig.read(TINY)
    published, vocab_size = BagelConfig.published().decoder, config.decoder.vocab_size
    network = Network(replace(config, decoder=replace(published, num_layers=LAYERS + 1, vocab_size=vocab_size)))
    network.dtype = dtype
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            fresh = torch.empty(parameter.shape).normal_(std=WEIGHT_STD, generator=generator)
            parameter.copy_(fresh + 1 if "norm" in name and name.endswith("weight") else fresh)
    return Bagel(tiny.spec, network.to(dtype).eval(), tiny.reader.tokenizer)


if __name__ == "__main__":
    sys.exit(main())

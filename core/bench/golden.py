"""How far a device is from the golden sets, which the official code computed in float32 on a CPU."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from core.bagel import Bagel
from core.bagel.model import DTYPES
from core.bagel.weights import MODEL_FILE
from core.protocol import Context, Item, Picture, Text
from core.sequence import PLANNING_PROMPT
from recipes.recipe import ImageSettings


def golden(folders: Sequence[Path], model_path: Path | None, device: torch.device) -> Iterator[Mapping[str, object]]:
    """The largest deviation of drawn latents, relative to the largest number, in each dtype.

    Args:
        folders: the sets.
        model_path: the model of the sets that do not contain their own.
        device: where to compute.
    """
    for folder in folders:
        scenarios = json.loads((folder / "golden.json").read_text())["scenarios"]
        results = load_file(folder / "golden.safetensors")
        path = folder if (folder / MODEL_FILE).is_file() or model_path is None else model_path
        for dtype in DTYPES:
            model = Bagel.load(path, device=str(device), dtype=dtype)
            for said in scenarios:
                if f"{said['name']}.latent" in results:
                    latent = _drawn(model, folder, said, results[f"{said['name']}.noise"])
                    expected = results[f"{said['name']}.latent"]
                    deviation = ((latent - expected).abs().max() / expected.abs().max()).item()
                    yield {"set": folder.name, "dtype": dtype, "scenario": said["name"], "deviation": deviation}


def _drawn(model: Bagel, folder: Path, said: Mapping[str, Any], noise: Tensor) -> Tensor:
    """The latents that a scenario draws from its noise."""
    items = tuple(_item(folder, item) for item in said["context"])
    context = Context(system_prompt=PLANNING_PROMPT if said["think_system_prompt"] else None, items=items)
    height, width = said["size_hw"]
    params = {**said["params"], "cfg_interval": tuple(said["params"]["cfg_interval"])}
    settings = ImageSettings(width=width, height=height, **params)
    *_, last = model.denoise(context, settings, noise, height // model.spec.stride_px)
    return last.x.float().cpu()


def _item(folder: Path, said: Mapping[str, str]) -> Item:
    return Text(said["text"]) if "text" in said else Picture(Image.open(folder / said["image"]))

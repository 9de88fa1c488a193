"""The golden sets: numbers computed with the official code, and the model each set belongs to."""

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from core.bagel import Bagel
from core.protocol import Context, Item, Picture, Text
from core.sequence import PLANNING_PROMPT
from recipes.recipe import ImageSettings

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden"
MODELS = {"random": GOLDEN / "random", "tiny": ROOT / "models" / "tiny-bagel"}
SETS = tuple(MODELS)


@dataclass
class GoldenSet:
    """One set, with its model in float32 on the CPU."""

    name: str
    model: Bagel
    scenarios: dict[str, dict[str, Any]]
    results: dict[str, Tensor]
    pictures: dict[str, Picture] = field(default_factory=dict)

    def context(self, scenario: str, items: str = "context") -> Context:
        said = self.scenarios[scenario]
        prompt = PLANNING_PROMPT if said.get("think_system_prompt") else None
        return Context(system_prompt=prompt, items=tuple(self.item(item) for item in said[items]))

    def item(self, said: dict[str, str]) -> Item:
        if "text" in said:
            return Text(said["text"])
        name = said["image"]
        if name not in self.pictures:
            self.pictures[name] = Picture(Image.open(GOLDEN / self.name / name))
        return self.pictures[name]

    def settings(self, scenario: str) -> ImageSettings:
        said = self.scenarios[scenario]
        height, width = said["size_hw"]
        interval = tuple(said["params"]["cfg_interval"])
        return ImageSettings(width=width, height=height, **{**said["params"], "cfg_interval": interval})

    def rows(self, scenario: str) -> int:
        return int(self.scenarios[scenario]["size_hw"][0]) // self.model.spec.stride_px


@cache
def golden_set(name: str) -> GoldenSet:
    folder = GOLDEN / name
    scenarios = json.loads((folder / "golden.json").read_text())["scenarios"]
    return GoldenSet(
        name=name,
        model=load(name),
        scenarios={scenario["name"]: scenario for scenario in scenarios},
        results=load_file(folder / "golden.safetensors"),
    )


def load(name: str) -> Bagel:
    """A model of its own, with nothing read yet."""
    return Bagel.load(MODELS[name], device="cpu", dtype="float32")


def deviation(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest number expected."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def levels(image: Image.Image) -> Tensor:
    """An image's bytes (H, W, 3)."""
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, -1)

"""Conversion of images: transparency, sizes, pixel values."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from recipes.model_spec import ResizeRule


def opaque(image: Image.Image) -> Image.Image:
    """`image` as RGB, with transparent parts on white."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")  # no copy of a large image
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def resized(image: Image.Image, rule: ResizeRule) -> Image.Image:
    """An RGB image at the size that the model reads."""
    return image.resize(rule.size(*image.size), Image.Resampling.BICUBIC)


def to_pixels(image: Image.Image) -> Tensor:
    """An RGB image as (3, H, W) float32 in -1..1."""
    levels = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)
    return levels / 255 * 2 - 1


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Images of equal size as one image, from left to right."""
    width, height = images[0].size
    strip = Image.new("RGB", (width * len(images), height))
    for place, image in enumerate(images):
        strip.paste(image, (width * place, 0))
    return strip


def to_image(levels: Tensor) -> Image.Image:
    """Bytes (H, W, 3) as an RGB image."""
    return Image.fromarray(levels.numpy())

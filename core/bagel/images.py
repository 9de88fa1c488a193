"""Pictures on their way in and out: transparency, sizes, pixel values."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from core.bagel.config import ResizeConfig

MAX_PIXELS = 14 * 14 * 9 * 1024


def opaque(image: Image.Image) -> Image.Image:
    """`image` as RGB, over white where it is transparent."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def fitted_size(width: int, height: int, config: ResizeConfig) -> tuple[int, int]:
    """The size, width and height, to which an image is resized before it is read (bagel-spec, section 4)."""
    scale = min(config.max_px / max(width, height), 1.0)
    scale = max(scale, config.min_px / min(width, height))
    size = _scaled(width, height, scale, config.stride_px)
    if size[0] * size[1] > MAX_PIXELS:
        size = _scaled(*size, MAX_PIXELS / (size[0] * size[1]), config.stride_px)
    if max(size) > config.max_px:
        size = _scaled(*size, config.max_px / max(size), config.stride_px)
    return size


def _scaled(width: int, height: int, scale: float, stride: int) -> tuple[int, int]:
    sides = (max(stride, round(round(side * scale) / stride) * stride) for side in (width, height))
    return next(sides), next(sides)


def resized(image: Image.Image, config: ResizeConfig) -> Image.Image:
    """An RGB image at the size it is read in."""
    return image.resize(fitted_size(*image.size, config), Image.Resampling.BICUBIC)


def to_pixels(image: Image.Image) -> Tensor:
    """An RGB image as (3, H, W) float32 in -1..1."""
    levels = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)
    return levels / 255 * 2 - 1


def to_image(levels: Tensor) -> Image.Image:
    """Bytes (H, W, 3) as an RGB image."""
    return Image.fromarray(levels.numpy())

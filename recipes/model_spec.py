"""What a recipe may assume of a model: sizes, defaults and costs."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

MAX_PIXELS = 14 * 14 * 9 * 1024


class ModelSpecError(ValueError):
    """A text is no model spec that this program wrote."""


@dataclass(frozen=True, kw_only=True)
class ResizeRule:
    """How an image is resized before it is cut into patches of `stride_px` (bagel-spec section 4)."""

    max_px: int
    min_px: int
    stride_px: int

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels after the rule: both sides multiples of the stride."""
        longest, shortest = max(width, height), min(width, height)
        scale = max(min(self.max_px / longest, 1.0), self.min_px / shortest)
        new = self._scaled(width, height, scale)
        if new[0] * new[1] > MAX_PIXELS:
            new = self._scaled(*new, MAX_PIXELS / (new[0] * new[1]))
        if max(new) > self.max_px:
            new = self._scaled(*new, self.max_px / max(new))
        return new

    def block_tokens(self, width: int, height: int) -> int:
        """Tokens of the block that an image of this size makes: its patches between two markers."""
        resized = self.size(width, height)
        return 2 + (resized[0] // self.stride_px) * (resized[1] // self.stride_px)

    def _scaled(self, width: int, height: int, scale: float) -> tuple[int, int]:
        return self._on_grid(width * scale), self._on_grid(height * scale)

    def _on_grid(self, side: float) -> int:
        return max(self.stride_px, self.stride_px * round(round(side) / self.stride_px))


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A served model as clients know it: enough to check a recipe and to plan its cost without loading weights."""

    name: str
    vae: ResizeRule
    """What an image goes through first; the sides of drawn images are multiples of its stride."""
    vit: ResizeRule
    """What the ViT's view of an image goes through after that."""
    max_side_px: int
    """The longest side the position table has room for."""
    text_defaults: Mapping[str, Any]
    image_defaults: Mapping[str, Any]
    kv_values_per_token: int
    """Numbers the KV cache holds for one token (keys and values of all layers)."""

    @property
    def stride_px(self) -> int:
        """Sides of drawn images are multiples of this."""
        return self.vae.stride_px

    def image_tokens(self, width: int, height: int) -> tuple[int, int]:
        """Tokens of the VAE block and of the ViT block of an image that is `width` by `height` pixels."""
        size = self.vae.size(width, height)
        return self.vae.block_tokens(*size), self.vit.block_tokens(*size)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "ModelSpec":
        """What `to_json` gave. Raises ModelSpecError for anything else."""
        try:
            fields = json.loads(text)
            rules = {name: ResizeRule(**fields[name]) for name in ("vae", "vit")}
            spec = ModelSpec(**{**fields, **rules})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ModelSpecError(
                f"not a model spec of this program: {type(error).__name__}: {str(error)[:200]}"
            ) from error
        sizes = [*asdict(spec.vae).values(), *asdict(spec.vit).values(), spec.max_side_px]
        defaults = (spec.text_defaults, spec.image_defaults)
        if (
            not all(type(size) is int and size > 0 for size in sizes)
            or not all(isinstance(one, dict) for one in defaults)
            or not isinstance(spec.name, str)
            or type(spec.kv_values_per_token) is not int
        ):
            raise ModelSpecError("not a model spec of this program: a field is of the wrong type")
        return spec

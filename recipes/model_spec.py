"""What a recipe needs to know about a model: image sizes, defaults, memory and what it was trained on."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

MAX_PIXELS = 14 * 14 * 9 * 1024


class ModelSpecError(ValueError):
    """The text is not a valid model spec."""


@dataclass(frozen=True, kw_only=True)
class ResizeRule:
    """How an image is resized before it is split into patches of `stride_px`."""

    max_px: int
    min_px: int
    stride_px: int

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels after resizing: both sides are multiples of the stride."""
        longest, shortest = max(width, height), min(width, height)
        scale = max(min(self.max_px / longest, 1.0), self.min_px / shortest)
        new = self._scaled(width, height, scale)
        if new[0] * new[1] > MAX_PIXELS:
            new = self._scaled(*new, MAX_PIXELS / (new[0] * new[1]))
        if max(new) > self.max_px:
            new = self._scaled(*new, self.max_px / max(new))
        return new

    def block_tokens(self, width: int, height: int) -> int:
        """Tokens of an image of this size: its patches and two markers."""
        resized = self.size(width, height)
        return 2 + (resized[0] // self.stride_px) * (resized[1] // self.stride_px)

    def _scaled(self, width: int, height: int, scale: float) -> tuple[int, int]:
        return self._on_grid(width * scale), self._on_grid(height * scale)

    def _on_grid(self, side: float) -> int:
        return max(self.stride_px, self.stride_px * round(round(side) / self.stride_px))


@dataclass(frozen=True, kw_only=True)
class TrainingLimits:
    """What the model was trained on. A recipe may exceed it; the results are then likely to be poor."""

    min_side_px: int | None = None
    """The shortest image side; None: unknown."""
    max_side_px: int | None = None
    """The longest image side; None: unknown."""
    max_prompt_chars: int | None = None
    """The longest prompt, in characters; None: unknown."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A served model as clients see it: enough to check a recipe and to estimate its cost without the weights."""

    name: str
    vae: ResizeRule
    """The first resizing of an image; the sides of drawn images are multiples of its stride."""
    vit: ResizeRule
    """The second resizing, for the ViT."""
    max_side_px: int
    """The longest side that the position table allows."""
    text_defaults: Mapping[str, Any]
    image_defaults: Mapping[str, Any]
    kv_values_per_token: int
    """Numbers in the KV cache per token (keys and values of all layers)."""
    limits: TrainingLimits = TrainingLimits()
    sha256: str | None = None
    """The fingerprint of the model's files; None if it is unknown."""

    @property
    def stride_px(self) -> int:
        """Sides of drawn images are multiples of this."""
        return self.vae.stride_px

    def defaults(self, group: str) -> Mapping[str, Any]:
        """The model's defaults for the settings of a group; only text and image have any."""
        return {"text": self.text_defaults, "image": self.image_defaults}.get(group, {})

    def image_tokens(self, width: int, height: int) -> tuple[int, int]:
        """Tokens of the VAE block and of the ViT block of an image of `width` by `height` pixels."""
        size = self.vae.size(width, height)
        return self.vae.block_tokens(*size), self.vit.block_tokens(*size)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def to_json_0_1(self) -> str:
        """The spec as release 0.1.0 reads it, which rejects fields that it does not know."""
        later = ("limits", "sha256")
        return json.dumps({name: value for name, value in asdict(self).items() if name not in later})

    @staticmethod
    def from_json(text: str) -> "ModelSpec":
        """The spec in the output of `to_json` of any release; unknown fields are ignored.

        Raises ModelSpecError.
        """
        try:
            data = _known(ModelSpec, json.loads(text))
            data.update({name: ResizeRule(**_known(ResizeRule, data[name])) for name in ("vae", "vit")})
            spec = ModelSpec(**{**data, "limits": TrainingLimits(**_known(TrainingLimits, data.get("limits", {})))})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ModelSpecError(f"not a model spec: {type(error).__name__}: {str(error)[:200]}") from error
        sizes = [*asdict(spec.vae).values(), *asdict(spec.vit).values(), spec.max_side_px]
        sizes += [limit for limit in asdict(spec.limits).values() if limit is not None]
        defaults = (spec.text_defaults, spec.image_defaults)
        if (
            not all(type(size) is int and size > 0 for size in sizes)
            or not all(isinstance(one, dict) for one in defaults)
            or not isinstance(spec.name, str)
            or type(spec.kv_values_per_token) is not int
        ):
            raise ModelSpecError("not a model spec: a field has the wrong type")
        return spec


def _known(kind: type[ModelSpec | ResizeRule | TrainingLimits], data: Mapping[str, Any]) -> dict[str, Any]:
    """The items of `data` that are fields of `kind`."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in data.items() if name in names}

"""What a recipe may assume of a model, read from the checkpoint's JSON files: sizes, defaults, costs (no weights)."""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

OFFICIAL_VAE_TRANSFORM = {"max_size": 1024, "min_size": 512, "stride": 16}
OFFICIAL_VIT_TRANSFORM = {"max_size": 980, "min_size": 224, "stride": 14}
MAX_PIXELS = 14 * 14 * 9 * 1024
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format


class ModelFolderError(ValueError):
    """A checkpoint folder can't be used: names the folder, what is wrong and what is expected."""


class CardError(ValueError):
    """A text is no model card that this program wrote."""


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
class ModelCard:
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
    def from_json(text: str) -> "ModelCard":
        """What `to_json` gave. Raises CardError for anything else."""
        try:
            fields = json.loads(text)
            rules = {name: ResizeRule(**fields[name]) for name in ("vae", "vit")}
            card = ModelCard(**{**fields, **rules})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CardError(f"not a model card of this program: {type(error).__name__}: {str(error)[:200]}") from error
        sizes = [*asdict(card.vae).values(), *asdict(card.vit).values(), card.max_side_px]
        defaults = (card.text_defaults, card.image_defaults)
        if (
            not all(type(size) is int and size > 0 for size in sizes)
            or not all(isinstance(one, dict) for one in defaults)
            or not isinstance(card.name, str)
            or type(card.kv_values_per_token) is not int
        ):
            raise CardError("not a model card of this program: a field is of the wrong type")
        return card

    @staticmethod
    def read(folder: Path, name: str | None = None) -> "ModelCard":
        """The card of an official-layout folder. Raises ModelFolderError when a file is missing or malformed."""
        config, llm = (
            read_json(folder, "config.json", required=False),
            read_json(folder, "llm_config.json", required=True),
        )
        vae = _resize_rule(folder, "vae_transform", OFFICIAL_VAE_TRANSFORM, config)
        defaults = _object(folder, "defaults", config)
        try:
            head_dim = llm.get("head_dim") or llm["hidden_size"] // llm["num_attention_heads"]
            kv_values = 2 * llm["num_hidden_layers"] * llm["num_key_value_heads"] * head_dim
        except KeyError as missing:
            raise ModelFolderError(f"{folder / 'llm_config.json'}: the key {missing} is missing") from None
        except (TypeError, ZeroDivisionError) as error:
            raise ModelFolderError(f"{folder / 'llm_config.json'}: its sizes are no whole numbers: {error}") from error
        return ModelCard(
            name=name or folder.resolve().name.lower(),
            vae=vae,
            vit=_resize_rule(folder, "vit_transform", OFFICIAL_VIT_TRANSFORM, config),
            max_side_px=_latent_table_side(folder) * vae.stride_px,
            text_defaults=_object(folder, "text", defaults),
            image_defaults=_object(folder, "image", defaults),
            kv_values_per_token=kv_values,
        )


def _resize_rule(folder: Path, name: str, official: Mapping[str, int], config: Mapping[str, Any]) -> ResizeRule:
    sizes = {**official, **_object(folder, name, config)}
    for key in official:
        if not isinstance(sizes[key], int) or sizes[key] < 1:
            what = f"{name}.{key} is {sizes[key]!r}, expected a positive whole number"
            raise ModelFolderError(f"{folder / 'config.json'}: {what}")
    return ResizeRule(max_px=sizes["max_size"], min_px=sizes["min_size"], stride_px=sizes["stride"])


def _object(folder: Path, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object under `name` in config.json, or in one of its objects; empty when there is none."""
    found = config.get(name, {})
    if not isinstance(found, dict):
        raise ModelFolderError(f"{folder / 'config.json'}: {name} is {found!r}, expected a JSON object")
    return found


def _latent_table_side(folder: Path) -> int:
    """Rows of the square position table for latents, from the header of the weights.

    The published 7B folder's config.json states 32, which is stale: the stored table has 64 x 64 places.
    """
    path = folder / "ema.safetensors"
    try:
        with path.open("rb") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(header_bytes, MAX_HEADER_BYTES)))
        return math.isqrt(header["latent_pos_embed.pos_embed"]["shape"][0])
    except FileNotFoundError:
        raise ModelFolderError(f"{path}: no such file; a model folder in the official BAGEL layout has it") from None
    except (OSError, struct.error, ValueError, KeyError, TypeError) as error:
        raise ModelFolderError(f"{path}: its header can't be read: {type(error).__name__}: {error}") from error


def read_json(folder: Path, name: str, *, required: bool) -> dict[str, Any]:
    """The JSON object in a file of `folder`; empty when the file is missing and not `required`.

    Raises ModelFolderError when it can't be read.
    """
    path = folder / name
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not required:
            return {}
        raise ModelFolderError(f"{path}: no such file; a model folder in the official BAGEL layout has it") from None
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{path}: can't be read as JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise ModelFolderError(f"{path}: holds {type(loaded).__name__}, expected a JSON object")
    return loaded

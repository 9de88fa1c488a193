"""What a recipe may assume of a model: sizes, defaults and costs, read from the checkpoint's JSON files (no weights)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OFFICIAL_VAE_TRANSFORM = {"max_size": 1024, "min_size": 512, "stride": 16}
OFFICIAL_VIT_TRANSFORM = {"max_size": 980, "min_size": 224, "stride": 14}
OFFICIAL_MAX_LATENT_SIZE = 64


class ModelFolderError(ValueError):
    """A checkpoint folder can't be used: names the folder, what is wrong and what is expected."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """A served model as clients know it: enough to check a recipe and to plan its cost without loading weights."""

    name: str
    stride_px: int
    """Image sides are multiples of this."""
    max_side_px: int
    """The longest side the position table has room for."""
    text_defaults: Mapping[str, Any]
    image_defaults: Mapping[str, Any]
    kv_values_per_token: int
    """Numbers the KV cache holds for one token (keys and values of all layers)."""
    vit_stride_px: int
    vit_max_side_px: int
    """The ViT block of an image: sides resized to at most this, in patches of vit_stride_px."""

    @staticmethod
    def read(folder: Path, name: str | None = None) -> "ModelCard":
        """The card of an official-layout folder. Raises ModelFolderError when a file is missing or malformed."""
        config, llm = _json(folder, "config.json", required=False), _json(folder, "llm_config.json", required=True)
        vae = {**OFFICIAL_VAE_TRANSFORM, **config.get("vae_transform", {})}
        vit = {**OFFICIAL_VIT_TRANSFORM, **config.get("vit_transform", {})}
        # The published 7B folder says max_latent_size 32, which is stale; its table has 64 (see bagel-spec).
        side = (
            config.get("max_latent_size", OFFICIAL_MAX_LATENT_SIZE)
            if "vae_config" in config
            else OFFICIAL_MAX_LATENT_SIZE
        )
        defaults = config.get("defaults", {})
        try:
            head_dim = llm.get("head_dim") or llm["hidden_size"] // llm["num_attention_heads"]
            kv = 2 * llm["num_hidden_layers"] * llm["num_key_value_heads"] * head_dim
        except KeyError as missing:
            raise ModelFolderError(f"{folder / 'llm_config.json'}: the key {missing} is missing") from None
        return ModelCard(
            name=name or folder.resolve().name.lower(),
            stride_px=vae["stride"],
            max_side_px=side * vae["stride"],
            text_defaults=defaults.get("text", {}),
            image_defaults=defaults.get("image", {}),
            kv_values_per_token=kv,
            vit_stride_px=vit["stride"],
            vit_max_side_px=vit["max_size"],
        )


def _json(folder: Path, name: str, *, required: bool) -> dict[str, Any]:
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

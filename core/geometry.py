"""The geometry of a checkpoint, read from its JSON files; the defaults are those published for BAGEL-7B-MoT."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.model_folder import ModelFolderError, read_json

OFFICIAL_LATENT_SIDE = 64
OFFICIAL_VISION_SIDE = 70
OFFICIAL_VAE = {
    "ch": 128,
    "ch_mult": (1, 2, 4, 4),
    "num_res_blocks": 2,
    "z_channels": 16,
    "downsample": 8,
    "scale_factor": 0.3611,
    "shift_factor": 0.1159,
}


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The language model (`llm_config.json`)."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float
    norm_eps: float


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The image encoder for understanding (`vit_config.json`)."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    """Layers used: BAGEL omits the last of those stated in the file."""
    num_heads: int
    patch_px: int
    num_positions: int
    norm_eps: float


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """The image encoder and decoder for generation."""

    channels: int
    multipliers: tuple[int, ...]
    num_blocks: int
    latent_channels: int
    downsample: int
    scale: float
    shift: float


@dataclass(frozen=True, kw_only=True)
class BagelConfig:
    """The complete geometry of a checkpoint."""

    decoder: DecoderConfig
    vision: VisionConfig
    autoencoder: AutoencoderConfig
    latent_patch: int
    """Side of a latent token, in latent pixels."""
    latent_side: int
    """Rows and columns of the latent position table."""
    vision_side: int
    """Rows and columns of the ViT position table."""

    @property
    def latent_width(self) -> int:
        """Numbers in a latent token."""
        return self.latent_patch**2 * self.autoencoder.latent_channels

    @property
    def stride_px(self) -> int:
        """Side of a latent token, in pixels."""
        return self.latent_patch * self.autoencoder.downsample

    @staticmethod
    def read(folder: Path) -> "BagelConfig":
        """The geometry of the checkpoint in `folder`.

        The sizes of the position tables are those in config.json, which may be out of date (see weights.py).

        Raises:
            ModelFolderError: a file is missing or malformed, or lacks a key.
        """
        config = read_json(folder, "config.json", required=False)
        llm, vit = (read_json(folder, name, required=True) for name in ("llm_config.json", "vit_config.json"))
        try:
            return BagelConfig(
                decoder=_decoder(llm),
                vision=_vision(vit),
                autoencoder=_autoencoder({**OFFICIAL_VAE, **config.get("vae_config", {})}),
                latent_patch=config.get("latent_patch_size", 2),
                latent_side=config.get("max_latent_size", OFFICIAL_LATENT_SIDE),
                vision_side=config.get("vit_max_num_patch_per_side", OFFICIAL_VISION_SIDE),
            )
        except KeyError as missing:
            raise ModelFolderError(f"{folder}: llm_config.json or vit_config.json has no key {missing}") from None
        except (TypeError, ValueError, AttributeError) as error:
            raise ModelFolderError(f"{folder}: a value in a JSON file has the wrong type: {error}") from error


def _decoder(llm: Mapping[str, Any]) -> DecoderConfig:
    return DecoderConfig(
        vocab_size=llm["vocab_size"],
        hidden_size=llm["hidden_size"],
        intermediate_size=llm["intermediate_size"],
        num_layers=llm["num_hidden_layers"],
        num_heads=llm["num_attention_heads"],
        num_kv_heads=llm["num_key_value_heads"],
        head_dim=llm.get("head_dim") or llm["hidden_size"] // llm["num_attention_heads"],
        rope_theta=float(llm.get("rope_theta", 1e6)),
        norm_eps=float(llm.get("rms_norm_eps", 1e-6)),
    )


def _vision(vit: Mapping[str, Any]) -> VisionConfig:
    return VisionConfig(
        hidden_size=vit["hidden_size"],
        intermediate_size=vit["intermediate_size"],
        num_layers=vit["num_hidden_layers"] - 1,
        num_heads=vit["num_attention_heads"],
        patch_px=vit["patch_size"],
        num_positions=(vit["image_size"] // vit["patch_size"]) ** 2,
        norm_eps=float(vit.get("layer_norm_eps", 1e-6)),
    )


def _autoencoder(vae: Mapping[str, Any]) -> AutoencoderConfig:
    return AutoencoderConfig(
        channels=vae["ch"],
        multipliers=tuple(vae["ch_mult"]),
        num_blocks=vae["num_res_blocks"],
        latent_channels=vae["z_channels"],
        downsample=vae["downsample"],
        scale=float(vae["scale_factor"]),
        shift=float(vae["shift_factor"]),
    )

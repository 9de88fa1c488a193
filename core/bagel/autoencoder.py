"""Images for generation: the FLUX autoencoder, and latents as tokens.

Axes: C channels, h and w of the latent grid.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.bagel.layers import PositionTable, TimeEmbedder
from core.bagel.linear import Linear, linear
from core.geometry import AutoencoderConfig, BagelConfig

NORM_GROUPS = 32
NORM_EPS = 1e-6


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(NORM_GROUPS, channels, eps=NORM_EPS)


class ResidualBlock(nn.Module):
    """Two normalized convolutions with a residual connection."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(inner), nn.Conv2d(inner, outer, 3, padding=1)
        self.norm2, self.conv2 = _norm(outer), nn.Conv2d(outer, outer, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(inner, outer, 1) if inner != outer else None

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.conv1(functional.silu(self.norm1(x)))
        change = self.conv2(functional.silu(self.norm2(change)))
        return change + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class SpatialAttention(nn.Module):
    """One attention head over all positions of the grid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q, self.k = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.v, self.proj_out = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        # Projected as rows of positions, not as images: the fused attention needs the channels of a row side by side.
        rows = self.norm(x).flatten(2).transpose(1, 2).contiguous()
        q, k, v = (_project(rows, conv)[:, None] for conv in (self.q, self.k, self.v))
        seen = functional.scaled_dot_product_attention(q, k, v)[:, 0]
        return x + _project(seen, self.proj_out).transpose(1, 2).reshape(x.shape)


def _project(rows: Tensor, conv: nn.Conv2d) -> Tensor:
    """The 1x1 convolution `conv` of positions (1, h * w, C)."""
    return linear(rows, conv.weight.flatten(1), conv.bias)


class Middle(nn.Module):
    """The blocks at the lowest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels)
        self.attn_1 = SpatialAttention(channels)
        self.block_2 = ResidualBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class Downsample(nn.Module):
    """Halves the resolution; padding only on the right and at the bottom."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(functional.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Doubles the resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class Level(nn.Module):
    """Blocks at one resolution, then the change to the next resolution."""

    def __init__(self, widths: list[int], *, downsample: bool = False, upsample: bool = False) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResidualBlock(inner, outer) for inner, outer in pairwise(widths))
        self.downsample = Downsample(widths[-1]) if downsample else None
        self.upsample = Upsample(widths[-1]) if upsample else None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        if self.downsample is not None:
            x = self.downsample(x)
        if self.upsample is not None:
            x = self.upsample(x)
        return x


class LatentEncoder(nn.Module):
    """Pixels (3, H, W) in -1..1 -> latents (C, h, w) of about unit variance.

    Uses the mean of the posterior, so that reading an image is deterministic.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels * factor for factor in config.multipliers]
        self.conv_in = nn.Conv2d(3, config.channels, 3, padding=1)
        entry = [config.channels, *widths]
        self.down = nn.ModuleList(
            Level([entry[i], *[width] * config.num_blocks], downsample=i < len(widths) - 1)
            for i, width in enumerate(widths)
        )
        self.mid = Middle(widths[-1])
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv_in(_batch(pixels))
        for level in self.down:
            x = level(x)
        moments: Tensor = self.conv_out(functional.silu(self.norm_out(self.mid(x))))
        return (moments[0].chunk(2)[0] - self.config.shift) * self.config.scale


class LatentDecoder(nn.Module):
    """Latents (C, h, w) -> pixels (3, H, W) in about -1..1."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels * factor for factor in config.multipliers]
        entry = [*widths[1:], widths[-1]]
        self.conv_in = nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList(
            Level([entry[i], *[width] * (config.num_blocks + 1)], upsample=i > 0) for i, width in enumerate(widths)
        )
        self.norm_out = _norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        x = latents / self.config.scale + self.config.shift
        x = self.mid(self.conv_in(_batch(x)))
        for level in reversed(self.up):
            x = level(x)
        pixels: Tensor = self.conv_out(functional.silu(self.norm_out(x)))[0]
        return pixels


class LatentPlaces(nn.Module):
    """What latent tokens are embedded with, which stays the same while their numbers change."""

    def __init__(self, config: BagelConfig) -> None:
        super().__init__()
        width = config.decoder.hidden_size
        self.time_embedder = TimeEmbedder(width)
        self.latent_pos_embed = PositionTable(config.latent_side**2, width)

    def forward(self, positions: Tensor, times: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Positions in the table (L,) and times (T,) float32 -> (L, D) and (T, D), in the `dtype` of the weights."""
        return self.latent_pos_embed(positions), self.time_embedder(times, dtype)


def _batch(x: Tensor) -> Tensor:
    """A batch of the one image `x`, on the CPU with the channels of a position side by side.

    The layers keep that order, in which the CPU's convolutions are faster. A GPU's group norm does not keep it.
    """
    return x[None].contiguous(memory_format=torch.channels_last) if x.is_cpu else x[None]


class LatentEmbedder(nn.Module):
    """Embeds latent tokens for the language model."""

    def __init__(self, config: BagelConfig) -> None:
        super().__init__()
        self.vae2llm = Linear(config.latent_width, config.decoder.hidden_size)

    def forward(self, latents: Tensor, place: Tensor, time: Tensor) -> Tensor:
        """Latent tokens (..., L, latent width), their places (L, D) and their time (D,) -> (..., L, D)."""
        embedded: Tensor = self.vae2llm(latents) + place + time
        return embedded


def patchify(latents: Tensor, patch: int) -> Tensor:
    """Latents (C, rows * patch, columns * patch) -> tokens (rows * columns, patch² * C), channels last."""
    channels, height, width = latents.shape
    grid = latents.reshape(channels, height // patch, patch, width // patch, patch)
    return grid.permute(1, 3, 2, 4, 0).reshape(-1, patch * patch * channels)


def unpatchify(tokens: Tensor, patch: int, rows: int) -> Tensor:
    """The inverse of patchify, for a grid of `rows` rows."""
    channels = tokens.shape[-1] // patch**2
    grid = tokens.view(rows, -1, patch, patch, channels)
    return grid.permute(4, 0, 2, 1, 3).reshape(channels, rows * patch, -1)


def shrink(latents: Tensor, factor: int) -> Tensor:
    """Average latents (C, h, w) over squares of `factor`, including partial squares at the edges."""
    if factor == 1:
        return latents
    return functional.avg_pool2d(latents, factor, ceil_mode=True)


def to_uint8(pixels: Tensor) -> Tensor:
    """Pixels (3, H, W) in about -1..1 -> bytes (H, W, 3) on the CPU; truncated as in the official code."""
    levels = (pixels.float() * 0.5 + 0.5).clamp(0, 1) * 255
    return levels.permute(1, 2, 0).to(torch.uint8).cpu()

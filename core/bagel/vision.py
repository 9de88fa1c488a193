"""Images for understanding: the SigLIP encoder and the projection into the language model.

Axes: L patches, D hidden size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.bagel.layers import MLP, PositionTable
from core.bagel.linear import Linear
from core.geometry import BagelConfig, VisionConfig


class VisionAttention(nn.Module):
    """Self-attention over the patches of one image."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (
            Linear(width, width),
            Linear(width, width),
            Linear(width, width),
        )
        self.out_proj = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (project(x).unflatten(-1, (self.heads, -1)) for project in (self.q_proj, self.k_proj, self.v_proj))
        out = functional.scaled_dot_product_attention(*(part.transpose(0, 1)[None] for part in (q, k, v)))
        projected: Tensor = self.out_proj(out[0].transpose(0, 1).flatten(1))
        return projected


class VisionLayer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.layer_norm1 = nn.LayerNorm(width, config.norm_eps)
        self.self_attn = VisionAttention(width, config.num_heads)
        self.layer_norm2 = nn.LayerNorm(width, config.norm_eps)
        self.mlp = MLP(width, config.intermediate_size, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class VisionTransformer(nn.Module):
    """Patches (L, 3 * patch²) at `positions` (L,) -> features (L, D)."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.patch_embedding = Linear(3 * config.patch_px**2, width)
        self.position_embedding = nn.Embedding(config.num_positions, width)
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.num_layers))
        self.post_layernorm = nn.LayerNorm(width, config.norm_eps)

    def forward(self, patches: Tensor, positions: Tensor) -> Tensor:
        x = self.patch_embedding(patches) + self.position_embedding(positions)
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.post_layernorm(x)
        return out


class VisionEmbedder(nn.Module):
    """Embeds the patches of an image for the language model."""

    def __init__(self, config: BagelConfig) -> None:
        super().__init__()
        width = config.decoder.hidden_size
        self.vit = VisionTransformer(config.vision)
        self.connector = MLP(config.vision.hidden_size, width, width)
        self.vit_pos_embed = PositionTable(config.vision_side**2, width)

    def forward(self, patches: Tensor, positions: Tensor) -> Tensor:
        """Patches (L, 3 * patch²) at `positions` (L,) -> tokens (L, D)."""
        out: Tensor = self.connector(self.vit(patches, positions)) + self.vit_pos_embed(positions)
        return out


def to_patches(pixels: Tensor, patch: int) -> Tensor:
    """Pixels (3, rows * patch, columns * patch) -> (rows * columns, patch² * 3), channels last."""
    _, height, width = pixels.shape
    grid = pixels.view(3, height // patch, patch, width // patch, patch)
    return grid.permute(1, 3, 2, 4, 0).reshape(-1, patch * patch * 3)


def grid_positions(rows: int, columns: int, side: int) -> Tensor:
    """The positions of a grid's tokens in a table with `side` columns: row * side + column, (rows * columns,)."""
    return (torch.arange(rows)[:, None] * side + torch.arange(columns)).flatten()

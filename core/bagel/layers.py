"""Basic layers of the networks.

Axes: B packed branches, L tokens, S keys, N query heads, M key-value heads, G = N / M, H head dim, D hidden size.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.bagel.linear import Linear

TIME_SINUSOIDS = 256
TIME_PERIOD = 10_000.0


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis (Zhang & Sennrich 2019), in float32 for any dtype of the weights."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


class JointLinear(Linear):
    """Linear layers with the same input, as one product.

    Args:
        width: numbers of the input.
        parts: the layers' names in a checkpoint, which stores them separately, and the width of their outputs.
        bias: whether they have one.
    """

    def __init__(self, width: int, parts: Mapping[str, int], *, bias: bool) -> None:
        super().__init__(width, sum(parts.values()), bias=bias)
        self.parts = parts


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)), as in Qwen2."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_up_proj = JointLinear(width, {"gate_proj": inner, "up_proj": inner}, bias=False)
        self.down_proj = Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        out: Tensor = self.down_proj(functional.silu(gate) * up)
        return out


class MLP(nn.Module):
    """fc2(gelu(fc1(x))) with the tanh form of GELU."""

    def __init__(self, width: int, inner: int, out: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, inner)
        self.fc2 = Linear(inner, out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))
        return out


class PositionTable(nn.Module):
    """Position vectors as the checkpoint stores them (2-D sines and cosines)."""

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.empty(positions, width))

    def forward(self, ids: Tensor) -> Tensor:
        return self.pos_embed[ids]


class TimeEmbedder(nn.Module):
    """The time of a latent (1 noise, 0 image) as a vector: sinusoids (cosines first), then an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(Linear(TIME_SINUSOIDS, width), nn.SiLU(), Linear(width, width))

    def forward(self, time: Tensor, dtype: torch.dtype) -> Tensor:
        """`time` (1,) float32 -> (1, D) in the `dtype` of the weights."""
        half = TIME_SINUSOIDS // 2
        steps = torch.arange(half, dtype=torch.float32, device=time.device)
        angles = time[:, None] * torch.exp(steps * (-math.log(TIME_PERIOD) / half))
        out: Tensor = self.mlp(torch.cat((angles.cos(), angles.sin()), dim=-1).to(dtype))
        return out


class Rotary(NamedTuple):
    """Rotation factors of a pack's positions, float32 (B, L or 1, 1, H)."""

    cos: Tensor
    sin: Tensor
    """With its first half negated, so that a rotation is one roll and two products."""


def rotary(positions: Tensor, head_dim: int, theta: float) -> Rotary:
    """Factors for `positions` (B, L or 1): angle p * theta^(-2i/H) for the pair i (RoFormer, Su et al. 2021)."""
    powers = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angles = (positions.float()[..., None] * theta**-powers)[:, :, None]
    sin = angles.sin()
    return Rotary(torch.cat((angles.cos(),) * 2, dim=-1), torch.cat((-sin, sin), dim=-1))


def rotate(x: Tensor, by: Rotary) -> Tensor:
    """Rotate the pairs (i, i + H/2) of `x` (B, L, heads, H)."""
    half = x.shape[-1] // 2
    return torch.addcmul(x * by.cos, x.roll(half, dims=-1), by.sin).to(x.dtype)


def causal_mask(length: int, context: int, device: torch.device) -> Tensor:
    """Mask of a text: each token sees all `context` tokens and the text up to itself; bool (L, context + L)."""
    return torch.ones(length, context + length, dtype=torch.bool, device=device).tril(context)


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention of grouped query heads, without repeating keys.

    Args:
        queries: (L, N, H).
        keys: (S, M, H), any row stride.
        values: like keys.
        mask: bool (L, S), or None when every query sees every key.

    Returns:
        (L, N * H)
    """
    length, heads, head_dim = queries.shape
    kv_heads = keys.shape[1]
    k, v = keys.transpose(0, 1), values.transpose(0, 1)
    q = queries.view(length, kv_heads, heads // kv_heads, head_dim)
    if mask is None:
        # The query heads of a group share their keys, so they can be treated as additional rows of one head.
        q = q.transpose(0, 1).reshape(1, kv_heads, -1, head_dim)
        out = functional.scaled_dot_product_attention(q, k[None], v[None])
        return out.view(kv_heads, length, -1, head_dim).transpose(0, 1).reshape(length, -1)
    group = (-1, q.shape[2], -1, -1)
    out = functional.scaled_dot_product_attention(
        q.permute(1, 2, 0, 3), k[:, None].expand(group), v[:, None].expand(group), attn_mask=mask
    )
    return out.permute(2, 0, 1, 3).reshape(length, -1)

"""Basic layers of the networks.

Axes: L tokens, N heads, H head dim, D hidden size.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.bagel.fused import rms_norm, silu_mul
from core.bagel.linear import Linear, linear_add

TIME_SINUSOIDS = 256
TIME_PERIOD = 10_000.0


class RMSNorm(nn.Module):
    """See fused.rms_norm."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


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


def add_product(residual: Tensor, project: nn.Module, x: Tensor) -> Tensor:
    """The sum of `residual` and project(x), as one product unless the layer is quantized; `project` has no bias."""
    if isinstance(project, nn.Linear):
        return linear_add(x, project.weight, residual)
    out: Tensor = project(x).add_(residual)
    return out


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)), as in Qwen2."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_up_proj = JointLinear(width, {"gate_proj": inner, "up_proj": inner}, bias=False)
        self.down_proj = Linear(inner, width, bias=False)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """`residual` plus the output for `x`."""
        return add_product(residual, self.down_proj, silu_mul(self.gate_up_proj(x)))


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
    """Times of latents (1 noise, 0 image) as vectors: sinusoids (cosines first), then an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(Linear(TIME_SINUSOIDS, width), nn.SiLU(), Linear(width, width))

    def forward(self, times: Tensor, dtype: torch.dtype) -> Tensor:
        """`times` (T,) float32 -> (T, D) in the `dtype` of the weights."""
        half = TIME_SINUSOIDS // 2
        steps = torch.arange(half, dtype=torch.float32, device=times.device)
        angles = times[:, None] * torch.exp(steps * (-math.log(TIME_PERIOD) / half))
        out: Tensor = self.mlp(torch.cat((angles.cos(), angles.sin()), dim=-1).to(dtype))
        return out


class Rotary(NamedTuple):
    """Rotation factors of a block's positions, float32 (L or 1, H)."""

    cos: Tensor
    sin: Tensor
    """With its first half negated, so that a rotation is one roll and two products."""


class Frequencies(NamedTuple):
    """What all rotations have in common: the angle of each number of a head at position 1, and its sign in Rotary."""

    angles: Tensor
    signs: Tensor

    @staticmethod
    def of(head_dim: int, theta: float, device: torch.device) -> "Frequencies":
        """The angle is theta^(-2i/H) for the pair i, the numbers i and i + H/2 (RoFormer, Su et al. 2021)."""
        powers = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
        signs = torch.ones(head_dim, device=device)
        signs[: head_dim // 2] = -1
        return Frequencies((theta**-powers).repeat(2), signs)

    def at(self, positions: Tensor) -> Rotary:
        """The factors for `positions` (L or 1,)."""
        angles = positions[:, None] * self.angles
        return Rotary(angles.cos(), angles.sin() * self.signs)

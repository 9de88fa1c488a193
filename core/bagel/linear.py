"""Products with weights: what torch.nn.functional.linear computes, by oneDNN on a CPU where that is faster.

PyTorch multiplies float32 matrices by MKL, which does not use AVX-512 on processors of AMD; oneDNN does, and takes
half the time there. MKL is faster for few rows.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

ONEDNN_ROWS = 12
"""The number of rows from which oneDNN multiplies. Fixed, so that a block of the same size gives the same numbers."""

_ONEDNN_BESIDE_MKL = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x @ weight.T + bias, for `x` (..., K), `weight` (N, K) and `bias` (N,)."""
    if not _is_by_onednn(x, weight):
        return functional.linear(x, weight, bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def linear_add(x: Tensor, weight: Tensor, residual: Tensor) -> Tensor:
    """Return residual + x @ weight.T, as one product, for `x` (..., K), `weight` (N, K) and `residual` (..., N)."""
    if not _is_by_onednn(x, weight):
        rows = residual.reshape(-1, residual.shape[-1])
        return torch.addmm(rows, x.reshape(-1, x.shape[-1]), weight.t()).view(residual.shape)
    out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, weight, None, "add")
    return out


def is_for_onednn(x: Tensor) -> bool:
    """Whether oneDNN may multiply `x`, in place of MKL."""
    return _ONEDNN_BESIDE_MKL and x.is_cpu and x.dtype is torch.float32


def _is_by_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        is_for_onednn(x)
        and weight.dtype is torch.float32
        and x.numel() >= ONEDNN_ROWS * x.shape[-1]
        and weight.is_contiguous()  # oneDNN takes a thousand times as long for rows with gaps
    )


class Linear(nn.Linear):
    """A linear layer that multiplies as `linear` does."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)

"""Quantized weights of the experts, for cards with less memory: int8 and fp8 with torch, nf4 with bitsandbytes.

Norms, embeddings, heads, the ViT and the autoencoder keep the network's dtype. Axes: D input width, E output width.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.bagel.fused import int8_row, int8_rows

INT8_MAX = 127
FP8 = torch.float8_e4m3fn
FP8_CAPABILITY = (8, 9)
"""The first CUDA compute capability with products of 8-bit floats (Ada)."""
NF4_BLOCK = 64
"""Weights with a common scale."""


class Int8Linear(nn.Module):
    """A linear layer with 8-bit integers and a scale for each row; its products are in the dtype of the input."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        # Rounded to the dtype before it is used, so that the weights' rounding makes up for it.
        scale = (weight.abs().amax(dim=1, keepdim=True) / INT8_MAX).clamp(min=torch.finfo(weight.dtype).tiny)
        self.weight = _constant((weight / scale).round().clamp(-INT8_MAX, INT8_MAX).to(torch.int8))
        self.scale = _constant(scale[:, 0])
        self.bias = None if bias is None else _constant(bias)

    def forward(self, x: Tensor) -> Tensor:
        product = int8_row if x.numel() == x.shape[-1] else int8_rows
        return product(x, self.weight, self.scale, self.bias)


class Fp8Linear(nn.Module):
    """A linear layer with 8-bit floats (e4m3) and a scale for each row; so is its input, quantized row by row."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        quantized, scale = _to_fp8(weight)
        self.weight, self.scale = _constant(quantized), _constant(scale)
        self.bias = None if bias is None else _constant(bias)

    def forward(self, x: Tensor) -> Tensor:
        rows, scale = _to_fp8(x.reshape(-1, x.shape[-1]))
        by_row = functional.ScalingType.RowWise
        # Products with a scale for each row come in bfloat16 on all devices.
        out = functional.scaled_mm(rows, self.weight.t(), scale, by_row, self.scale.t(), by_row).to(x.dtype)
        return (out if self.bias is None else out + self.bias).view(*x.shape[:-1], -1)


class Nf4Linear(nn.Module):
    """A linear layer with 4-bit normal floats and a scale for each 64 weights (QLoRA, Dettmers et al. 2023)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        # Imported here because it is an optional dependency.
        from bitsandbytes.functional import quantize_4bit  # noqa: PLC0415

        super().__init__()
        packed, state = quantize_4bit(weight, blocksize=NF4_BLOCK, compress_statistics=False, quant_type="nf4")
        self.shape = list(weight.shape)
        self.weight, self.scale = _constant(packed), _constant(state.absmax)
        self.bias = None if bias is None else _constant(bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.bitsandbytes.gemm_4bit.default(
            x, self.weight, self.shape, self.scale, NF4_BLOCK, "nf4", bias=self.bias
        )
        return out


METHODS: Mapping[str, Callable[[Tensor, Tensor | None], nn.Module]] = {
    "int8": Int8Linear,
    "nf4": Nf4Linear,
    "fp8": Fp8Linear,
}


def check_method(method: str, device: str) -> None:
    """Raises ValueError if the method is unknown, or `device` or this installation can't compute with it."""
    if method not in METHODS:
        raise ValueError(f"quantize is {method!r}; allowed: {', '.join(METHODS)}")
    if method == "nf4":
        try:
            import bitsandbytes  # noqa: F401, PLC0415
        except ImportError as error:
            raise ValueError("quantize nf4 needs bitsandbytes: pip install 'autosequence[quantize]'") from error
    if method == "fp8" and device != "cpu" and torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        name = torch.cuda.get_device_name(device)
        raise ValueError(f"quantize fp8 needs compute capability 8.9 or later, which {name} lacks; allowed: int8, nf4")


def quantize_experts(layer: nn.Module, method: str) -> None:
    """Replace the linear layers of a decoder layer's experts by quantized ones, on their device."""
    for parent in list(layer.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                with torch.no_grad():
                    setattr(parent, name, METHODS[method](child.weight, child.bias))


def _constant(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach(), requires_grad=False)


def _to_fp8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (R, D) as 8-bit floats, and their scales (R, 1) float32."""
    largest = torch.finfo(FP8).max
    scale = rows.abs().amax(dim=1, keepdim=True).float().clamp(min=torch.finfo(torch.float32).tiny) / largest
    return (rows / scale).clamp(-largest, largest).to(FP8), scale

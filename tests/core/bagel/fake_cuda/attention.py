"""Which attention kernel PyTorch would choose on CUDA: the conditions of its sdp_utils.cpp (2.9 to 2.13), restated."""

from dataclasses import dataclass

import torch
from torch import Tensor

CAPABILITIES = (80, 90)
HALF = (torch.bfloat16, torch.float16)
CUDNN_MAX_DIM, FLASH_MAX_DIM = 128, 256
ALIGNED = {torch.bfloat16: 8, torch.float16: 8, torch.float32: 4}
"""Of the head dim, for the memory-efficient kernel."""


@dataclass(frozen=True)
class Attention:
    """The inputs of one call: queries, keys and values (..., heads, tokens, H)."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    causal: bool
    grouped: bool

    @property
    def is_dense(self) -> bool:
        """Four axes, and the last one without gaps."""
        inputs = (self.q, self.k, self.v) if self.mask is None else (self.q, self.k, self.v, self.mask)
        return self.q.dim() == self.k.dim() == self.v.dim() == 4 and all(t.stride(-1) == 1 for t in inputs)

    @property
    def matches(self) -> bool:
        """Query heads and key heads are as many, or the kernel is told that they are grouped."""
        return self.q.shape[:-2] == self.k.shape[:-2] or self.grouped


def backend(call: Attention, capability: int, *, cudnn: bool = True) -> str:
    """cudnn, flash, efficient or math, on a GPU of this compute capability with a recent cuDNN.

    CausalBias never asks cuDNN (`cudnn`).
    """
    dim, half = call.q.shape[-1], call.q.dtype in HALF
    fits = call.is_dense and call.matches
    cudnn = cudnn and half and fits and dim <= CUDNN_MAX_DIM and dim % 8 == 0 and call.k.shape[-2] != 1
    square = not call.causal or call.q.shape[-2] == call.k.shape[-2]
    flash = half and fits and dim <= FLASH_MAX_DIM and call.mask is None and square
    efficient = fits and not call.grouped and dim % ALIGNED.get(call.q.dtype, dim + 1) == 0
    able = {
        "cudnn": cudnn and torch._C._get_cudnn_sdp_enabled(),
        "flash": flash and torch._C._get_flash_sdp_enabled(),
        "efficient": efficient and torch._C._get_mem_efficient_sdp_enabled(),
    }
    order = ("cudnn", "flash", "efficient") if capability == 90 else ("flash", "efficient", "cudnn")
    return next((name for name in order if able[name]), "math")

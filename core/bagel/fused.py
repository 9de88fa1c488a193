"""The parts of a decoder layer that take several small kernels in PyTorch, and one with Triton.

Each is written here with PyTorch's operations, for the CPU, and in triton_kernels.py for CUDA. The Triton form is a
custom op, so that a trace or a fake tensor sees one operation. Kernels are fixed, never chosen by timing.

Axes: L tokens, S rows of a cache, N query heads, M key-value heads, H head dim, I inner size of the MLP, K and E input
and output width of a product.
"""

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial, wraps
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

AMPERE = (8, 0)
"""The oldest compute capability for which the kernels are compiled and tested."""
C_COMPILERS = ("cc", "gcc", "clang")

Op = TypeVar("Op", bound=Callable[..., Any])

logger = logging.getLogger(__name__)


@dataclass
class Kernels:
    """Whether CUDA tensors go to the Triton kernels. It holds for the process, like the registry of custom ops."""

    wanted: bool = True
    enabled: bool = field(default_factory=lambda: find_spec("triton") is not None)

    def choose(self, device: torch.device) -> None:
        """Enable them if they are wanted and can run on `device`; otherwise log what is missing."""
        missing = _missing(device) if self.wanted and device.type == "cuda" else None
        if missing:
            logger.warning("PyTorch's operations replace the fused kernels: %s", missing)
        self.enabled = self.wanted and device.type == "cuda" and missing is None


KERNELS = Kernels()
LIBRARY = torch.library.Library("autosequence", "DEF")  # type: ignore[no-untyped-call]


def _missing(device: torch.device) -> str | None:
    """What the kernels need and this process lacks."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    # Triton compiles the launch of its kernels at run time.
    if not os.environ.get("CC") and not any(map(shutil.which, C_COMPILERS)):
        return "there is no C compiler"
    if torch.cuda.get_device_capability(device) < AMPERE:
        return "the GPU is older than Ampere"
    return None


def _fused(schema: str, fake: Callable[..., Tensor | None]) -> Callable[[Op], Op]:
    """Register a function as a custom op with its namesake in triton_kernels.py for CUDA tensors.

    Args:
        schema: its arguments and result.
        fake: the result's shape and dtype, without data.
    """

    def register(eager: Op) -> Op:
        name = eager.__name__
        LIBRARY.define(name + schema)  # type: ignore[no-untyped-call]
        LIBRARY.impl(name, eager, "CPU")  # type: ignore[no-untyped-call]
        LIBRARY.impl(name, partial(_launch, name), "CUDA")  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"autosequence::{name}", fake, lib=LIBRARY)
        op = getattr(torch.ops.autosequence, name).default

        @wraps(eager)
        def choose(x: Tensor, *others: object) -> Tensor | None:
            # The CPU's form is called directly: the registry of ops has an overhead of its own.
            out: Tensor | None = (op if KERNELS.enabled and x.is_cuda else eager)(x, *others)
            return out

        return choose  # type: ignore[return-value]  # the same arguments, by position

    return register


def _launch(name: str, *arguments: object) -> Tensor | None:
    from core.bagel import triton_kernels  # noqa: PLC0415 (Triton may be absent, and is needed on CUDA alone)

    out: Tensor | None = getattr(triton_kernels, name)(*arguments)
    return out


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last axis (Zhang & Sennrich 2019), in float32 for any dtype of the weights."""
    if not x.is_cpu or x.dtype is not torch.float32:
        return functional.rms_norm(x, weight.shape, weight, eps)
    # PyTorch has a kernel for it on CUDA alone; this takes fewer passes over `x` than its operations on the CPU.
    scale: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return (x * scale).mul_(weight)


@_fused("(Tensor gate_up) -> Tensor", lambda x: x.new_empty((*x.shape[:-1], x.shape[-1] // 2)))
def silu_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) * up for a joint projection (..., 2I), gate first; (..., I)."""
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate).mul_(up)


@_fused(
    "(Tensor qkv, Tensor q_weight, Tensor k_weight, float eps, Tensor cos, Tensor sin, "
    "Tensor(a!) queries, Tensor(b!) keys, Tensor(c!) values, Tensor? row=None) -> ()",
    lambda *_: None,
)
def norm_rotate_put(  # noqa: PLR0913, PLR0917 - one kernel
    qkv: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    eps: float,
    cos: Tensor,
    sin: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    row: Tensor | None = None,
) -> None:
    """Normalize and rotate the query and key heads of a block, and write queries, keys and values where they belong.

    Args:
        qkv: the joint projection of the block, (L, (N + 2M) * H): query, key and value heads.
        q_weight: weight of the RMS norm of the query heads, (H,).
        k_weight: the same for the key heads.
        eps: of both norms.
        cos: rotation factors (L or 1, H), float32.
        sin: like cos, with the first half of H negated (see layers.Rotary).
        queries: written; (L, N, H), rows at any stride.
        keys: written; (L, M, H), or with `row` a whole buffer (S, M, H).
        values: like keys.
        row: int64 (1,), on the device: the row of the buffers to which a single token goes (L = 1).
    """
    head_dim, kv_heads = q_weight.shape[0], keys.shape[1]
    heads = (queries.shape[1], kv_heads, kv_heads)
    q, k, v = qkv.view(qkv.shape[0], -1, head_dim).split_with_sizes(heads, dim=1)
    cos, sin = cos[:, None], sin[:, None]
    _rotated(rms_norm(q, q_weight, eps), cos, sin, queries)
    k = rms_norm(k, k_weight, eps)
    if row is None:
        _rotated(k, cos, sin, keys)
        values.copy_(v)
    else:
        keys.index_copy_(0, row, _rotated(k, cos, sin, torch.empty_like(k)))
        values.index_copy_(0, row, v)


@_fused(
    "(Tensor query, Tensor keys, Tensor values, int first, Tensor length) -> Tensor",
    lambda query, *_: torch.empty_like(query),
)
def decode_attention(query: Tensor, keys: Tensor, values: Tensor, first: int, length: Tensor) -> Tensor:
    """Softmax attention of a single token over a range of rows.

    Args:
        query: (N, H).
        keys: (S, M, H), rows at any stride.
        values: like keys.
        first: the first row that the token attends to.
        length: int64 (1,), on the device: the number of rows that it attends to. The result depends on these rows
            alone, never on S.

    Returns:
        (N, H)
    """
    rows = slice(first, first + int(length))
    q = query.view(1, keys.shape[1], -1, query.shape[1])
    k, v = keys[rows].transpose(0, 1), values[rows].transpose(0, 1)
    return functional.scaled_dot_product_attention(q, k[None], v[None]).view(query.shape)


def int8_rows(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """Products of `x` (..., K) with int8 weights (E, K), each row of them with its scale (E,), plus the bias (E,)."""
    out = functional.linear(x, weight.to(x.dtype))
    return out * scale if bias is None else torch.addcmul(bias, out, scale)


@_fused(
    "(Tensor x, Tensor weight, Tensor scale, Tensor? bias) -> Tensor",
    lambda x, weight, *_: x.new_empty((*x.shape[:-1], weight.shape[0])),
)
def int8_row(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """Like int8_rows for a single row, without a copy of the weights in the dtype of `x`."""
    return int8_rows(x, weight, scale, bias)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> Tensor:
    """Rotate the pairs (i, i + H/2) of `x` (L, heads, H) in float32, into `out`."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin, out=out)

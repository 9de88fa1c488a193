"""The parts of a decoder layer that take several small kernels in PyTorch.

Axes: L tokens, S rows of a cache, N query heads, M key-value heads, H head dim, I inner size of the MLP.
"""

import torch
from torch import Tensor
from torch.nn import functional


def silu_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) * up for a joint projection (..., 2I), gate first; (..., I)."""
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate).mul_(up)


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
    _rotated(functional.rms_norm(q, (head_dim,), q_weight, eps), cos, sin, queries)
    k = functional.rms_norm(k, (head_dim,), k_weight, eps)
    if row is None:
        _rotated(k, cos, sin, keys)
        values.copy_(v)
    else:
        keys.index_copy_(0, row, _rotated(k, cos, sin, torch.empty_like(k)))
        values.index_copy_(0, row, v)


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


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> Tensor:
    """Rotate the pairs (i, i + H/2) of `x` (L, heads, H) in float32, into `out`."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin, out=out)

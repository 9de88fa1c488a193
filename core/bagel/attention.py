"""Attention of a block to the rows of a cache: the one place that chooses how it is computed.

Axes: L tokens, S rows, N query heads, M key-value heads, H head dim.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.bias import CausalBias, causal_lower_right

from core.bagel.linear import is_for_onednn, linear

ONEDNN_KEYS = 256
"""Rows from which products by oneDNN are faster than PyTorch's attention on a CPU. Fixed, like all that rounds."""


def attend(queries: Tensor, keys: Tensor, values: Tensor, *, causal: bool) -> Tensor:
    """Softmax attention of grouped query heads, without repeating keys.

    Images are left to PyTorch: an image computes with the same shapes in all of its steps. Texts are not, as each has
    another length and cuDNN, PyTorch's first choice on Hopper, prepares a plan for each length.

    Args:
        queries: (L, N, H).
        keys: (S, M, H), any row stride.
        values: like keys.
        causal: whether each token sees only the rows up to its own, which are the last L ones.

    Returns:
        (L, N * H)
    """
    if not causal and len(keys) >= ONEDNN_KEYS and is_for_onednn(queries):
        return _by_products(queries, keys, values)
    # On CUDA this bias is computed by flash attention, without a mask, also for a single token.
    bias = _causal_bias(len(queries), len(keys)) if causal and (len(queries) > 1 or queries.is_cuda) else None
    q, k, v = (part.transpose(0, 1)[None] for part in (queries, keys, values))
    out = functional.scaled_dot_product_attention(q, k, v, bias, enable_gqa=True)
    return out[0].transpose(0, 1).flatten(1)


@lru_cache(maxsize=64)
def _causal_bias(tokens: int, rows: int) -> CausalBias:
    """One for all layers; it has no numbers, so that its device does not matter."""
    return causal_lower_right(tokens, rows)


def _by_products(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of all queries to all rows as two products for each key-value head, on a CPU."""
    tokens, heads, head_dim = queries.shape
    grouped = (queries * head_dim**-0.5).view(tokens, keys.shape[1], -1, head_dim)
    out = torch.empty_like(grouped)
    for head in range(keys.shape[1]):
        scores = linear(grouped[:, head].reshape(-1, head_dim), keys[:, head].contiguous())
        weights = torch.softmax(scores, dim=-1, out=scores)
        out[:, head] = linear(weights, values[:, head].t().contiguous()).view(tokens, -1, head_dim)
    return out.view(tokens, heads * head_dim)

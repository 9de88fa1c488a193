"""Attention of a block to the rows of a cache: the one place that chooses how it is computed.

Axes: L tokens, S rows, N query heads, M key-value heads, H head dim.
"""

from functools import lru_cache

from torch import Tensor
from torch.nn import functional
from torch.nn.attention.bias import CausalBias, causal_lower_right


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
    # On CUDA this bias is computed by flash attention, without a mask, also for a single token.
    bias = _causal_bias(len(queries), len(keys)) if causal and (len(queries) > 1 or queries.is_cuda) else None
    q, k, v = (part.transpose(0, 1)[None] for part in (queries, keys, values))
    out = functional.scaled_dot_product_attention(q, k, v, bias, enable_gqa=True)
    return out[0].transpose(0, 1).flatten(1)


@lru_cache(maxsize=64)
def _causal_bias(tokens: int, rows: int) -> CausalBias:
    """One for all layers; it has no numbers, so that its device does not matter."""
    return causal_lower_right(tokens, rows)

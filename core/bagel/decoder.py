"""The language model: a Qwen2 decoder with two sets of weights, one for understanding and one for generation.

Axes: B packed branches, L tokens, N query heads, M key-value heads, H head dim, D hidden size. A pack is B blocks of
the same shape, one per context. Linear layers process the whole pack, attention processes one block at a time.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from core.bagel.context import CacheView, TokenView
from core.bagel.fused import decode_attention, norm_rotate_put
from core.bagel.layers import GatedMLP, JointLinear, RMSNorm, Rotary, attend, rotate
from core.bagel.linear import Linear
from core.geometry import DecoderConfig


class Expert(nn.Module):
    """The weights of one expert in a layer: everything except the attention itself, which the experts share."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width, heads, kv_heads, head_dim = config.hidden_size, config.num_heads, config.num_kv_heads, config.head_dim
        widths = {"q_proj": heads * head_dim, "k_proj": kv_heads * head_dim, "v_proj": kv_heads * head_dim}
        self.head_dim = head_dim
        self.input_layernorm = RMSNorm(width, config.norm_eps)
        self.qkv_proj = JointLinear(width, widths, bias=True)
        self.q_norm = RMSNorm(head_dim, config.norm_eps)
        self.k_norm = RMSNorm(head_dim, config.norm_eps)
        self.o_proj = Linear(heads * head_dim, width, bias=False)
        self.post_attention_layernorm = RMSNorm(width, config.norm_eps)
        self.mlp = GatedMLP(width, config.intermediate_size)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states (B, L, D) -> queries (B, L, N, H), keys and values (B, L, M, H), before rotation."""
        parts = self.qkv_proj(self.input_layernorm(x)).split(list(self.qkv_proj.parts.values()), dim=-1)
        queries, keys, values = (part.unflatten(-1, (-1, self.head_dim)) for part in parts)
        return self.q_norm(queries), self.k_norm(keys), values

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of the layer, from hidden states (B, L, D) and the output of attention (B, L, N * H)."""
        x = x + self.o_proj(attended)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class DecoderLayer(nn.Module):
    """Two experts with a shared attention."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.understanding = Expert(config)
        self.generation = Expert(config)

    def forward(
        self,
        und: Tensor,
        gen: Tensor | None,
        by: Rotary,
        views: Sequence[CacheView] | TokenView,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """One layer over a pack of blocks.

        Args:
            und: understanding tokens (B, L, D); in an image block, the two markers around the latents.
            gen: latents (B, L, D), or None.
            by: rotation for the positions of the pack.
            views: the context of each of the B blocks, or that of a single token (B = L = 1).
            mask: bool (L, keys) for a single text block, else None.
        """
        if isinstance(views, TokenView):
            return self._next_token(und, by, views), None
        queries, keys, values = self.understanding.project(und)
        if gen is not None:
            projected = self.generation.project(gen)
            queries, keys, values = (_inside(*pair) for pair in zip((queries, keys, values), projected, strict=True))
        queries, keys = rotate(queries, by), rotate(keys, by)
        attended = [
            attend(q, *view.put(self.index, k, v), mask)
            for q, k, v, view in zip(queries, keys, values, views, strict=True)
        ]
        if gen is None:
            return self.understanding.finish(und, torch.stack(attended)), None
        markers = torch.stack([block[:: len(block) - 1] for block in attended])
        latents = torch.stack([block[1:-1] for block in attended])
        return self.understanding.finish(und, markers), self.generation.finish(gen, latents)

    def _next_token(self, x: Tensor, by: Rotary, view: TokenView) -> Tensor:
        """The layer for one token (1, 1, D): nothing that the host does depends on the token's place."""
        expert = self.understanding
        qkv = expert.qkv_proj(expert.input_layernorm(x))[0]
        heads, kv_heads = (expert.qkv_proj.parts[name] // expert.head_dim for name in ("q_proj", "k_proj"))
        queries = qkv.new_empty(1, heads, expert.head_dim)
        keys, values, first = view.buffers(self.index, queries[:, :kv_heads])
        norms = expert.q_norm.weight, expert.k_norm.weight, expert.q_norm.eps
        row, length = view.on(x.device)
        norm_rotate_put(qkv, *norms, by.cos[0, :, 0], by.sin[0, :, 0], queries, keys, values, row)
        attended = decode_attention(queries[0], keys, values, first, length)
        return expert.finish(x, attended.view(1, 1, -1))


def _inside(markers: Tensor, latents: Tensor) -> Tensor:
    """Latents between their start and end markers, along the token axis."""
    return torch.cat((markers[:, :1], latents, markers[:, 1:]), dim=1)


class Decoder(nn.Module):
    """All layers, with the final norm of each expert."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, index) for index in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.norm_moe_gen = RMSNorm(config.hidden_size, config.norm_eps)

    def forward(
        self,
        und: Tensor,
        gen: Tensor | None,
        by: Rotary,
        views: Sequence[CacheView] | TokenView,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """All layers over a pack of blocks (see DecoderLayer); the hidden states are not normalized yet."""
        for layer in self.layers:
            und, gen = layer(und, gen, by, views, mask)
        return und, gen

"""The language model: a Qwen2 decoder with two sets of weights, one for understanding and one for generation.

Axes: B packed branches, L tokens, N query heads, M key-value heads, H head dim, D hidden size. A pack is B blocks of
the same shape, one per context. Linear layers process the whole pack, attention processes one block at a time.
"""

from collections.abc import Sequence
from enum import Enum, auto

import torch
from torch import Tensor, nn

from core.bagel.context import Block, Token, View
from core.bagel.fused import norm_rotate_put
from core.bagel.layers import GatedMLP, JointLinear, RMSNorm, Rotary, add_product
from core.bagel.linear import Linear
from core.geometry import DecoderConfig


class Wanted(Enum):
    """What a pack is computed for; the last layer leaves out the rest."""

    CONTEXT = auto()
    """Keys and values in the cache."""
    TEXT = auto()
    """The hidden states of text tokens."""
    LATENTS = auto()
    """The hidden states of latents."""
    LAYERS = auto()
    """All hidden states, for the next layer."""


class Expert(nn.Module):
    """The weights of one expert in a layer: everything except the attention itself, which the experts share."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width, heads, kv_heads, head_dim = config.hidden_size, config.num_heads, config.num_kv_heads, config.head_dim
        widths = {"q_proj": heads * head_dim, "k_proj": kv_heads * head_dim, "v_proj": kv_heads * head_dim}
        self.input_layernorm = RMSNorm(width, config.norm_eps)
        self.qkv_proj = JointLinear(width, widths, bias=True)
        self.q_norm = RMSNorm(head_dim, config.norm_eps)
        self.k_norm = RMSNorm(head_dim, config.norm_eps)
        self.o_proj = Linear(heads * head_dim, width, bias=False)
        self.post_attention_layernorm = RMSNorm(width, config.norm_eps)
        self.mlp = GatedMLP(width, config.intermediate_size)

    def project(self, x: Tensor) -> Tensor:
        """Hidden states (B, L, D) -> queries, keys and values, (B, L, (N + 2M) * H)."""
        projected: Tensor = self.qkv_proj(self.input_layernorm(x))
        return projected

    def put(self, projected: Tensor, by: Rotary, queries: Tensor, place: Block | Token, rows: slice | None) -> None:
        """Write the queries, keys and values of a block, or of the `rows` of an image block that are this expert's."""
        parts = queries, place.keys, place.values
        if rows is not None:
            parts = queries[rows], place.keys[rows], place.values[rows]
        norms = self.q_norm.weight, self.k_norm.weight, self.q_norm.eps
        norm_rotate_put(projected, *norms, by.cos, by.sin, *parts, place.row)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of the layer, from hidden states (B, L, D) and the output of attention (B, L, N * H)."""
        x = add_product(x, self.o_proj, attended)
        out: Tensor = self.mlp(self.post_attention_layernorm(x), residual=x)
        return out


class DecoderLayer(nn.Module):
    """Two experts with a shared attention."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.heads = config.num_heads, config.head_dim
        self.understanding = Expert(config)
        self.generation = Expert(config)

    def forward(
        self, und: Tensor, gen: Tensor | None, by: Sequence[Rotary], views: Sequence[View], wanted: Wanted
    ) -> tuple[Tensor, Tensor | None]:
        """One layer over a pack of blocks.

        Args:
            und: understanding tokens (B, L, D); in an image block, the two markers around the latents.
            gen: latents (B, L, D), or None.
            by: rotations for the positions of the B blocks.
            views: their contexts.
            wanted: hidden states that are not wanted are returned as they came.
        """
        und_parts = self.understanding.project(und)
        gen_parts = [None] * len(views) if gen is None else self.generation.project(gen)
        attended = []
        for text, latents, rotation, view in zip(und_parts, gen_parts, by, views, strict=True):
            size = len(text) if latents is None else len(text) + len(latents)
            place, queries = view.place(self.index, size), text.new_empty(size, *self.heads)
            if latents is None:
                self.understanding.put(text, rotation, queries, place, None)
            else:
                self.understanding.put(text, rotation, queries, place, slice(None, None, size - 1))
                self.generation.put(latents, rotation, queries, place, slice(1, -1))
            if wanted is not Wanted.CONTEXT:
                attended.append(place.attend(queries))
        if wanted in {Wanted.TEXT, Wanted.LAYERS}:
            seen = attended if gen is None else [block[:: len(block) - 1] for block in attended]
            und = self.understanding.finish(und, _stacked(seen))
        if gen is not None and wanted in {Wanted.LATENTS, Wanted.LAYERS}:
            gen = self.generation.finish(gen, _stacked([block[1:-1] for block in attended]))
        return und, gen


def _stacked(blocks: Sequence[Tensor]) -> Tensor:
    """Blocks (L, D) as (B, L, D); a single one is not copied."""
    return blocks[0][None] if len(blocks) == 1 else torch.stack(list(blocks))


class Decoder(nn.Module):
    """All layers, with the final norm of each expert."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, index) for index in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.norm_moe_gen = RMSNorm(config.hidden_size, config.norm_eps)

    def forward(
        self, und: Tensor, gen: Tensor | None, by: Sequence[Rotary], views: Sequence[View], wanted: Wanted
    ) -> tuple[Tensor, Tensor | None]:
        """All layers over a pack of blocks (see DecoderLayer); the hidden states are not normalized yet."""
        *layers, last = self.layers
        for layer in layers:
            und, gen = layer(und, gen, by, views, Wanted.LAYERS)
        und, gen = last(und, gen, by, views, wanted)
        return und, gen

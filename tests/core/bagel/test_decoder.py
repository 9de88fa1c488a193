"""The decoder with two equal experts is a plain Qwen2 or Qwen3, as another implementation computes it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from core.bagel.attention import attend
from core.bagel.context import Block, Cache, CacheOffset, CacheView, LayerKV, Token
from core.bagel.decoder import Decoder, DecoderLayer, Expert, Wanted
from core.bagel.layers import Frequencies, Rotary
from core.geometry import DecoderConfig

CONFIG = DecoderConfig(
    vocab_size=50,
    hidden_size=48,
    intermediate_size=64,
    num_layers=3,
    num_heads=6,
    num_kv_heads=2,
    head_dim=8,
    rope_theta=10_000.0,
    norm_eps=1e-6,
)
SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
    "pad_token_id": None,
}


def qwen2() -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(**SHAPE))


def qwen3() -> PreTrainedModel:
    """Qwen2 with norms on queries and keys, as BAGEL has them, and a bias on o_proj, which BAGEL has not."""
    return Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=8, attention_bias=True))


def randomised(model: PreTrainedModel) -> PreTrainedModel:
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3 + ("norm" in name)
        if name.endswith("o_proj.bias"):
            parameter.data.zero_()
    return model


def twin(reference: PreTrainedModel) -> Decoder:
    """Our decoder, both of its experts with the weights of `reference`."""
    decoder = Decoder(CONFIG)
    theirs = reference.state_dict()
    decoder.embed_tokens.weight.data = theirs["model.embed_tokens.weight"]
    for layer in decoder.layers:
        assert isinstance(layer, DecoderLayer)
        for expert in (layer.understanding, layer.generation):
            if isinstance(reference, Qwen2ForCausalLM):
                expert.q_norm = expert.k_norm = nn.Identity()  # type: ignore[assignment]  # Qwen2 has none
                expert.put = partial(put_without_norms, expert)  # type: ignore[method-assign]
            for name, parameter in expert.named_parameters():
                parent, _, kind = name.rpartition(".")
                module = expert.get_submodule(parent)
                names = [f"{parent.rpartition('.')[0]}.{part}".strip(".") for part in getattr(module, "parts", ())]
                parts = [
                    part if part.startswith("mlp") or "layernorm" in part else f"self_attn.{part}"
                    for part in names or [parent]
                ]
                parameter.data = torch.cat([theirs[f"model.layers.{layer.index}.{part}.{kind}"] for part in parts])
    for norm in (decoder.norm, decoder.norm_moe_gen):
        norm.weight.data = theirs["model.norm.weight"]
    return decoder.requires_grad_(requires_grad=False)


def put_without_norms(
    expert: Expert, projected: Tensor, by: Rotary, queries: Tensor, place: Block | Token, rows: slice | None
) -> None:
    """Expert.put for a model that has no norms on queries and keys."""
    widths = list(expert.qkv_proj.parts.values())
    q, k, v = (part.view(len(part), -1, 8) for part in torch.split_with_sizes(projected, widths, dim=-1))
    cos, sin = by.cos[:, None], by.sin[:, None]
    for into, part in ((queries, q), (place.keys, k)):
        into[rows or slice(None)] = part * cos + part.roll(4, dims=-1) * sin
    place.values[rows or slice(None)] = v


def rotation(positions: list[int]) -> list[Rotary]:
    frequencies = Frequencies.of(CONFIG.head_dim, CONFIG.rope_theta, torch.device("cpu"))
    return [frequencies.at(torch.tensor(positions))]


@pytest.mark.parametrize("make", [qwen2, qwen3])
def test_equal_experts_compute_a_text_an_image_block_and_a_text_as_the_reference_does(
    make: Callable[[], PreTrainedModel],
) -> None:
    reference = randomised(make())
    decoder = twin(reference)
    cache = Cache([LayerKV((2, 8), torch.float32, torch.device("cpu")) for _ in range(CONFIG.num_layers)])
    ids = torch.arange(12) * 3 % 50
    embedded = decoder.embed_tokens(ids)[None]

    # A text of 4 tokens, an image block of 5 at one position, a text of 3.
    everything = Wanted.LAYERS
    first, _ = decoder(embedded[:, :4], None, rotation([0, 1, 2, 3]), [at(cache, 0)], everything)
    image = [at(cache, 4, causal=False)]
    markers, latents = decoder(embedded[:, [4, 8]], embedded[:, 5:8], rotation([4]), image, everything)
    last, _ = decoder(embedded[:, 9:], None, rotation([5, 6, 7]), [at(cache, 9)], everything)

    visible = torch.ones(12, 12, dtype=torch.bool).tril()
    visible[4:9, 4:9] = True
    positions = torch.tensor([[0, 1, 2, 3, 4, 4, 4, 4, 4, 5, 6, 7]])
    mask = torch.zeros(12, 12).masked_fill(~visible, torch.finfo(torch.float32).min)[None, None]
    with torch.no_grad():
        expected = reference.model(inputs_embeds=embedded, attention_mask=mask, position_ids=positions)
    found = torch.cat((first, markers[:, :1], latents, markers[:, 1:], last), dim=1)
    torch.testing.assert_close(decoder.norm(found), expected.last_hidden_state, rtol=1e-4, atol=1e-4)


def at(cache: Cache, tokens: int, *, causal: bool = True) -> CacheView:
    return CacheView(cache, CacheOffset(tokens, tokens), kept=True, causal=causal)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_grouped_heads_equals_repeated_keys(*, causal: bool) -> None:
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    queries, keys, values = random(4, 6, 8), random(10, 2, 8), random(10, 2, 8)
    scores = torch.einsum("lnh,snh->nls", queries, keys.repeat_interleave(3, dim=1)) / 8**0.5
    if causal:
        scores = scores.masked_fill(~torch.ones(4, 10, dtype=torch.bool).tril(6), -torch.inf)
    expected = torch.einsum("nls,snh->lnh", scores.softmax(-1), values.repeat_interleave(3, dim=1))
    found = attend(queries, keys, values, causal=causal)
    torch.testing.assert_close(found, expected.reshape(4, 48), rtol=1e-5, atol=1e-5)

"""The layout of the autoencoder's tensors, on which its speed and memory depend."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from core.bagel.autoencoder import SpatialAttention

CHANNELS = 64


def conv_attention(layer: SpatialAttention, x: Tensor) -> Tensor:
    """The attention as the official code has it: 1x1 convolutions of images."""
    normed = layer.norm(x)
    q, k, v = (conv(normed).flatten(2).transpose(1, 2) for conv in (layer.q, layer.k, layer.v))
    seen: Tensor = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
    out: Tensor = x + layer.proj_out(seen)
    return out


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_attention_equals_that_of_convolutions(layout: torch.memory_format) -> None:
    layer = SpatialAttention(CHANNELS)
    x = torch.randn(1, CHANNELS, 6, 4).contiguous(memory_format=layout)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), conv_attention(layer, x))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_attention_gets_contiguous_rows(layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Tensor] = []
    attention = functional.scaled_dot_product_attention

    def recorded(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        given.extend((query, key, value))
        return attention(query, key, value)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", recorded)
    layer: nn.Module = SpatialAttention(CHANNELS)
    layer(torch.randn(1, CHANNELS, 6, 4).contiguous(memory_format=layout))
    assert len(given) == 3
    assert all(part.is_contiguous() for part in given)

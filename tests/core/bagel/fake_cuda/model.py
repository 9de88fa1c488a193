"""The engine with the published geometry of BAGEL-7B-MoT and fake weights."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from core.bagel import placement
from core.bagel.model import Bagel
from core.bagel.network import Network
from core.bagel.offload import Source
from core.bagel.placement import Place
from core.bagel.quantize import quantize_experts
from core.bagel.tokenizer import BagelTokenizer
from core.geometry import (
    OFFICIAL_LATENT_SIDE,
    OFFICIAL_VAE,
    OFFICIAL_VISION_SIDE,
    BagelConfig,
    _autoencoder,
    _decoder,
    _vision,
)
from recipes.model_spec import ModelSpec, ResizeRule
from tests.core.bagel.fake_cuda.recorder import Recorder

TOKENIZER = Path(__file__).parents[4] / "models" / "tiny-bagel"
LAYERS = 28
LLM = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "rope_theta": 1e6,
    "rms_norm_eps": 1e-6,
}
VIT = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 980,
    "layer_norm_eps": 1e-6,
}
SPEC = ModelSpec(
    name="fake-7b",
    vae=ResizeRule(max_px=1024, min_px=512, stride_px=16),
    vit=ResizeRule(max_px=980, min_px=224, stride_px=14),
    max_side_px=1024,
    text_defaults={},
    image_defaults={},
    kv_values_per_token=2 * LAYERS * 4 * 128,
)


def config_7b() -> BagelConfig:
    return BagelConfig(
        decoder=_decoder(LLM),
        vision=_vision(VIT),
        autoencoder=_autoencoder(OFFICIAL_VAE),
        latent_patch=2,
        latent_side=OFFICIAL_LATENT_SIDE,
        vision_side=OFFICIAL_VISION_SIDE,
    )


class FakeWeights:
    """Gives modules of a network fake weights, as a WeightReader gives stored ones."""

    def __init__(self, recorder: Recorder, network: Network) -> None:
        self.recorder = recorder
        self.network = network

    def fill(self, module_name: str, device: torch.device) -> None:
        module = self.network.get_submodule(module_name)
        for name, parameter in list(module.named_parameters()):
            owner, _, attribute = name.rpartition(".")
            value = torch.empty(parameter.shape, dtype=self.network.dtype, device=device)
            setattr(module.get_submodule(owner), attribute, nn.Parameter(value, requires_grad=False))

    def skip(self, module_name: str) -> Source:
        """In a file, and so in memory that is not pinned."""
        tensors = list(self.network.get_submodule(module_name).parameters())
        return lambda part: [self.recorder.host_tensor(tensor, pinned=False) for tensor in tensors[part]]


class FakeHostCopy:
    """The weights of a module in pinned host memory."""

    def __init__(self, recorder: Recorder, module: nn.Module) -> None:
        self.tensors = [recorder.host_tensor(tensor, pinned=True) for tensor in module.parameters()]

    def __call__(self, part: slice) -> Sequence[Tensor]:
        return self.tensors[part]


Keep = Callable[[int], Place]
"""The place of a decoder layer."""


def on_one_gpu(_: int) -> Place:
    return Place(torch.device("cuda:0"))


def on_two_gpus(layer: int) -> Place:
    return Place(torch.device("cuda:0" if layer < LAYERS // 2 else "cuda:1"))


def offloaded(layer: int) -> Place:
    """A few layers on the GPU, the others in host memory."""
    return Place(torch.device("cuda:0"), "device" if layer < LAYERS // 4 else "host")


def load(recorder: Recorder, keep: Keep = on_one_gpu, quantize: str | None = None) -> Bagel:
    """The engine, with its decoder layers where `keep` tells, their weights quantized by the method `quantize`."""
    config = config_7b()
    with torch.device("meta"):
        network = Network(config)
    network.dtype = torch.bfloat16
    places = {name: on_one_gpu(0) for name in placement.parts(network)}
    places |= {f"{placement.LAYERS}.{index}": keep(index) for index in range(LAYERS)}
    with patch.object(placement, "HostCopy", partial(FakeHostCopy, recorder)):
        weights: Any = FakeWeights(recorder, network)
        quantizer = partial(quantize_experts, method=quantize) if quantize else None
        placement.fill(network, weights, places, quantizer)
    return Bagel(SPEC, network.eval(), BagelTokenizer.read(TOKENIZER, config.decoder.vocab_size))

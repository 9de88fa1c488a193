"""The engine with the published geometry of BAGEL-7B-MoT and fake weights."""

from pathlib import Path

import torch
from torch import nn

from core.bagel.config import OFFICIAL_LATENT_SIDE, OFFICIAL_VAE, OFFICIAL_VISION_SIDE, BagelConfig
from core.bagel.config import _autoencoder, _decoder, _vision
from core.bagel.model import Bagel
from core.bagel.network import Network
from core.bagel.tokenizer import BagelTokenizer
from recipes.model_spec import ModelSpec, ResizeRule
from tests.core.bagel.fake_cuda.recorder import Recorder

TOKENIZER = Path(__file__).parents[4] / "models" / "tiny-bagel"
LLM = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
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
    kv_values_per_token=2 * 28 * 4 * 128,
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


def load(recorder: Recorder) -> Bagel:
    """On one GPU."""
    config = config_7b()
    with torch.device("meta"):
        network = Network(config)
    network.dtype, network.device = torch.bfloat16, torch.device("cuda:0")
    for name, _ in list(network.named_parameters()):
        place(recorder, network, name, "cuda:0")
    tokenizer = BagelTokenizer.read(TOKENIZER, config.decoder.vocab_size)
    return Bagel(SPEC, network.eval(), tokenizer)


def place(recorder: Recorder, network: Network, name: str, device: str) -> None:
    """Give the parameter `name` a fake tensor on `device`."""
    module, _, attribute = name.rpartition(".")
    shape = network.get_parameter(name).shape
    value = torch.empty(shape, dtype=network.dtype, device=device)
    setattr(network.get_submodule(module), attribute, nn.Parameter(value, requires_grad=False))

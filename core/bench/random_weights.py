"""Models with random weights: the published geometry or a tiny one, to measure speed without a checkpoint."""

from dataclasses import replace

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from core.bagel import Bagel
from core.bagel.fused import KERNELS
from core.bagel.network import Network
from core.bagel.tokenizer import BagelTokenizer
from core.geometry import BagelConfig, published_spec
from recipes.model_spec import ModelSpec, ResizeRule

SIZES = ("7b", "tiny")
SPREAD = 0.02
"""Standard deviation of the weights."""
TINY_SIDE_PX, TINY_STRIDE_PX = 64, 8


def random_model(size: str, device: torch.device, dtype: torch.dtype, *, seed: int = 0) -> Bagel:
    """A model of one of SIZES, its weights made on `device`; the same seed gives the same model on one device."""
    config, spec = (_tiny_config(), _tiny_spec()) if size == "tiny" else (BagelConfig.published(), published_spec())
    KERNELS.choose(device)
    with torch.device("meta"):
        network = Network(config)
    network.dtype = dtype
    network.to(dtype).to_empty(device=device)
    network.requires_grad_(requires_grad=False)
    generator = torch.Generator(device).manual_seed(seed)
    for name, parameter in network.named_parameters():
        if "norm" in name and name.endswith("weight"):
            parameter.fill_(1)
        else:
            parameter.normal_(std=SPREAD, generator=generator)
    network.device = device
    return Bagel(spec, network.eval(), _byte_tokenizer())


def _byte_tokenizer() -> BagelTokenizer:
    """One token for each byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return BagelTokenizer(tokenizer)


def _tiny_config() -> BagelConfig:
    published = BagelConfig.published()
    side = TINY_SIDE_PX // TINY_STRIDE_PX
    decoder = replace(
        published.decoder,
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
    )
    vision = replace(
        published.vision,
        hidden_size=32,
        intermediate_size=64,
        num_layers=1,
        num_heads=2,
        patch_px=TINY_STRIDE_PX,
        num_positions=side**2,
    )
    autoencoder = replace(
        published.autoencoder, channels=32, multipliers=(1, 1, 1), num_blocks=1, latent_channels=4, downsample=4
    )
    return BagelConfig(
        decoder=decoder,
        vision=vision,
        autoencoder=autoencoder,
        latent_patch=TINY_STRIDE_PX // autoencoder.downsample,
        latent_side=side,
        vision_side=side,
    )


def _tiny_spec() -> ModelSpec:
    rule = ResizeRule(max_px=TINY_SIDE_PX, min_px=TINY_SIDE_PX, stride_px=TINY_STRIDE_PX)
    return replace(
        published_spec(),
        name="random-tiny",
        vae=rule,
        vit=rule,
        max_side_px=TINY_SIDE_PX,
        kv_values_per_token=_tiny_config().kv_values_per_token,
    )

"""Models with random weights: the published geometry or a tiny one, to measure speed without a checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn

from core.bagel import Bagel
from core.bagel.fused import KERNELS
from core.bagel.network import Network
from core.bagel.placement import MemoryLimits, choose_placement, fill
from core.bagel.quantize import check_method, quantize_experts
from core.bagel.tokenizer import BagelTokenizer
from core.geometry import BagelConfig, published_spec
from core.memory import MemoryNeeds
from recipes.model_spec import ModelSpec, ResizeRule

SIZES = ("7b", "tiny")
SPREAD = 0.02
"""Standard deviation of the weights."""
TINY_SIDE_PX, TINY_STRIDE_PX = 64, 8


def random_model(
    size: str,
    device: torch.device,
    dtype: torch.dtype,
    *,
    seed: int = 0,
    quantize: str | None = None,
    max_memory: MemoryLimits | None = None,
) -> Bagel:
    """A model of one of SIZES, its weights made on `device` and placed like stored ones (see Bagel.load).

    The same seed gives the same weights on devices of one kind, wherever they are kept.

    Raises:
        ValueError: it does not fit on the device, or can't be quantized there.
    """
    config, spec = (_tiny_config(), _tiny_spec()) if size == "tiny" else (BagelConfig.published(), published_spec())
    KERNELS.choose(device)
    if quantize is not None:
        check_method(quantize, str(device))
    with torch.device("meta"):
        network = Network(config)
    network.dtype = dtype
    name = str(dtype).removeprefix("torch.")
    needs = MemoryNeeds(config=config, dtype=name, quantization=quantize, side_px=spec.max_side_px)
    placement = choose_placement(network, needs, [str(device)], max_memory or {})
    quantizer = partial(quantize_experts, method=quantize) if quantize else None
    fill(network, RandomWeights(network, device, seed), placement, quantizer)
    return Bagel(spec, network.eval(), _byte_tokenizer())


class RandomWeights:
    """Makes parameters of a network, each from a seed of its own: norms of ones, everything else is normal."""

    def __init__(self, network: Network, device: torch.device, seed: int) -> None:
        self.network = network
        self._generator = torch.Generator(device)
        self._seeds = {name: seed + number for number, (name, _) in enumerate(network.named_parameters())}

    def fill(self, module_name: str, device: torch.device) -> None:
        """Give a module on the meta device its parameters, on `device`."""
        for name in self._names(module_name):
            owner, _, attribute = name.rpartition(".")
            value = nn.Parameter(self._make(name).to(device), requires_grad=False)
            setattr(self.network.get_submodule(owner), attribute, value)

    def skip(self, module_name: str) -> Callable[[slice], Sequence[Tensor]]:
        """Leave a module without parameters; returns a function that makes a slice of them, on the CPU."""
        # Parameters on the meta device have shapes, also when hooks take the made ones away again.
        names = self._names(module_name)
        return lambda part: [self._make(name).cpu() for name in names[part]]

    def _names(self, module_name: str) -> list[str]:
        return [name for name, _ in self.network.get_submodule(module_name).named_parameters(prefix=module_name)]

    def _make(self, name: str) -> Tensor:
        shape = self.network.get_parameter(name).shape
        if "norm" in name and name.endswith("weight"):
            return torch.ones(shape, dtype=self.network.dtype, device=self._generator.device)
        generator = self._generator.manual_seed(self._seeds[name])
        made = torch.empty(shape, dtype=self.network.dtype, device=generator.device)
        return made.normal_(std=SPREAD, generator=generator)


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

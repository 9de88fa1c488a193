"""Where the weights go on given GPUs, what is refused, and the memory estimate against what the engine allocates."""

import copy
import weakref
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from core.bagel import Bagel
from core.bagel.network import Network
from core.bagel.placement import (
    LAYERS,
    Placement,
    choose_placement,
    host_bytes,
    num_bytes,
    parts,
    place_on_gpus,
    smallest_gpu_bytes,
)
from core.bagel.quantize import quantize_experts
from core.geometry import BagelConfig
from core.memory import MemoryNeeds, ModelSize, ModelTooLargeError
from core.parameters import layer_matrices, layer_vectors, other_parameters
from core.protocol import Context, Text
from recipes.recipe import ImageSettings
from tests.core.bagel.golden import MODELS, load

GB = 10**9
GPUS = [torch.device("cuda:0"), torch.device("cuda:1")]
PUBLISHED = MemoryNeeds(config=BagelConfig.published(), dtype="bfloat16", side_px=1024)


def empty_network(config: BagelConfig, dtype: torch.dtype = torch.bfloat16) -> Network:
    with torch.device("meta"):
        network = Network(config)
    network.dtype = dtype
    return network


@pytest.fixture(scope="module")
def published() -> Network:
    return empty_network(BagelConfig.published())


@pytest.mark.parametrize("name", ["published", *MODELS])
def test_the_counted_parameters_are_those_of_the_network(name: str, published: Network) -> None:
    network = published if name == "published" else load(name).network
    config = network.config
    layers = sum(parameter.numel() for parameter in network.decoder.layers.parameters())
    matrices = sum(rows * columns for rows, columns in layer_matrices(config.decoder))
    assert layers == config.decoder.num_layers * 2 * (matrices + layer_vectors(config.decoder))
    assert sum(parameter.numel() for parameter in network.parameters()) - layers == other_parameters(config)
    assert ModelSize.of(config, "float32").whole == 4 * (layers + other_parameters(config))


@pytest.mark.parametrize("method", ["int8", "fp8"])
def test_the_counted_bytes_are_those_of_a_quantized_layer(method: str) -> None:
    layer = copy.deepcopy(load("random").network.decoder.layers[0])
    quantize_experts(layer, method)
    config = load("random").network.config
    assert sum(parameter.nbytes for parameter in layer.parameters()) == ModelSize.of(config, "float32", method).layer


def kept(placement: Placement) -> tuple[dict[str, str], list[str]]:
    """Where the small parts are, and the layers, as `cuda:0 device`."""
    named = {name: f"{place.device} {place.kept}" for name, place in placement.items()}
    layers = [where for name, where in named.items() if name.startswith(LAYERS)]
    return {name: where for name, where in named.items() if not name.startswith(LAYERS)}, layers


def test_the_parts_are_all_of_the_network(published: Network) -> None:
    counted = sum(p.numel() for name in parts(published) for p in published.get_submodule(name).parameters())
    assert counted == sum(parameter.numel() for parameter in published.parameters())


def test_on_a_small_gpu_the_small_parts_stay_before_any_layer(published: Network) -> None:
    small, layers = kept(place_on_gpus(published, PUBLISHED, {GPUS[0]: 16 * GB}, 100 * GB))
    assert set(small.values()) == {"cuda:0 device"}
    assert {"lm_head", "vision", "latent_decoder", "decoder.embed_tokens"} <= set(small)
    assert layers.count("cuda:0 device") == 11
    assert layers.count("cuda:0 host") == 17


def test_what_does_not_fit_in_host_memory_is_read_from_the_files(published: Network) -> None:
    _, layers = kept(place_on_gpus(published, PUBLISHED, {GPUS[0]: 16 * GB}, 10 * GB))
    assert [layers.count(f"cuda:0 {where}") for where in ("device", "host", "files")] == [11, 10, 7]


def test_quantized_layers_are_not_read_from_the_files(published: Network) -> None:
    needs = replace(PUBLISHED, quantization="int8")
    assert place_on_gpus(published, needs, {GPUS[0]: 8 * GB}, 20 * GB)
    with pytest.raises(ModelTooLargeError, match=r"need more than the 2\.0 GB of free host memory"):
        place_on_gpus(published, needs, {GPUS[0]: 8 * GB}, 2 * GB)


def test_a_gpu_without_room_for_what_can_not_be_offloaded_is_refused(published: Network) -> None:
    with pytest.raises(ModelTooLargeError, match=r"needs 9\.8 GB on the GPU .* but 8\.6 GB are free"):
        place_on_gpus(published, PUBLISHED, {GPUS[0]: 4 * GB}, 100 * GB)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The free memory of each GPU, in place of what CUDA says."""
    known: dict[str, int] = {}
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (known[str(device)], 0))
    return known


def test_free_memory_less_what_computing_needs_decides(published: Network, free: dict[str, int]) -> None:
    free |= {"cuda:0": 80 * GB, "cuda:1": 80 * GB}
    _, layers = kept(choose_placement(published, PUBLISHED, ["cuda:0"], {}))
    assert set(layers) == {"cuda:0 device"}
    free["cuda:0"] = int((PUBLISHED.whole - GB) / 0.92)
    _, layers = kept(choose_placement(published, PUBLISHED, ["cuda:0"], {"cpu": "100GB"}))
    assert layers.count("cuda:0 host") == 4  # two slots, and what the missing gigabyte had
    _, layers = kept(choose_placement(published, PUBLISHED, ["cuda:0", "cuda:1"], {}))
    assert layers == ["cuda:0 device"] * 7 + ["cuda:1 device"] * 21


def test_limits_replace_free_memory(published: Network, free: dict[str, int]) -> None:
    assert not free
    _, layers = kept(choose_placement(published, PUBLISHED, ["cuda:0", "cuda:1"], {0: "10GB", 1: "30GiB"}))
    assert layers == ["cuda:0 device"] * 5 + ["cuda:1 device"] * 23


@pytest.mark.parametrize(
    ("limit", "size"), [(1024, 1024), ("1024", 1024), ("1.5GB", 1_500_000_000), ("20 GiB", 20 * 2**30), ("3kb", 3_000)]
)
def test_limits_are_bytes_or_text(limit: str | int, size: int) -> None:
    assert num_bytes(limit) == size


@pytest.mark.parametrize("limit", ["", "much", "-1GB", "1 PB"])
def test_a_limit_that_is_no_amount_is_refused(limit: str) -> None:
    with pytest.raises(ValueError, match=f"'{limit}' is not an amount of memory such as 20GiB"):
        Bagel.load(MODELS["random"], device="cpu", max_memory={"cpu": limit})


def test_the_smallest_gpu_decides_about_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    totals = {"cuda:0": 48 * GB, "cuda:1": 24 * GB}
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (GB, totals[device]))
    assert smallest_gpu_bytes(["cuda:0", "cuda:1"]) == 24 * GB


def test_on_the_cpu_the_batch_is_8_whatever_its_memory() -> None:
    assert load("random").max_batch == 8


def test_the_host_has_memory() -> None:
    assert 2**28 < host_bytes() < 2**50


class Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of live tensors that were made while it was active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: dict[int, int] = {}
        self.references: list[Any] = []
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and (key := tensor.untyped_storage()._cdata) not in self.live:
                self.live[key] = tensor.untyped_storage().nbytes()
                self.references.append(weakref.ref(tensor.untyped_storage(), partial(self._forget, key)))
        self.bytes = max(self.bytes, sum(self.live.values()))
        return out

    def _forget(self, key: int, _gone: object) -> None:
        del self.live[key]


SIDE_PX, BATCH = 256, 4


@pytest.fixture(scope="module")
def wide() -> Bagel:
    """A model with the proportions of the published one in its layers."""
    model = load("random")
    config = model.network.config
    decoder = replace(config.decoder, hidden_size=128, intermediate_size=680, num_heads=4, head_dim=32, num_layers=2)
    network = Network(replace(config, decoder=decoder)).requires_grad_(requires_grad=False)
    for parameter in network.parameters():
        parameter.normal_(std=0.02)
    return Bagel(model.spec, network.eval(), model.reader.tokenizer)


def test_the_estimate_covers_what_a_batch_allocates_and_not_much_more(wide: Bagel) -> None:
    side = SIDE_PX // wide.spec.stride_px
    noise = torch.zeros(BATCH, side**2, wide.network.config.latent_width)
    settings = ImageSettings(width=SIDE_PX, height=SIDE_PX, num_timesteps=2, cfg_interval=(0.0, 1.0))
    context = Context(items=(Text("A magical forest"),))
    list(wide.denoise(context, settings, noise, side))  # reads the context
    with Peak() as peak:
        list(wide.denoise(context, settings, noise, side))
    autoencoder = replace(wide.network.config.autoencoder, channels=1)
    config = replace(wide.network.config, autoencoder=autoencoder)
    needs = MemoryNeeds(config=config, dtype="float32", side_px=SIDE_PX, branches=2, batch=BATCH)
    assert peak.bytes <= 1.05 * needs.activations <= 1.6 * peak.bytes


def test_the_estimate_covers_what_the_autoencoder_allocates_and_not_much_more(wide: Bagel) -> None:
    side = SIDE_PX // wide.spec.stride_px
    tokens = torch.zeros(side**2, wide.network.config.latent_width)
    with Peak() as peak:
        wide.picture(tokens, side)
    needs = MemoryNeeds(config=wide.network.config, dtype="float32", tokens=0, side_px=SIDE_PX, branches=0)
    assert peak.bytes <= 1.05 * needs.activations <= 1.6 * peak.bytes

"""Offloaded modules compute what they compute on their device, and their weights arrive in time and in order."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from core.bagel import Bagel
from core.bagel.network import Network
from core.bagel.offload import HostCopy, LayerStream, Source, compute_on, load_for_each_call, moved, return_to
from core.bagel.placement import LAYERS, Place, Placement, Quantizer, fill, parts
from core.bagel.weights import Checkpoint, WeightReader
from core.protocol import Context, Drawn, Text
from recipes.recipe import ImageSettings
from tests.core.bagel.golden import MODELS, levels, load

SETTINGS = ImageSettings(width=32, height=32, num_timesteps=3, cfg_interval=(0.0, 1.0))
CPU = torch.device("cpu")
META = torch.device("meta")


def linear_layers(count: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(8, 8) for _ in range(count))).requires_grad_(requires_grad=False)


def devices(module: nn.Module) -> set[str]:
    return {parameter.device.type for parameter in module.parameters()}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_streamed_layers_compute_the_same_in_every_pass(count: int) -> None:
    layers, x = linear_layers(count), torch.randn(2, 8)
    expected = [layers(x), layers(x + 1)]
    LayerStream(CPU, [(layer, HostCopy(layer)) for layer in layers])
    assert devices(layers) == {"meta"}
    for _ in range(2):
        assert torch.equal(layers(x), expected[0])
        assert torch.equal(layers(x + 1), expected[1])
    assert devices(layers) == {"meta"}


def test_streamed_layers_compute_the_same_after_a_call_that_failed() -> None:
    layers, x = linear_layers(3), torch.randn(2, 8)
    expected = layers(x)
    LayerStream(CPU, [(layer, HostCopy(layer)) for layer in layers])
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layers[1](torch.randn(2, 7))
    assert devices(layers) == {"meta"}
    assert torch.equal(layers(x), expected)


class TwoLinear(nn.Module):
    """A layer whose second half only some calls need, as those of the decoder are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = linear_layers(2)

    def forward(self, x: Tensor, both: bool) -> Tensor:  # noqa: FBT001
        x = self.first(x)
        return self.second(x) if both else x


def test_a_call_copies_what_it_needs_and_a_later_one_the_rest() -> None:
    layers, x, copied = [TwoLinear() for _ in range(3)], torch.randn(2, 8), []

    def watched(source: Source, index: int) -> Source:
        def read(part: slice) -> Sequence[Tensor]:
            copied.append((index, len(source(part))))
            return source(part)

        return read

    passes = (False, False, True, True, False)
    expected = [layer(x, both) for both in passes for layer in layers]
    sources = [(layer, watched(HostCopy(layer), index)) for index, layer in enumerate(layers)]
    LayerStream(CPU, sources, lambda _layer, args, _kwargs: 4 if args[1] else 2)
    found: list[Tensor] = []
    for both in passes:
        copied.append((-1, int(both)))
        found += [layer(x, both) for layer in layers]
    assert torch.equal(torch.stack(found), torch.stack(expected))
    assert copied[2:] == [
        *((-1, 0), (2, 2), (0, 2)),  # the first two layers are in the slots at the start, and whole
        *((-1, 0), (2, 2), (0, 2)),
        *((-1, 1), (0, 2), (2, 4), (0, 4)),  # the second half of layer 0 is copied when it is needed
        *((-1, 1), (2, 4), (0, 4)),
        *((-1, 0), (2, 2), (0, 2)),
    ]


class Streams:
    """Streams and events that write down what they are asked for, in place of torch.cuda."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.events = 0
        self.main = self.Stream(CPU, "compute")

    def Stream(self, _device: torch.device, name: str = "copy") -> Any:  # noqa: N802 - as torch names it
        return SimpleNamespace(name=name, wait_event=lambda event: self.log.append(f"{name} waits for {event.name}"))

    def Event(self) -> Any:  # noqa: N802
        name = ("copied 0", "copied 1", "used 0", "used 1")[self.events]
        self.events += 1
        return SimpleNamespace(name=name, record=lambda stream: self.log.append(f"{stream.name} records {name}"))

    def current_stream(self, _device: torch.device) -> Any:
        return self.main

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        self.log.append(f"{stream.name} stream")
        yield
        self.log.append("end of stream")


def test_the_next_layer_is_copied_once_its_slot_is_free_while_a_layer_computes() -> None:
    layers, streams = linear_layers(3), Streams()
    LayerStream(CPU, [(layer, HostCopy(layer)) for layer in layers], api=streams)  # type: ignore[arg-type]
    for index, layer in enumerate(layers):
        layer.register_forward_pre_hook(lambda *_, index=index: streams.log.append(f"layer {index}"))
    layers(torch.randn(2, 8))

    def copy(slot: int) -> list[str]:
        return ["copy stream", f"copy waits for used {slot}", f"copy records copied {slot}", "end of stream"]

    assert streams.log == [
        *("compute waits for copied 0", "layer 0", "compute records used 0"),  # both slots are full at the start
        *("compute waits for copied 1", "layer 1", "compute records used 1", *copy(0)),
        *("compute waits for copied 0", "layer 2", "compute records used 0", *copy(0)),
    ]


def test_a_module_that_is_loaded_for_each_call_reads_its_weights_then_only() -> None:
    (layer,), x, reads = linear_layers(1), torch.randn(2, 8), []
    expected, tensors = layer(x), [tensor.clone() for tensor in layer.parameters()]

    def read(part: slice) -> list[Tensor]:
        reads.append(1)
        return tensors[part]

    load_for_each_call(layer, read)
    assert (devices(layer), len(reads)) == ({"meta"}, 0)
    assert torch.equal(layer(x), expected)
    assert (devices(layer), len(reads)) == ({"meta"}, 1)


def test_a_copy_in_host_memory_keeps_dtypes_shapes_and_buffers() -> None:
    module = nn.Linear(5, 3).requires_grad_(requires_grad=False).to(torch.bfloat16)
    module.register_buffer("scales", torch.arange(7, dtype=torch.int8).view(7, 1))
    expected = [*module.parameters(), *module.buffers()]
    for copy, tensor in zip(HostCopy(module)(slice(None)), expected, strict=True):
        assert copy.dtype == tensor.dtype
        assert copy.data_ptr() != tensor.data_ptr()
        assert torch.equal(copy, tensor)


class Pair(NamedTuple):
    """As the engine's own tuples of tensors are."""

    first: Tensor
    second: object


def test_tensors_move_inside_tuples_lists_and_dicts() -> None:
    found = moved((Pair(torch.zeros(1), 3), [torch.zeros(2)], {"key": torch.zeros(3)}, None), META)
    assert isinstance(found[0], Pair)
    assert found[0].second == 3
    assert {tensor.device.type for tensor in (found[0].first, found[1][0], found[2]["key"])} == {"meta"}
    assert found[3] is None


def test_a_layer_elsewhere_gets_its_tensors_there_and_the_decoder_returns_them() -> None:
    layers = linear_layers(2)
    layers[1].to("meta")
    with pytest.raises(RuntimeError, match="meta"):
        layers(torch.zeros(2, 8))
    compute_on(layers[1], META)
    assert layers(torch.zeros(2, 8)).device.type == "meta"
    return_to(layers, META)
    assert layers(torch.zeros(2, 8)).device.type == "meta"


def placed(kept: dict[int, str], quantize: Quantizer | None = None) -> Bagel:
    """The random model with some decoder layers kept elsewhere."""
    model = load("random")
    with torch.device("meta"):
        network = Network(model.network.config)
    placement: Placement = dict.fromkeys(parts(network), Place(CPU))
    for index, where in kept.items():
        placement[f"{LAYERS}.{index}"] = Place(CPU, where)  # type: ignore[arg-type]
    fill(network, WeightReader(network, Checkpoint(MODELS["random"])), placement, quantize)
    return Bagel(model.spec, network.eval(), model.reader.tokenizer)


def drawn(model: Bagel) -> Tensor:
    """A small image, drawn in two passes through all layers."""
    *_, last = model.draw(Context(items=(Text("A magical forest"),)), SETTINGS, seeds=(2,))
    assert isinstance(last, Drawn)
    return levels(last.images[0])


@pytest.mark.parametrize("kept", [{}, {1: "host"}, {0: "host", 1: "files", 2: "host", 3: "host"}])
def test_offloaded_layers_give_the_same_image(kept: dict[int, str]) -> None:
    model = placed(kept)
    assert model.network.fixed is not bool(kept)
    assert torch.equal(drawn(model), drawn(load("random")))


def test_each_layer_is_quantized_once_complete_before_it_goes_to_host_memory() -> None:
    quantized = []

    def halve(layer: nn.Module) -> None:
        quantized.append(devices(layer))
        for name, module in list(layer.named_modules()):
            if isinstance(module, nn.Linear) and name.endswith("o_proj"):
                layer.get_submodule(name.rpartition(".")[0]).register_module("o_proj", Halved(module))

    model = placed({1: "host", 2: "host", 3: "host"}, halve)
    assert quantized == [{"cpu"}] * model.network.config.decoder.num_layers
    assert isinstance(model.network.get_submodule(f"{LAYERS}.2.understanding.o_proj"), Halved)
    image = drawn(model)
    assert torch.equal(image, drawn(placed({}, halve)))
    assert not torch.equal(image, drawn(load("random")))


class Halved(nn.Module):
    """A quantized linear layer, with its matrix in a buffer of half the size."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.matrix: Tensor
        self.register_buffer("matrix", linear.weight.detach().to(torch.float16))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.matrix.to(x.dtype))

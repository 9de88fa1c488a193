"""Placement of the weights: on one device if they fit, otherwise over several GPUs, host memory and the files."""

import inspect
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch
from torch import nn

from core.bagel.network import Network
from core.bagel.offload import HostCopy, LayerStream, Source, compute_on, count_tensors, load_for_each_call, return_to
from core.bagel.weights import Checkpoint, Progress, WeightReader
from core.memory import Kept, MemoryNeeds, ModelTooLargeError, gigabytes, layer_places, usable

LAYERS = "decoder.layers"
HOST_SHARE = 0.85
"""The share of the host's available memory for weights."""
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}

MemoryLimits: TypeAlias = Mapping[str | int, str | int]
"""GPU number or "cpu" -> the most memory for weights, in bytes or as a text such as "20GiB"."""


class Quantizer(Protocol):
    """Replaces the linear layers of a decoder layer by quantized ones."""

    def __call__(self, layer: nn.Module, /) -> None:
        """Quantize `layer`, whose parameters are all on the device on which it computes.

        The result is made of parameters and buffers that are plain tensors.
        """


class WeightSource(Protocol):
    """Has the weights of a network on the meta device."""

    def fill(self, module_name: str, device: torch.device) -> None:
        """Give a module its parameters, on `device`."""

    def skip(self, module_name: str) -> Source:
        """Leave a module without parameters; returns their source."""


@dataclass(frozen=True)
class Place:
    """Where a module computes, and where its weights are while it does not."""

    device: torch.device
    kept: Kept = "device"


Placement: TypeAlias = dict[str, Place]
"""The place of each part of the network."""


def choose_device(device: str | None, gpus: Sequence[int]) -> str:
    """The device to compute on: `device`, else the first of `gpus`, else a GPU if available, else the CPU.

    Raises:
        ValueError: this machine has no such device.
    """
    count = torch.cuda.device_count()
    known = ["cpu", "cuda"][: 1 + bool(count)] + [f"cuda:{index}" for index in range(count)]
    wanted = device or (f"cuda:{gpus[0]}" if gpus else known[min(count, 1)])
    for name in (wanted, *(f"cuda:{gpu}" for gpu in gpus)):
        if name not in known:
            raise ValueError(f"there is no device {name!r}; allowed: {', '.join(known)}")
    return wanted


def load_network(
    needs: MemoryNeeds,
    checkpoint: Checkpoint,
    devices: Sequence[str],
    *,
    max_memory: MemoryLimits | None = None,
    quantize: Quantizer | None = None,
    on_progress: Progress | None = None,
) -> Network:
    """Load the network with its weights.

    Args:
        needs: the geometry, with the position tables as stored, the dtype, and the memory needed for computing.
        checkpoint: the stored weights.
        devices: the GPUs to distribute it over, or the CPU.
        max_memory: limits for weights.
        quantize: quantizes a decoder layer as `needs` states.
        on_progress: called with bytes loaded and total bytes.

    Raises:
        ModelFolderError: the stored tensors do not match the geometry.
        ModelTooLargeError: the weights do not fit.
    """
    with torch.device("meta"):
        network = Network(needs.config)
    checkpoint.check(network)
    network.dtype = getattr(torch, needs.dtype)
    placement = choose_placement(network, needs, devices, max_memory or {})
    fill(network, WeightReader(network, checkpoint, on_progress), placement, quantize)
    return network.eval()


def num_bytes(limit: str | int) -> int:
    """The bytes in 1024, "500MB" or "20GiB". Raises ValueError."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([KMGT]I?)?B?", str(limit).strip().upper())
    if found is None:
        raise ValueError(f"{limit!r} is not an amount of memory such as 20GiB")
    return int(float(found[1]) * UNITS[found[2] or ""])


def smallest_gpu_bytes(devices: Sequence[str]) -> int:
    """The total memory of the smallest of `devices`."""
    return min(torch.cuda.mem_get_info(device)[1] for device in devices)


def host_bytes() -> int:
    """The memory of this machine, or of this container, that is available."""
    known = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with suppress(OSError, StopIteration):  # Linux
        lines = Path("/proc/meminfo").read_text().splitlines()
        known.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")))
    with suppress(OSError, ValueError):  # a container of cgroup v2; without a limit the file says max
        known.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(known)


def choose_placement(
    network: Network, needs: MemoryNeeds, devices: Sequence[str], max_memory: MemoryLimits
) -> Placement:
    """Decide where each part of `network` computes and where its weights are kept.

    Args:
        network: the network, on the meta device.
        needs: what it needs.
        devices: the GPUs, or the CPU.
        max_memory: limits for weights; without one, the free memory that the rest does not need.

    Raises:
        ModelTooLargeError: it does not fit.
    """
    limits = {str(place): num_bytes(limit) for place, limit in max_memory.items()}
    host_room = limits.get("cpu", int(HOST_SHARE * host_bytes()))
    if devices[0] == "cpu":
        return place_on_cpu(network, host_room)
    rooms = {}
    for device in map(torch.device, devices):
        limit = limits.get(str(device.index or 0))
        rooms[device] = usable(torch.cuda.mem_get_info(device)[0]) - needs.beside if limit is None else limit
    return place_on_gpus(network, needs, rooms, host_room)


def parts(network: Network) -> list[str]:
    """The modules that are placed as a whole: the small ones, then the decoder layers."""
    decoder = [f"decoder.{name}" for name, _ in network.decoder.named_children() if f"decoder.{name}" != LAYERS]
    others = [name for name, _ in network.named_children() if name != "decoder"]
    return [*decoder, *others, *(f"{LAYERS}.{index}" for index in range(network.config.decoder.num_layers))]


def place_on_cpu(network: Network, room: int) -> Placement:
    """As many parts as fit in `room` bytes are loaded, the others read from the files for each call.

    Some of the room is for the largest part that is being read.
    """
    device = torch.device("cpu")
    sizes = {name: _weight_bytes(network, name) for name in parts(network)}
    if sum(sizes.values()) > room:
        room -= max(sizes.values())
    used = accumulate(sizes.values())
    return {name: Place(device, "device" if end <= room else "files") for name, end in zip(sizes, used, strict=True)}


def _weight_bytes(network: Network, name: str) -> int:
    return sum(parameter.numel() for parameter in network.get_submodule(name).parameters()) * network.dtype.itemsize


def place_on_gpus(network: Network, needs: MemoryNeeds, rooms: Mapping[torch.device, int], host_room: int) -> Placement:
    """The small parts on the first GPU, and the decoder layers on all (see core.memory.layer_places).

    Args:
        network: the network.
        needs: what it needs.
        rooms: each GPU, and its bytes for weights.
        host_room: bytes for weights in host memory.

    Raises:
        ModelTooLargeError: it does not fit.
    """
    gpus, room = list(rooms), next(iter(rooms.values()))
    if room < needs.size.least:
        raise needs.refusal(room + needs.beside)
    placement = dict.fromkeys(parts(network), Place(gpus[0]))
    for index, (gpu, kept) in enumerate(layer_places(needs.size, list(rooms.values()), host_room)):
        placement[f"{LAYERS}.{index}"] = Place(gpus[gpu], kept)
    if needs.quantization and any(place.kept == "files" for place in placement.values()):
        raise ModelTooLargeError(
            f"the decoder layers that do not fit on the GPU need more than the {gigabytes(host_room)} of free host "
            "memory, and quantized layers can't be read from the files; more host memory would fit"
        )
    return placement


def fill(network: Network, weights: WeightSource, placement: Placement, quantize: Quantizer | None = None) -> None:
    """Give a network on the meta device its weights, and the hooks that move weights and tensors in each call."""
    streams: dict[torch.device, list[tuple[nn.Module, Source]]] = {}
    for name, place in placement.items():
        module = network.get_submodule(name)
        source = _load(module, name, weights, place, quantize if name.startswith(LAYERS) else None)
        if source is not None and name.startswith(LAYERS) and (place.device.type != "cpu" or place.kept == "host"):
            streams.setdefault(place.device, []).append((module, source))
        elif source is not None:
            load_for_each_call(module, source)
    for device, layers in streams.items():
        LayerStream(device, layers, _tensors_needed)
    network.offloaded = any(place.kept != "device" for place in placement.values())
    _move_activations(network, placement)


def _tensors_needed(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The tensors of a decoder layer for a call: without latents only those of the understanding expert, the first."""
    has_latents = inspect.signature(layer.forward).bind(*args, **kwargs).arguments.get("gen") is not None
    return count_tensors(layer if has_latents else layer.get_submodule("understanding"))


def _load(
    module: nn.Module, name: str, weights: WeightSource, place: Place, quantize: Quantizer | None
) -> Source | None:
    """Load the weights of a module to where they are kept; returns their source if it is not the device."""
    if place.kept == "files":
        return weights.skip(name)
    weights.fill(name, place.device)
    if quantize is not None:
        quantize(module)
    return HostCopy(module) if place.kept == "host" else None


def _move_activations(network: Network, placement: Placement) -> None:
    network.device = next(iter(placement.values())).device
    for index, layer in enumerate(network.decoder.layers):
        device = placement[f"{LAYERS}.{index}"].device
        if device != network.device:
            network.elsewhere[index] = device
            compute_on(layer, device)
    if network.elsewhere:
        return_to(network.decoder, network.device)

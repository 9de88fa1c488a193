"""Placement of the weights: one device if they fit, otherwise several GPUs, memory and disk (with accelerate)."""

import os
from collections.abc import Mapping, Sequence

import torch

from core.bagel.network import Network
from core.bagel.weights import Checkpoint, DeviceMap, Progress, fill
from core.geometry import BagelConfig

# Modules that add up tensors internally, so that each has to be on one device.
WHOLE = ["DecoderLayer", "VisionEmbedder", "LatentEmbedder", "LatentEncoder", "LatentDecoder"]
HEADROOM = 0.85
"""The share of a device's free memory for weights; the rest is for the context and activations."""

MemoryLimits = Mapping[str | int, str | int]
"""GPU number, "cpu" or "disk" -> bytes or a text such as "20GiB"."""


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
    config: BagelConfig,
    checkpoint: Checkpoint,
    *,
    device: str,
    dtype: torch.dtype,
    gpus: Sequence[int] = (),
    max_memory: MemoryLimits | None = None,
    on_progress: Progress | None = None,
) -> Network:
    """Load the network with its weights.

    Args:
        config: the geometry, with the position tables as stored.
        checkpoint: the stored weights.
        device: the device, if one is enough.
        dtype: the dtype of weights and activations.
        gpus: the GPUs to distribute it over, if more than one.
        max_memory: maximum memory of each device; what does not fit goes to "cpu", then to "disk" (it stays in the
            checkpoint and is read when needed).
        on_progress: called with bytes loaded and total bytes.

    Raises:
        ModelFolderError: the stored tensors do not match the geometry.
    """
    with torch.device("meta"):
        network = Network(config)
    checkpoint.check(network)
    network.dtype = dtype
    size = sum(parameter.numel() for parameter in network.parameters()) * dtype.itemsize
    limits = max_memory or _limits(device, size, gpus)
    if limits is None:
        network.device = torch.device(device)
        fill(network, checkpoint, {"": device}, on_progress)
    else:
        _spread(network, checkpoint, limits, on_progress)
    return network.eval()


def _limits(device: str, size: int, gpus: Sequence[int]) -> MemoryLimits | None:
    """The maximum memory of each device, or None if all `size` bytes go to the one `device`."""
    several = len(gpus) > 1
    if not several and size <= HEADROOM * _free_bytes(device):
        return None
    used = [f"cuda:{gpu}" for gpu in gpus] if several else [device] * (device != "cpu")
    on_gpus: dict[str | int, str | int] = {
        torch.device(gpu).index or 0: int(HEADROOM * _free_bytes(gpu)) for gpu in used
    }
    return {**on_gpus, "cpu": int(HEADROOM * _free_bytes("cpu")), "disk": size}


def _free_bytes(device: str) -> int:
    """Free memory of a GPU; for the CPU, the total memory, as the weights are memory-mapped files."""
    if device == "cpu":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return torch.cuda.mem_get_info(device)[0]


def _spread(network: Network, checkpoint: Checkpoint, limits: MemoryLimits, on_progress: Progress | None) -> None:
    # Imported here because the import is slow and rarely needed. accelerate has no type stubs.
    from accelerate import dispatch_model, infer_auto_device_map  # type: ignore[import-untyped]  # noqa: PLC0415
    from accelerate.utils import get_balanced_memory  # type: ignore[import-untyped]  # noqa: PLC0415

    memory = {place: limit for place, limit in limits.items() if place != "disk"}  # accelerate balances only devices
    balanced = get_balanced_memory(network, memory, no_split_module_classes=WHOLE, dtype=network.dtype)
    device_map: DeviceMap = infer_auto_device_map(
        network, {**limits, **balanced}, no_split_module_classes=WHOLE, dtype=network.dtype
    )
    on_disk = fill(network, checkpoint, device_map, on_progress)
    gpus = [place for place in device_map.values() if isinstance(place, int)]
    main: str | int = gpus[0] if gpus else "cpu"
    network.device = torch.device(main)
    dispatch_model(network, device_map, main_device=main, offload_index=on_disk or None, force_hooks=True)

"""A model whose weights are quantized or offloaded, compared with the plain one."""

import time
from collections.abc import Callable, Iterator, Mapping
from statistics import median

import torch

from core.bagel import Bagel
from core.bagel.placement import MemoryLimits
from core.bench.machine import peak_bytes
from core.bench.repeat import image_settings
from core.bench.sample import Sample, sample
from core.memory import ModelSize


def compared(load: Callable[[], Bagel], reference: Sample, rounds: int) -> Iterator[Mapping[str, object]]:
    """Memory and time of another model, and how far its results are from `reference`."""
    start = time.perf_counter()
    try:
        model = load()
    except ValueError as error:  # this device or this installation can't compute so
        yield {"skipped": str(error)}
        return
    device = model.network.device
    held = torch.cuda.memory_allocated(device) if device.type == "cuda" else None
    yield {"load_s": time.perf_counter() - start, "weight_bytes": held, "load_peak_bytes": peak_bytes(device)}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    found = [sample(model, image_settings(model)) for _ in range(rounds + 1)]  # the first one warms up
    yield {
        "token_s": median(one.token_s for one in found[1:]),
        "step_s": median(one.step_s for one in found[1:]),
        "repeats": all(torch.equal(one.latents, found[0].latents) and one.ids == found[0].ids for one in found),
        **found[-1].compared_with(reference),
        "offloaded": model.network.offloaded,
        "peak_bytes": peak_bytes(device),
    }


def half_of_the_layers(model: Bagel) -> MemoryLimits:
    """A limit with which about half of the decoder layers of `model` stay on its device."""
    network = model.network
    size = ModelSize.of(network.config, str(network.dtype).removeprefix("torch."))
    limit = size.whole - size.num_layers // 2 * size.layer
    return {"cpu": limit} if network.device.type == "cpu" else {network.device.index or 0: limit}

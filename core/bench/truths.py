"""What the engine assumes about a card: versions, rates, how attention is computed, and the times of each phase."""

import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor
from torch._C._autograd import DeviceType
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention as attention
from torch.profiler import ProfilerActivity, profile

from core.bagel import Bagel, fused
from core.bagel.fused import C_COMPILERS, KERNELS
from core.bench.machine import Machine, peak_bytes, seconds, synchronize
from core.bench.phases import Phase, phase_rows
from core.bench.repeat import image_settings
from core.bench.usage import Meter
from core.protocol import Context, Text
from recipes.recipe import TextSettings

Line = Mapping[str, object]
LIBRARIES = ("torch", "triton", "transformers", "safetensors")
HEADS, KV_HEADS, HEAD_DIM, WIDTH = 28, 4, 128, 3584
"""Of the 7B model."""
TEXT, CONTEXT = 64, 1000
"""Tokens of a text and before it."""
NEW_LENGTHS = 8
SLOWEST = 12


def versions(device: torch.device) -> Iterator[Line]:
    """The libraries, the device, and whether the fused kernels are used."""
    yield {name: _version(name) for name in LIBRARIES}
    yield {"cuda": torch.version.cuda, "c_compiler": next(filter(shutil.which, C_COMPILERS), None)}
    if device.type == "cuda":
        KERNELS.choose(device)
        free, total = torch.cuda.mem_get_info(device)
        yield {
            "device": torch.cuda.get_device_name(device),
            "capability": torch.cuda.get_device_capability(device),
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "free_bytes": free,
            "total_bytes": total,
        }
    yield {"kernels_enabled": KERNELS.enabled}


def rates(machine: Machine) -> Iterator[Line]:
    """The rates of products and copies."""
    yield asdict(machine)


def text_attention(device: torch.device, dtype: torch.dtype) -> Iterator[Line]:
    """The deviation of a text block's attention from float64: with a mask and expanded keys, and with neither."""
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (
        torch.randn(1, heads, rows, HEAD_DIM, generator=generator).to(dtype).to(device)
        for heads, rows in ((HEADS, TEXT), (KV_HEADS, CONTEXT + TEXT), (KV_HEADS, CONTEXT + TEXT))
    )
    seen = torch.ones(TEXT, CONTEXT + TEXT, dtype=torch.bool, device=device).tril(CONTEXT)
    expected = _in_float64(queries, keys, values, seen)
    grouped = queries.view(KV_HEADS, -1, TEXT, HEAD_DIM)
    wide_keys, wide_values = (x[0, :, None].expand(-1, grouped.shape[1], -1, -1) for x in (keys, values))
    causal = causal_lower_right(TEXT, CONTEXT + TEXT)
    ways: Mapping[str, Callable[[], Tensor]] = {
        "mask, expanded keys": lambda: attention(grouped, wide_keys, wide_values, attn_mask=seen).view_as(queries),
        "mask": lambda: attention(queries, keys, values, attn_mask=seen, enable_gqa=True),
        "causal": lambda: attention(queries, keys, values, attn_mask=causal, enable_gqa=True),
    }
    for name, way in ways.items():
        try:
            deviation = (way().double() - expected).abs().max().item()
        except RuntimeError as error:
            yield {"way": name, "refused": str(error)[:300]}
        else:
            yield {"way": name, "deviation": deviation, "kernels": _kernels(way, device)}


def new_key_lengths(device: torch.device, dtype: torch.dtype) -> Iterator[Line]:
    """The milliseconds of a token's attention for lengths that are new, and for the same lengths again."""
    query = torch.randn(1, HEADS, 1, HEAD_DIM, device=device).to(dtype)
    keys = torch.randn(1, KV_HEADS, CONTEXT + NEW_LENGTHS, HEAD_DIM, device=device).to(dtype)
    attention(query, keys[:, :, :TEXT], keys[:, :, :TEXT], enable_gqa=True)
    for attempt in ("new", "again"):
        found = []
        for length in range(CONTEXT, CONTEXT + NEW_LENGTHS):
            some = keys[:, :, :length]
            synchronize(device)
            start = time.perf_counter()
            attention(query, some, some, enable_gqa=True)
            synchronize(device)
            found.append(1000 * (time.perf_counter() - start))
        yield {"lengths": attempt, "milliseconds": found}


def decode_attention(device: torch.device, dtype: torch.dtype, contexts: Sequence[int]) -> Iterator[Line]:
    """A token's attention by the fused kernel and by PyTorch: milliseconds, and the deviation from float64."""
    query = torch.randn(HEADS, HEAD_DIM, device=device).to(dtype)
    for length in contexts:
        keys, values = torch.randn(2, 2 * length, KV_HEADS, HEAD_DIM, device=device).to(dtype)
        some_keys, some_values = (x[:length].transpose(0, 1)[None] for x in (keys, values))
        number = torch.tensor([length], device=device)
        found = fused.decode_attention(query, keys, values, 0, number)
        seen = torch.ones(1, length, dtype=torch.bool, device=device)
        deviation = found.double() - _in_float64(query[None, :, None], some_keys, some_values, seen)[0, :, 0]
        ways = {
            "fused": partial(fused.decode_attention, query, keys, values, 0, number),
            "pytorch": partial(attention, query[None, :, None], some_keys, some_values, enable_gqa=True),
        }
        yield {
            "length": length,
            "deviation": deviation.abs().max().item(),
            "same_without_spare_rows": torch.equal(
                found, fused.decode_attention(query, keys[:length], values[:length], 0, number)
            ),
            "milliseconds": {name: 1000 * seconds(way, device) for name, way in ways.items()},
        }


def int8_product(device: torch.device, dtype: torch.dtype) -> Iterator[Line]:
    """A row times int8 weights, by the fused kernel and by PyTorch: milliseconds, and the deviation from float64."""
    x, scale, bias = (torch.randn(*shape, device=device).to(dtype) for shape in ((1, WIDTH), (WIDTH,), (WIDTH,)))
    weight = torch.randint(-127, 128, (WIDTH, WIDTH), dtype=torch.int8, device=device)
    expected = x.double() @ weight.double().T * scale.double() + bias.double()
    for name, product in (("fused", fused.int8_row), ("pytorch", fused.int8_rows)):
        way = partial(product, x, weight, scale, bias)
        deviation = ((way().double() - expected).abs().max() / expected.abs().max()).item()
        yield {"way": name, "deviation": deviation, "milliseconds": 1000 * seconds(way, device)}


def kernels(phases: Iterable[Phase], device: torch.device) -> Iterator[Line]:
    """The kernels of each phase that take the longest; their names tell how attention is computed."""
    for phase in phases:
        run = phase.prepare()
        yield {"phase": phase.name, "kernels": _kernels(run, device)}


def phase_times(model: Bagel, phases: Iterable[Phase], machine: Machine, rounds: int) -> Iterator[Line]:
    """Seconds and peak memory of each phase, and the machine's limit for it."""
    meter, device = Meter(model), model.network.device
    for phase in phases:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        (row,) = phase_rows(meter, (phase,), machine, rounds)
        found = {"seconds": row.values("wall_s"), "limit_s": row.limit_s, "peak_bytes": peak_bytes(device)}
        yield {"phase": phase.name, **found}


def host_syncs(model: Bagel) -> Iterator[Line]:
    """Where the host waits for the GPU while it writes a text and draws an image."""
    if model.network.device.type != "cuda":
        yield {"skipped": "the sync debug mode is of CUDA"}
        return
    context, settings = Context(items=(Text("A magical forest"),)), TextSettings(max_new_tokens=16, temperature=1.0)
    works: Mapping[str, Callable[[], object]] = {
        "text": lambda: list(model.write(context, settings, seed=0)),
        "image": lambda: list(model.draw(context, image_settings(model), seeds=(0,))),
    }
    for name, work in works.items():
        work()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        places = [f"{Path(one.filename).name}:{one.lineno}" for one in caught]
        yield {"work": name, "syncs": {place: places.count(place) for place in sorted(set(places))}}


def _in_float64(queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    group = queries.shape[1] // keys.shape[1]
    q, k, v = queries.double(), keys.double().repeat_interleave(group, 1), values.double().repeat_interleave(group, 1)
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
    out: Tensor = scores.softmax(-1) @ v
    return out


def _kernels(run: Callable[[], object], device: torch.device) -> Mapping[str, Mapping[str, float]]:
    """The kernels of `run` (operations, on the CPU) that take the longest: how often, and microseconds in all."""
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiler:
        run()
        synchronize(device)
    wanted = DeviceType.CUDA if cuda else DeviceType.CPU
    found = [
        (one.self_device_time_total if cuda else one.self_cpu_time_total, one)
        for one in profiler.key_averages()
        if one.device_type == wanted
    ]
    slowest = sorted(found, key=lambda pair: -pair[0])[:SLOWEST]
    return {one.key[:120]: {"calls": one.count, "us": round(micros)} for micros, one in slowest}


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None

"""Times and results of the engine with a change on and off, in turns within one process."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from statistics import median

import torch

from core.bagel import Bagel
from core.bagel.flow import gaussian_noise
from core.bagel.fused import KERNELS
from core.bench.machine import peak_bytes, synchronize
from core.bench.repeat import image_settings
from core.bench.sample import CONTEXT, Sample, deviation, sample
from recipes.recipe import StepCacheSettings

STEPS, LONG = 3, 12
"""Denoising steps of a sample; with a step cache, which computes the first and last ones, it needs more."""
SIZES = (1, 2, 4, 8)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A way to run the engine."""

    name: str
    use: Callable[[], AbstractContextManager[None]] = nullcontext
    cuda_graphs: bool = True
    step_cache: StepCacheSettings | None = None


@contextmanager
def _without_kernels() -> Iterator[None]:
    enabled, KERNELS.enabled = KERNELS.enabled, False
    try:
        yield
    finally:
        KERNELS.enabled = enabled


@contextmanager
def _without_cudnn() -> Iterator[None]:
    enabled = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    torch.backends.cuda.enable_cudnn_sdp(enabled=False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(enabled)


FUSED = (Variant(name="fused"), Variant(name="PyTorch's operations", use=_without_kernels))
GRAPHS = (Variant(name="CUDA graphs"), Variant(name="launched by the host", cuda_graphs=False))
CUDNN = (Variant(name="cuDNN allowed"), Variant(name="no cuDNN", use=_without_cudnn))
STEP_CACHES = (
    Variant(name="every step"),
    *(Variant(name=f"one of {n}", step_cache=StepCacheSettings(interval=n)) for n in (2, 3, 4)),
)


def turns(model: Bagel, ways: Sequence[Variant], rounds: int, steps: int = STEPS) -> Iterator[Mapping[str, object]]:
    """Medians of each variant, and how far its results are from those of the first; one more round warms up."""
    model.forget()
    samples: dict[str, list[Sample]] = {way.name: [] for way in ways}
    for _ in range(rounds + 1):
        for way in ways:
            with way.use():
                # Made anew, since a model decides how it writes when it is made.
                engine = Bagel(model.spec, model.network, model.reader.tokenizer, cuda_graphs=way.cuda_graphs)
                image = replace(image_settings(model, steps), step_cache=way.step_cache)
                samples[way.name].append(sample(engine, image))
    reference = samples[ways[0].name][0]
    for name, found in samples.items():
        last = found[-1]
        yield {
            "variant": name,
            "token_s": median(one.token_s for one in found[1:]),
            "step_s": median(one.step_s for one in found[1:]),
            "sha256": hashlib.sha256(last.latents.numpy().tobytes()).hexdigest(),
            "repeats": all(torch.equal(one.latents, last.latents) and one.ids == last.ids for one in found),
            **last.compared_with(reference),
        }


def batch_sizes(model: Bagel, sizes: Sequence[int] = SIZES) -> Iterator[Mapping[str, object]]:
    """By the number of images at once: seconds of a step for each, peak memory, and the deviation of the first."""
    device, image = model.network.device, image_settings(model)
    rows = (image.height or 0) // model.spec.stride_px
    noise = [gaussian_noise(rows * rows, model.network.config.latent_width, seed) for seed in range(max(sizes))]
    alone = None
    for images in sizes:
        model.forget()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        try:
            steps = model.denoise(CONTEXT, image, torch.stack(noise[:images]), rows)
            next(steps)
            synchronize(device)
            start = time.perf_counter()
            *_, last = steps
            synchronize(device)
        except RuntimeError as error:  # too many for the memory: a larger batch would not fit either
            yield {"images": images, "class": type(error).__name__, "said": str(error)[:300]}
            return
        seconds, latents = time.perf_counter() - start, last.x[0].float().cpu()
        alone = latents if alone is None else alone
        found = {"image_step_s": seconds / (last.total - 1) / images, "deviation": deviation(latents, alone)}
        yield {"images": images, **found, "peak_bytes": peak_bytes(device)}

"""Times and results of the engine with a change on and off, in turns within one process."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from statistics import median

import torch
from torch import Tensor

from core.bagel import Bagel
from core.bagel.flow import gaussian_noise
from core.bagel.fused import KERNELS
from core.bench.machine import synchronize
from core.bench.repeat import image_settings
from core.protocol import Context, Text
from recipes.recipe import TextSettings

TOKENS, STEPS = 32, 3
PROMPT = Context(items=(Text("A magical forest"),))


@dataclass(frozen=True)
class Variant:
    """A way to run the engine."""

    name: str
    use: Callable[[], AbstractContextManager[None]]


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


FUSED = (Variant("fused", nullcontext), Variant("PyTorch's operations", _without_kernels))
CUDNN = (Variant("cuDNN allowed", nullcontext), Variant("no cuDNN", _without_cudnn))


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One run: seconds for each token and step, and what it gave."""

    token_s: float
    step_s: float
    ids: Sequence[int]
    latents: Tensor


def turns(model: Bagel, ways: Sequence[Variant], rounds: int) -> Iterator[Mapping[str, object]]:
    """Medians of each variant, and the deviation of its latents from those of the first; one more round warms up."""
    samples: dict[str, list[Sample]] = {way.name: [] for way in ways}
    for _ in range(rounds + 1):
        for way in ways:
            with way.use(), torch.inference_mode():
                samples[way.name].append(_sample(model))
    reference = samples[ways[0].name][0]
    for name, found in samples.items():
        last = found[-1]
        yield {
            "variant": name,
            "token_s": median(sample.token_s for sample in found[1:]),
            "step_s": median(sample.step_s for sample in found[1:]),
            "sha256": hashlib.sha256(last.latents.numpy().tobytes()).hexdigest(),
            "repeats": all(torch.equal(sample.latents, last.latents) for sample in found),
            "same_text": last.ids == reference.ids,
            "deviation": ((last.latents - reference.latents).abs().max() / reference.latents.abs().max()).item(),
        }


def _sample(model: Bagel) -> Sample:
    device, settings = model.network.device, image_settings(model, STEPS)
    model.forget()
    list(model.write(PROMPT, TextSettings(max_new_tokens=1, temperature=0.0), seed=0))  # reads the prompt
    synchronize(device)
    start = time.perf_counter()
    ids = list(islice(model.write_ids(TextSettings(max_new_tokens=TOKENS, temperature=1.0), 0), TOKENS))
    synchronize(device)
    token_s = (time.perf_counter() - start) / max(1, len(ids))
    rows = (settings.height or 0) // model.spec.stride_px
    noise = gaussian_noise(rows * rows, model.network.config.latent_width, 0)
    steps = model.denoise(PROMPT, settings, noise, rows)
    next(steps)
    synchronize(device)
    start = time.perf_counter()
    *_, last = steps
    synchronize(device)
    step_s = (time.perf_counter() - start) / (STEPS - 1)
    return Sample(token_s=token_s, step_s=step_s, ids=ids, latents=last.x.float().cpu())

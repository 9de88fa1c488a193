"""What a model computes for one prompt, and the time that a token and a denoising step take."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from core.bagel import Bagel
from core.bagel.context import CacheView
from core.bagel.flow import gaussian_noise
from core.bench.machine import synchronize
from core.protocol import Context, Text
from recipes.recipe import ImageSettings, TextSettings

TOKENS = 32
PROMPT = Text("A magical forest")
CONTEXT = Context(items=(PROMPT,))
WRITTEN = TextSettings(max_new_tokens=TOKENS, temperature=1.0)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One run: the seconds of each token and step, and its results, on the CPU."""

    token_s: float
    step_s: float
    ids: Sequence[int]
    logits: Tensor
    """Of the prompt, (L, V)."""
    latents: Tensor

    def compared_with(self, reference: "Sample") -> Mapping[str, object]:
        """Whether the texts are equal, and how far latents and logits are from those of `reference`."""
        return {
            "same_text": self.ids == reference.ids,
            "deviation": deviation(self.latents, reference.latents),
            "logits": deviation(self.logits, reference.logits),
            "same_likeliest": (self.logits.argmax(-1) == reference.logits.argmax(-1)).float().mean().item(),
        }


@torch.inference_mode()
def sample(model: Bagel, image: ImageSettings) -> Sample:
    """Write and draw from an empty cache. The first steps, which may compile or record, are not timed."""
    device = model.network.device
    model.forget()
    list(model.write(CONTEXT, TextSettings(max_new_tokens=1, temperature=0.0), seed=0))  # reads the prompt
    list(islice(model.write_ids(WRITTEN, 0), 2))
    synchronize(device)
    start = time.perf_counter()
    ids = list(model.write_ids(WRITTEN, 0))
    synchronize(device)
    token_s = (time.perf_counter() - start) / min(TOKENS, len(ids) + 1)  # the end token is computed as well
    rows = (image.height or 0) // model.spec.stride_px
    steps = model.denoise(CONTEXT, image, gaussian_noise(rows * rows, model.network.config.latent_width, 0), rows)
    next(steps)
    synchronize(device)
    start = time.perf_counter()
    *_, last = steps
    synchronize(device)
    step_s = (time.perf_counter() - start) / (last.total - 1)
    latents, logits = last.x.float().cpu(), _logits(model).float().cpu()
    return Sample(token_s=token_s, step_s=step_s, ids=ids, logits=logits, latents=latents)


def deviation(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def _logits(model: Bagel) -> Tensor:
    cache = model.network.empty_cache(latents=False)
    ids = model.reader.tokenizer.frame(PROMPT.text)
    return model.network.logits(model.network.read_text(ids, CacheView(cache, cache.end, kept=True)))

"""BAGEL as core asks for it: it reads, writes and draws."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from core.bagel.autoencoder import shrink, to_uint8, unpatchify
from core.bagel.config import BagelConfig
from core.bagel.context import Cache, CacheOffset, CacheView
from core.bagel.flow import FlowStep, euler, gaussian_noise, schedule
from core.bagel.guidance import Branches, GuidedVelocity, image_free, text_free
from core.bagel.images import side_by_side, to_image
from core.bagel.judge import Verdicts, likelihood
from core.bagel.network import Network
from core.bagel.placement import MemoryLimits, choose_device, load_network
from core.bagel.reader import Reader, items_of
from core.bagel.sample import Sampler
from core.bagel.tokenizer import BagelTokenizer, TextStream
from core.bagel.weights import Checkpoint, Progress
from core.model_folder import ModelFolderError, read_spec
from core.protocol import Context, Denoising, Drawn, Picture, Text
from recipes.model_spec import ModelSpec
from recipes.recipe import ImageSettings, TextSettings

PREVIEW_PX = 128
MAX_BATCH = 8
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Bagel:
    """The model and its two persistent caches: the whole context, and its texts alone for guidance by images.

    Implements UnifiedModel. One thing at a time: finish or close what `write` or `draw` returned before the next call.

    Args:
        spec: what recipes may assume of it.
        network: the weights.
        tokenizer: of texts.
        max_batch: how many images are computed at once, at most; more are drawn in several batches. It bounds the
            memory of activations and changes the images only within rounding.

    Raises:
        ValueError: `max_batch` is less than 1.
    """

    def __init__(
        self, spec: ModelSpec, network: Network, tokenizer: BagelTokenizer, *, max_batch: int = MAX_BATCH
    ) -> None:
        if max_batch < 1:
            raise ValueError(f"max_batch is {max_batch}; at least 1 image is drawn at once")
        self.network = network
        self.reader = Reader(network, tokenizer, spec)
        self.max_batch = max_batch
        self._spec = spec
        self._tokenizer = tokenizer
        self._verdicts = Verdicts.of(tokenizer)
        self.forget()

    @staticmethod
    def load(
        folder: Path | str,
        *,
        name: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        gpus: Sequence[int] | None = None,
        max_memory: MemoryLimits | None = None,
        on_progress: Progress | None = None,
        max_batch: int = MAX_BATCH,
    ) -> "Bagel":
        """The model in `folder`, which has the official layout.

        Args:
            folder: the checkpoint.
            name: what the model is called; None takes the folder's name.
            device: "cpu", "cuda" or "cuda:1"; None takes CUDA where there is one.
            dtype: "float32" or "bfloat16"; None takes bfloat16 on CUDA and float32 on the CPU.
            gpus: the GPUs to use, by number; the weights are spread over them when there are several.
            max_memory: how much each of them, "cpu" and "disk" may hold; the rest goes on to the next.
            on_progress: told bytes loaded and bytes in all, as they are loaded.
            max_batch: how many images are computed at once, at most (see Bagel).

        Raises:
            ModelFolderError: the folder is not a BAGEL checkpoint, or its parts do not fit each other.
            ValueError: there is no such dtype, or no such device, or `max_batch` is less than 1.
        """
        folder = Path(folder)
        device = choose_device(device, gpus or ())
        dtype = dtype or ("float32" if device == "cpu" else "bfloat16")
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
        spec = read_spec(folder, name)
        checkpoint = Checkpoint(folder)
        config = checkpoint.sized(BagelConfig.read(folder))
        _check_sizes(folder, config, spec)
        tokenizer = BagelTokenizer.read(folder, config.decoder.vocab_size)
        network = load_network(
            config,
            checkpoint,
            device=device,
            dtype=DTYPES[dtype],
            gpus=gpus or (),
            max_memory=max_memory,
            on_progress=on_progress,
        )
        return Bagel(spec, network, tokenizer, max_batch=max_batch)

    @property
    def spec(self) -> ModelSpec:
        """What recipes may assume of this model."""
        return self._spec

    @property
    def tokens_read(self) -> int:
        """Tokens read into the caches, and to judge, since the model was loaded."""
        return self.reader.tokens_read

    @property
    def kv_bytes(self) -> int:
        """The memory the two caches take. It only grows until they are forgotten."""
        return self._context.num_bytes + self._texts.num_bytes

    def forget(self) -> None:
        """Drop both caches and the memory they take; the next call reads its context again."""
        layers = self.network.config.decoder.num_layers
        self._context, self._texts = Cache(layers), Cache(layers)

    @torch.inference_mode()
    def write(self, context: Context, settings: TextSettings, *, seed: int) -> Iterator[str]:
        """The text that follows `context`, in parts of whole characters as it is written."""
        self.reader.sync(self._context, items_of(context))
        stream = TextStream(self._tokenizer)
        for token_id in self.write_ids(settings, seed):
            if part := stream.push(token_id):
                yield part
        if part := stream.finish():
            yield part

    @torch.inference_mode()
    def write_ids(self, settings: TextSettings, seed: int) -> Iterator[int]:
        """The token ids that follow the context that has been read, up to the end token.

        What is written lies behind the context without becoming part of it: it is read again, as one text block, once
        it is an item, so that a context's numbers depend on its items alone.
        """
        sampler = Sampler(settings, seed)
        at = self._context.end
        token_id = self._tokenizer.text_start
        for _ in range(settings.max_new_tokens):
            hidden = self.network.read_text([token_id], CacheView(self._context, at, kept=True))
            at = CacheOffset(at.tokens + 1, at.position + 1)
            token_id = sampler.choose(self.network.logits(hidden[-1]))
            if token_id == self._tokenizer.text_end:
                return
            yield token_id

    def draw(self, context: Context, settings: ImageSettings, *, seeds: Sequence[int]) -> Iterator[Denoising | Drawn]:
        """Images that each follow `context`, one for each seed: a Denoising after each step of all, then one Drawn.

        Raises:
            ValueError: the size is not one this model draws, or none is given and the context has no image.
        """
        width, height = self.size(context, settings)
        rows, columns = height // self._spec.stride_px, width // self._spec.stride_px
        batches = [seeds[first : first + self.max_batch] for first in range(0, len(seeds), self.max_batch)]
        images: list[Image] = []
        for done, batch in enumerate(batches):
            shape = rows * columns, self.network.config.latent_width
            x = noise = torch.stack([gaussian_noise(*shape, seed) for seed in batch])
            for step in self.denoise(context, settings, noise, rows):
                x = step.x
                preview = partial(self._preview, step.clean, rows)
                yield Denoising(done=done * step.total + step.done, total=len(batches) * step.total, preview=preview)
            images += [self.picture(tokens, rows) for tokens in x]
        yield Drawn(images=tuple(images))

    @torch.inference_mode()
    def denoise(self, context: Context, settings: ImageSettings, noise: Tensor, rows: int) -> Iterator[FlowStep]:
        """From `noise` (I, L, C) on the CPU, for a grid of `rows` rows, to the latent tokens of I images at once.

        Without the first axis it is one image, and so are the steps.
        """
        network = self.network
        tokens, width = noise.shape[-2:]
        grid = self.reader.grid(rows, tokens // rows, network.config.latent_side)
        branches = self.branches(context, settings)
        images = noise.numel() // (tokens * width)
        velocity = GuidedVelocity(network, branches, settings, grid, self.reader.markers, images)
        yield from euler(velocity, noise.to(network.device), schedule(settings.num_timesteps, settings.timestep_shift))

    @torch.inference_mode()
    def judge(self, image: Image, question: str, answer: str | None = None) -> float:
        """How likely the model is to give `answer` to `question` about `image`, 0 to 1; of None, yes against no.

        It reads them into a cache of their own, to understand them only, which is gone when it returns.
        """
        cache = Cache(self.network.config.decoder.num_layers, latents=False)
        self.reader.sync(cache, (Picture(image), Text(question)))
        told = [self._tokenizer.text_start] if answer is None else self._tokenizer.frame(answer)
        seen = told[: max(1, len(told) - 1)]
        logits = self.network.logits(self.network.read_text(seen, CacheView(cache, cache.end, kept=True)))
        return self._verdicts.share_of_yes(logits[0]) if answer is None else likelihood(logits, told[1:])

    def branches(self, context: Context, settings: ImageSettings) -> Branches:
        """The contexts that drawing in `context` needs, read."""
        items = items_of(context)
        self.reader.sync(self._context, items)
        full = CacheView(self._context, self._context.end, kept=False)
        if settings.cfg_text_scale <= 1:
            return Branches(full=full)
        without_text = replace(full, at=text_free(self._context))
        if settings.cfg_img_scale <= 1:
            return Branches(full=full, text_free=without_text)
        texts = image_free(items)
        if len(texts) == len(items):
            return Branches(full=full, text_free=without_text, image_free=full)
        self.reader.sync(self._texts, texts)
        without_images = CacheView(self._texts, self._texts.end, kept=False)
        return Branches(full=full, text_free=without_text, image_free=without_images)

    def size(self, context: Context, settings: ImageSettings) -> tuple[int, int]:
        """The width and height to draw. Raises ValueError when this model can't draw that, or there is none."""
        width, height = settings.width, settings.height
        if width is None and height is None:
            pictures = [item.image for item in context.items if isinstance(item, Picture)]
            if not pictures:
                raise ValueError("no width and height given, and no image in the context to take them from")
            return self._spec.vae.size(*pictures[-1].size)
        if width is None or height is None:
            raise ValueError("only one of width and height given; give both, or neither to take the last image's")
        stride, longest = self._spec.stride_px, self._spec.max_side_px
        if width % stride or height % stride or min(width, height) <= 0 or max(width, height) > longest:
            allowed = f"sides are multiples of {stride} up to {longest} pixels"
            raise ValueError(f"{self._spec.name} can't draw {width}x{height}: its {allowed}")
        return width, height

    @torch.inference_mode()
    def picture(self, tokens: Tensor, rows: int, shrunk: int = 1) -> Image:
        """The image of latent tokens (L, C) in a grid of `rows` rows, `shrunk` by that factor before it is decoded."""
        latents = shrink(unpatchify(tokens, self.network.config.latent_patch, rows), shrunk)
        pixels: Tensor = self.network.latent_decoder(latents.to(self.network.dtype))
        return to_image(to_uint8(pixels))

    def _preview(self, x: Tensor, rows: int) -> Image:
        longest = max(rows, x.shape[1] // rows) * self._spec.stride_px
        return side_by_side([self.picture(tokens, rows, shrunk=-(-longest // PREVIEW_PX)) for tokens in x])


def _check_sizes(folder: Path, config: BagelConfig, spec: ModelSpec) -> None:
    """Raises ModelFolderError when images are resized to sizes that make no whole patches, or too many of them."""
    views = (
        ("vae", spec.vae, config.stride_px, config.latent_side),
        ("vit", spec.vit, config.vision.patch_px, config.vision_side),
    )
    for name, rule, patch_px, side in views:
        if rule.stride_px != patch_px or rule.max_px > side * patch_px:
            raise ModelFolderError(
                f"{folder / 'config.json'}: {name}_transform has stride {rule.stride_px} and max_size {rule.max_px}, "
                f"the weights are made for stride {patch_px} and at most {side * patch_px}"
            )

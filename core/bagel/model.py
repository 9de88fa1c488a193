"""BAGEL as a UnifiedModel: it reads, writes and draws."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from PIL.Image import Image
from PIL.Image import new as new_image
from torch import Tensor

from core.bagel.autoencoder import shrink, to_uint8, unpatchify
from core.bagel.context import Cache, CacheView
from core.bagel.decode import Writer
from core.bagel.flow import FlowStep, cuda_mark, euler, gaussian_noise, one_ahead, schedule
from core.bagel.fused import KERNELS
from core.bagel.guidance import Branches, GuidedVelocity, image_free, text_free
from core.bagel.images import side_by_side, to_image
from core.bagel.judge import YesNoTokens, likelihood
from core.bagel.network import Network
from core.bagel.placement import MemoryLimits, choose_device, load_network, smallest_gpu_bytes
from core.bagel.quantize import check_method, quantize_experts
from core.bagel.reader import Reader, items_of
from core.bagel.tokenizer import BagelTokenizer, TextStream
from core.bagel.weights import Checkpoint, Progress
from core.geometry import BagelConfig
from core.memory import CONTEXT_TOKENS, MAX_BATCH, VALUE_BYTES, MemoryNeeds
from core.model_folder import ModelFolderError, read_spec
from core.protocol import Context, Denoising, Drawn, Item, Picture, Text
from recipes.model_spec import ModelSpec
from recipes.recipe import ImageSettings, TextSettings

PREVIEW_PX = 128
WARM_UP_TOKENS = 16
"""The side of an image for warming up, in latent tokens: an even number of them, as in most images."""
DTYPES: Mapping[str, torch.dtype] = {name: getattr(torch, name) for name in VALUE_BYTES}


def default_dtype(device: str) -> str:
    """The dtype for a device if none is given."""
    return "float32" if device == "cpu" else "bfloat16"


def torch_dtype(name: str) -> torch.dtype:
    """Raises ValueError."""
    if name not in DTYPES:
        raise ValueError(f"dtype {name!r} is not one of {', '.join(DTYPES)}")
    return DTYPES[name]


class Bagel:
    """The model and its two persistent caches: one of the whole context, one of its texts only, for image guidance.

    Implements UnifiedModel. Not reentrant: exhaust or close the generator of `write` or `draw` before the next call.

    Args:
        spec: the spec of the model.
        network: the weights.
        tokenizer: the tokenizer.
        max_batch: maximum number of images computed at once; more are drawn in several batches. It bounds the memory
            of activations and changes the images only within rounding.
        cuda_graphs: whether to write with CUDA graphs where the weights are on one GPU; they give the same tokens.

    Raises:
        ValueError: `max_batch` is less than 1.
    """

    def __init__(
        self,
        spec: ModelSpec,
        network: Network,
        tokenizer: BagelTokenizer,
        *,
        max_batch: int = MAX_BATCH,
        cuda_graphs: bool = True,
    ) -> None:
        if max_batch < 1:
            raise ValueError(f"max_batch is {max_batch}; allowed: 1 or more")
        self.spec = spec
        self.network = network
        self.reader = Reader(network, tokenizer, spec)
        self.max_batch = max_batch
        self._tokenizer = tokenizer
        self._yes_no = YesNoTokens.of(tokenizer)
        self._writer = Writer.of(network, cuda_graphs=cuda_graphs)
        self.forget()

    @staticmethod
    def load(  # noqa: PLR0913 - the settings of a model
        folder: Path | str,
        *,
        name: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        quantize: str | None = None,
        gpus: Sequence[int] | None = None,
        max_memory: MemoryLimits | None = None,
        on_progress: Progress | None = None,
        max_batch: int | None = None,
        context_tokens: int = CONTEXT_TOKENS,
    ) -> "Bagel":
        """Load the model in `folder`, which has the official layout.

        Args:
            folder: the checkpoint.
            name: the name of the model; None uses the folder's name.
            device: "cpu", "cuda" or "cuda:1"; None uses CUDA if available.
            dtype: "float32" or "bfloat16"; None uses bfloat16 on CUDA and float32 on the CPU.
            quantize: "int8", "fp8" or "nf4" quantizes the experts' weights for a smaller GPU; it changes the results.
            gpus: numbers of the GPUs to use; the weights are distributed over them if there are several.
            max_memory: the most memory for weights on each GPU and in host memory ("cpu"); what does not fit on the
                GPUs is kept in host memory, and what does not fit there is read from the files for each call.
            on_progress: called with bytes loaded and total bytes.
            max_batch: maximum number of images computed at once (see Bagel); None: 8, or fewer on a GPU whose total
                memory is too small for them.
            context_tokens: length of the context for which memory is reserved on the GPUs.

        Raises:
            ModelFolderError: the folder is not a BAGEL checkpoint, or its files are inconsistent.
            ModelTooLargeError: the model does not fit on the GPU.
            ValueError: unknown dtype or device, a quantization that is not supported there, or `max_batch` is less
                than 1.
        """
        folder = Path(folder)
        device = choose_device(device, gpus or ())
        dtype = _checked_dtype(dtype, device, quantize)
        KERNELS.choose(torch.device(device))
        spec, checkpoint, config, tokenizer = _read(folder, name)
        devices = [f"cuda:{gpu}" for gpu in gpus] if gpus and len(gpus) > 1 else [device]
        needs = MemoryNeeds(
            config=config, dtype=dtype, quantization=quantize, tokens=context_tokens, side_px=spec.max_side_px
        )
        needs = _with_batch(needs, max_batch, devices)
        quantizer = partial(quantize_experts, method=quantize) if quantize else None
        network = load_network(
            needs, checkpoint, devices, max_memory=max_memory, quantize=quantizer, on_progress=on_progress
        )
        return Bagel(spec, network, tokenizer, max_batch=needs.batch)

    @property
    def tokens_read(self) -> int:
        """Tokens read since the model was loaded, including those read to judge images."""
        return self.reader.tokens_read

    @property
    def tokens_decoded(self) -> int:
        """Tokens written since the model was loaded, including the end token of each text."""
        return self._writer.tokens_decoded

    @property
    def kv_bytes(self) -> int:
        """The memory of the two caches; it only grows until `forget`."""
        return self._context.num_bytes + self._texts.num_bytes

    def forget(self) -> None:
        """Release both caches and their memory; the next call reads its context again."""
        self._writer.forget()
        self._context, self._texts = self.network.empty_cache(), self.network.empty_cache()

    def warm_up(self) -> None:
        """Write, draw and judge once: compiles kernels, records graphs, and imports what is imported on first use."""
        counts = self.reader.tokens_read, self._writer.tokens_decoded
        side = min(WARM_UP_TOKENS * self.spec.stride_px, self.spec.max_side_px)
        context = Context(items=(Text("A"), Picture(new_image("RGB", (side, side))), Text("B")))
        settings = ImageSettings(
            width=side,
            height=side,
            num_timesteps=3,
            timestep_shift=1.0,
            cfg_text_scale=2.0,
            cfg_img_scale=2.0,
            cfg_interval=(0.6, 1.0),  # the first of the two steps is guided
        )
        for _ in self.write(context, TextSettings(max_new_tokens=4, temperature=1.0), seed=0):
            pass
        for progress in self.draw(context, settings, seeds=(0,)):
            if isinstance(progress, Denoising):
                progress.preview()
            else:
                self.judge(progress.images[0], "C", "D")
        self.forget()
        self.reader.tokens_read, self._writer.tokens_decoded = counts

    def prefill(self, context: Context, settings: TextSettings | ImageSettings) -> Iterator[None]:
        """Read what a generation in `context` with `settings` needs and the caches lack; yields after each item.

        An item counts once the device has read it, so that a device that hangs yields nothing.
        """
        items = items_of(context)
        yield from self._read(self._context, items)
        if isinstance(settings, ImageSettings) and min(settings.cfg_text_scale, settings.cfg_img_scale) > 1:
            texts = image_free(items)
            if len(texts) < len(items):
                yield from self._read(self._texts, texts)

    def _read(self, cache: Cache, items: Sequence[Item]) -> Iterator[None]:
        for _ in self.reader.read(cache, items):
            if self.network.device.type == "cuda":
                cuda_mark(self.network.device)()
            yield

    @torch.inference_mode()
    def write(self, context: Context, settings: TextSettings, *, seed: int) -> Iterator[str]:
        """Generate the text that follows `context`, in parts of whole characters."""
        self.reader.sync(self._context, items_of(context))
        stream = TextStream(self._tokenizer)
        for token_id in self.write_ids(settings, seed):
            if part := stream.push(token_id):
                yield part
        if part := stream.finish():
            yield part

    def write_ids(self, settings: TextSettings, seed: int) -> Iterator[int]:
        """Generate the token ids that follow the cached context, up to the end token.

        The tokens are written after the context without becoming part of it. The text is read again, as one block, once
        it is an item, so that the cache depends only on the items of the context.
        """
        start, end = self._tokenizer.text_start, self._tokenizer.text_end
        return self._writer.ids(self._context, settings, seed, start=start, end=end)

    def draw(self, context: Context, settings: ImageSettings, *, seeds: Sequence[int]) -> Iterator[Denoising | Drawn]:
        """Generate one image per seed, each following `context`: yields a Denoising after each step, then one Drawn.

        Raises:
            ValueError: the model does not support the size, or none is given and the context has no image.
        """
        width, height = self.size(context, settings)
        rows, columns = height // self.spec.stride_px, width // self.spec.stride_px
        batches = [seeds[first : first + self.max_batch] for first in range(0, len(seeds), self.max_batch)]
        images: list[Image] = []
        for done, batch in enumerate(batches):
            shape = rows * columns, self.network.config.latent_width
            x = noise = torch.stack([gaussian_noise(*shape, seed) for seed in batch])
            for step in self.denoise(context, settings, noise, rows):
                x = step.x
                preview = partial(self._preview, step, rows)
                progress = Denoising(
                    done=done * step.total + step.done, total=len(batches) * step.total, preview=preview
                )
                yield progress
            for number, tokens in enumerate(x):
                if number:
                    yield progress  # the same again, as a sign of life: decoding may take long
                images.append(self.picture(tokens, rows))
        yield Drawn(images=tuple(images))

    @torch.inference_mode()
    def denoise(self, context: Context, settings: ImageSettings, noise: Tensor, rows: int) -> Iterator[FlowStep]:
        """Denoise `noise` (I, L, C), on the CPU, for a grid of `rows` rows: the latent tokens of I images at once.

        For one image, `noise` and the steps may omit the first axis.
        """
        network, device = self.network, self.network.device
        tokens, width = noise.shape[-2:]
        grid = self.reader.grid(rows, tokens // rows, network.config.latent_side)
        times = schedule(settings.num_timesteps, settings.timestep_shift)
        branches = self.branches(context, settings)
        constants = network.latent_constants(grid, times[:-1], self.reader.markers)
        images = noise.numel() // (tokens * width)
        velocity = GuidedVelocity(network, branches, settings, times[:-1], constants, images)
        mark = partial(cuda_mark, device) if device.type == "cuda" else None
        yield from one_ahead(euler(velocity, noise.to(device), times), mark)

    @torch.inference_mode()
    def judge(self, image: Image, question: str, answer: str | None = None) -> float:
        """The probability that the model gives `answer` to `question` about `image`; if None, that of yes against no.

        Uses a separate, temporary cache without latents.
        """
        cache = self.network.empty_cache(latents=False)
        self.reader.sync(cache, (Picture(image), Text(question)))
        ids = [self._tokenizer.text_start] if answer is None else self._tokenizer.frame(answer)
        seen = ids[: max(1, len(ids) - 1)]
        logits = self.network.logits(self.network.read_text(seen, CacheView(cache, cache.end, kept=True)))
        return self._yes_no.probability_of_yes(logits[0]) if answer is None else likelihood(logits, ids[1:])

    def branches(self, context: Context, settings: ImageSettings) -> Branches:
        """Read the contexts that are needed to draw in `context`."""
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
        """The width and height to draw.

        Raises:
            ValueError: the model does not support the size, or none is given and the context has no image.
        """
        width, height = settings.width, settings.height
        if width is None and height is None:
            pictures = [item for item in context.items if isinstance(item, Picture)]
            if not pictures:
                raise ValueError("no width and height are given, and the context has no image whose size to use")
            return self.spec.vae.size(*pictures[-1].size)
        if width is None or height is None:
            raise ValueError("only one of width and height is given; give both, or neither to use the last image's")
        stride, longest = self.spec.stride_px, self.spec.max_side_px
        if width % stride or height % stride or min(width, height) <= 0 or max(width, height) > longest:
            allowed = f"sides are multiples of {stride} up to {longest} pixels"
            raise ValueError(f"{self.spec.name} can't draw {width}x{height}: {allowed}")
        return width, height

    @torch.inference_mode()
    def picture(self, tokens: Tensor, rows: int, shrunk: int = 1) -> Image:
        """Decode latent tokens (L, C) in a grid of `rows` rows, reduced by the factor `shrunk` before decoding."""
        latents = shrink(unpatchify(tokens, self.network.config.latent_patch, rows), shrunk)
        pixels: Tensor = self.network.latent_decoder(latents.to(self.network.dtype))
        return to_image(to_uint8(pixels))

    def _preview(self, step: FlowStep, rows: int) -> Image:
        longest = max(rows, step.x.shape[1] // rows) * self.spec.stride_px
        return side_by_side([self.picture(tokens, rows, shrunk=-(-longest // PREVIEW_PX)) for tokens in step.clean])


def _checked_dtype(dtype: str | None, device: str, quantize: str | None) -> str:
    """The dtype of the weights. Raises ValueError if it is unknown, or `device` can't compute with `quantize`."""
    dtype = dtype or default_dtype(device)
    torch_dtype(dtype)
    if quantize is not None:
        check_method(quantize, device)
    return dtype


def _read(folder: Path, name: str | None) -> tuple[ModelSpec, Checkpoint, BagelConfig, BagelTokenizer]:
    """Everything in a model folder but the weights themselves. Raises ModelFolderError."""
    spec, checkpoint = read_spec(folder, name), Checkpoint(folder)
    config = checkpoint.sized(BagelConfig.read(folder))
    _check_sizes(folder, config, spec)
    return spec, checkpoint, config, BagelTokenizer.read(folder, config.decoder.vocab_size)


def _with_batch(needs: MemoryNeeds, max_batch: int | None, devices: Sequence[str]) -> MemoryNeeds:
    """`needs` with the maximum batch: the one that is given, else the default of `devices`."""
    needs = replace(needs, batch=MAX_BATCH if max_batch is None else max_batch)
    if max_batch is not None or devices[0] == "cpu":
        return needs
    return needs.with_default_batch(smallest_gpu_bytes(devices), len(devices))


def _check_sizes(folder: Path, config: BagelConfig, spec: ModelSpec) -> None:
    """Check that the sizes to which images are resized give whole patches, and no more than the tables allow.

    Raises:
        ModelFolderError: they do not.
    """
    views = (
        ("vae", spec.vae, config.stride_px, config.latent_side),
        ("vit", spec.vit, config.vision.patch_px, config.vision_side),
    )
    for name, rule, patch_px, side in views:
        if rule.stride_px != patch_px or rule.max_px > side * patch_px:
            raise ModelFolderError(
                f"{folder / 'config.json'}: {name}_transform has stride {rule.stride_px} and max_size {rule.max_px}, "
                f"but the weights require stride {patch_px} and at most {side * patch_px}"
            )

"""How much memory a model needs: its weights, the context and the activations, in bytes, estimated from its geometry.

The formulas follow the engine's largest tensors. They are used for `autoseq plan --memory`, to decide which layers stay
on a device, to refuse a model at the start, and for the default of the maximum batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Literal, TypeAlias

from core.geometry import BagelConfig
from core.parameters import layer_matrices, layer_vectors, other_parameters

VALUE_BYTES = {"float32": 4, "bfloat16": 2}
QUANTIZATIONS = ("int8", "fp8", "nf4")
SCALE_BYTES = 4
NF4_BLOCK = 64
"""Values of a matrix in nf4 that share a scale; in int8 and fp8, the values of a row share one."""
USABLE = 0.92
"""The share of a device's memory for tensors; the rest is for CUDA itself, its libraries, and what fragments."""
MAX_BATCH = 8
CONTEXT_TOKENS = 32_768
"""The default length of the context for which memory is reserved: the text and 3 images of 1024 x 1024 pixels."""
SLOTS = 2
"""Offloaded layers on the device at a time: one computes while the next one is copied."""
BRANCHES = 3
"""The contexts in which an image is computed with guidance by text and images."""
LAYER_PEAK = 3
"""Tensors of a layer at its peak: as wide as the inner size of the MLP (gate and up as one, and their product) …"""
LAYER_PEAK_HIDDEN = 10
"""… and as wide as the hidden size."""
PIXEL_PEAK = 7
"""Tensors of the autoencoder at its peak, with the first level's channels for each pixel."""

Kept: TypeAlias = Literal["device", "host", "files"]
"""Where the weights of a module are while it does not compute: on its device, in host memory or in the files."""


class ModelTooLargeError(ValueError):
    """A model does not fit on its device: says what is needed, what is there, and what would fit."""


def usable(total_bytes: int) -> int:
    """The part of `total_bytes` on a GPU that tensors can take."""
    return int(USABLE * total_bytes)


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """The bytes of a model's weights: those of each decoder layer, which can be offloaded, and of everything else."""

    small: int
    layer: int
    num_layers: int

    @staticmethod
    def of(config: BagelConfig, dtype: str, quantization: str | None = None) -> "ModelSize":
        """The weights in `dtype`, with the matrices of the decoder layers quantized."""
        size = VALUE_BYTES[dtype]
        matrices = sum(_matrix_bytes(*shape, size, quantization) for shape in layer_matrices(config.decoder))
        layer = 2 * (matrices + size * layer_vectors(config.decoder))
        return ModelSize(small=size * other_parameters(config), layer=layer, num_layers=config.decoder.num_layers)

    @property
    def whole(self) -> int:
        return self.small + self.num_layers * self.layer

    @property
    def least(self) -> int:
        """What has to be on a GPU if all layers are offloaded."""
        return self.small + min(SLOTS, self.num_layers) * self.layer


def _matrix_bytes(rows: int, columns: int, value_bytes: int, quantization: str | None) -> int:
    if quantization is None:
        return rows * columns * value_bytes
    if quantization == "nf4":
        return rows * columns // 2 + SCALE_BYTES * rows * columns // NF4_BLOCK
    return rows * columns + SCALE_BYTES * rows


@dataclass(frozen=True, kw_only=True)
class MemoryNeeds:
    """What a model needs to compute sequences: the size of its weights, and working memory, in bytes.

    Args:
        config: the geometry of the model.
        dtype: the dtype of weights, caches and activations.
        quantization: how the matrices of the decoder layers are quantized.
        tokens: the length of the longest context.
        side_px: the side of an image; other images count as squares with their area.
        branches: the contexts in which an image is computed.
        batch: the maximum number of images computed at once.
    """

    config: BagelConfig
    dtype: str
    quantization: str | None = None
    tokens: int = CONTEXT_TOKENS
    side_px: float
    branches: int = BRANCHES
    batch: int = 1

    @property
    def size(self) -> ModelSize:
        return ModelSize.of(self.config, self.dtype, self.quantization)

    @property
    def context(self) -> int:
        """Keys and values of the longest context, and of an image that is being drawn.

        With guidance by images, the image is also drawn in a cache of the texts only.
        """
        blocks = 2 if self.branches == BRANCHES else 1
        return VALUE_BYTES[self.dtype] * self.config.kv_values_per_token * (self.tokens + blocks * self._block)

    @property
    def activations(self) -> int:
        """The larger of two peaks.

        A decoder layer computes all branches of a batch at once. The autoencoder then processes one image at a time.
        """
        decoder, pixels = self.config.decoder, self.side_px**2
        inner = LAYER_PEAK + (self.quantization == "int8")  # whose products are scaled in a copy
        layer = inner * decoder.intermediate_size + LAYER_PEAK_HIDDEN * decoder.hidden_size
        restored = max(math.prod(shape) for shape in layer_matrices(decoder)) if self.quantization else 0
        autoencoder = PIXEL_PEAK * self.config.autoencoder.channels * pixels
        values = max(self.batch * self.branches * self._block * layer + restored, autoencoder)
        return VALUE_BYTES[self.dtype] * int(values)

    @property
    def beside(self) -> int:
        """Everything but the weights."""
        return self.context + self.activations

    @property
    def least(self) -> int:
        """What has to be on a GPU if all decoder layers are offloaded."""
        return self.size.least + self.beside

    @property
    def whole(self) -> int:
        """What is needed without offloading."""
        return self.size.whole + self.beside

    @property
    def _block(self) -> int:
        """Tokens of an image that is being drawn."""
        return 2 + int((self.side_px / self.config.stride_px) ** 2)

    def with_default_batch(self, card_bytes: int, cards: int = 1) -> "MemoryNeeds":
        """The same with the default of the maximum batch on GPUs that have `card_bytes` each.

        It depends on nothing that changes from one start to the next, since a batch changes images within rounding.
        """
        share = self.size.small + -(-self.size.num_layers // cards) * self.size.layer
        needs = [replace(self, batch=batch) for batch in range(MAX_BATCH, 0, -1)]
        return next((one for one in needs if share + one.beside <= usable(card_bytes)), needs[-1])

    def refusal(self, free: int) -> ModelTooLargeError:
        """The error for a model that does not fit in `free` bytes of a GPU even if all decoder layers are offloaded."""
        changes = {f"AUTOSEQ_QUANTIZE={name}": replace(self, quantization=name) for name in QUANTIZATIONS}
        changes |= {f"AUTOSEQ_MAX_BATCH={batch}": replace(self, batch=batch) for batch in (1, self.batch // 2) if batch}
        changes["a short context (AUTOSEQ_CONTEXT_TOKENS)"] = replace(self, tokens=0)
        fitting = [change for change, needs in changes.items() if needs.least <= free]
        remedy = f"these would fit: {', '.join(fitting)}" if fitting else "use a larger GPU, or AUTOSEQ_DEVICE=cpu"
        return ModelTooLargeError(
            f"the model needs {gigabytes(self.least)} on the GPU with all decoder layers offloaded "
            f"({gigabytes(self.size.least)} of weights, {gigabytes(self.context)} for a context of {self.tokens:,} "
            f"tokens, {gigabytes(self.activations)} to compute a batch of {self.batch}), but {gigabytes(free)} are "
            f"free; {remedy}"
        )


def gigabytes(num_bytes: int) -> str:
    """A number of bytes as people write it."""
    return f"{num_bytes / 1e9:.1f} GB"


def layer_places(size: ModelSize, rooms: Sequence[int], host_room: int) -> list[tuple[int, Kept]]:
    """For each decoder layer, the GPU that computes it and where its weights are kept.

    Each GPU computes a run of layers, and keeps as many of them as fit. The offloaded ones are spread evenly between
    those, so that a copy has the time of several layers. What does not fit in host memory is read from the files.

    Args:
        size: the size of the model.
        rooms: bytes for weights on each GPU; at least `size.least` on the first one, which also has all other weights.
        host_room: bytes for weights in host memory.
    """
    free = [room - size.small * (gpu == 0) for gpu, room in enumerate(rooms)]
    kept = [max(0, room) // size.layer for room in free]
    computing = kept
    if sum(kept) < size.num_layers:
        slots = size.least - size.small
        kept = [max(0, room - slots) // size.layer for room in free]
        computing = kept if sum(kept) else [int(room >= slots) for room in free]
    ends = [round(size.num_layers * end / sum(computing)) for end in accumulate(computing, initial=0)]
    places: list[tuple[int, Kept]] = []
    for gpu, (first, last) in enumerate(pairwise(ends)):
        count, offloaded = last - first, max(0, last - first - kept[gpu])
        for index in range(count):
            stays = (index + 1) * offloaded // count == index * offloaded // count
            in_host = sum(place == "host" for _, place in places) < host_room // size.layer
            places.append((gpu, "device" if stays else "host" if in_host else "files"))
    return places

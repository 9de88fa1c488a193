"""The persistent KV cache: keys and values of the items read so far, and the offset after each item."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.protocol import Item

GROWTH = 1.5


class LayerKV:
    """Keys and values of one layer, each (rows, M, H): the scratch area, then the items.

    While an image is being drawn, the scratch area contains its noised block, directly before the first item. So the
    block and any prefix of the items are contiguous rows, and nothing has to be copied. The layout does not depend on
    the capacity, and neither do the computed numbers.

    With a scratch area of 4 rows, 5 tokens of items and a noised block of 3 tokens:

        row        0  1  2  3 | 4  5  6  7  8 | 9 10 11
        holds      .  n  n  n | a  a  b  b  b | .  .  .
        full context, keys:     rows 1..8
        prefix `a`, keys:       rows 1..5
        the next item, of 3 tokens, goes to rows 9..11 and attends to rows 4..11
    """

    def __init__(self) -> None:
        self.scratch = 0
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def put(self, keys: Tensor, values: Tensor, length: int, *, kept: bool) -> tuple[Tensor, Tensor]:
        """Write a block (L, M, H) after the first `length` tokens (`kept`) or into the scratch area.

        Returns:
            The keys and values that the block attends to: those of the first `length` tokens and its own.
        """
        size = keys.shape[0]
        all_keys, all_values = self.reserve(keys, 0 if kept else size, length + size if kept else length)
        first = self.scratch + length if kept else self.scratch - size
        all_keys[first : first + size] = keys
        all_values[first : first + size] = values
        start = self.scratch if kept else first
        stop = self.scratch + length + (size if kept else 0)
        return all_keys[start:stop], all_values[start:stop]

    @property
    def num_bytes(self) -> int:
        """The memory used, including the scratch area and spare capacity."""
        return 0 if self.keys is None or self.values is None else self.keys.nbytes + self.values.nbytes

    def items(self, length: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first `length` tokens."""
        if self.keys is None or self.values is None:
            raise LookupError("the cache is empty")
        return self.keys[self.scratch : self.scratch + length], self.values[self.scratch : self.scratch + length]

    def reserve(self, like: Tensor, scratch: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Buffers for `scratch` rows and `tokens`; they grow geometrically, on the device of `like`."""
        if self.keys is None or self.values is None:
            self.scratch = scratch
            shape = (scratch + tokens, *like.shape[1:])
            self.keys, self.values = like.new_empty(shape), like.new_empty(shape)
        elif scratch > self.scratch or self.scratch + tokens > self.keys.shape[0]:
            held = self.keys.shape[0] - self.scratch
            room = held if tokens <= held else max(tokens, int(held * GROWTH))
            wider = max(scratch, self.scratch)
            self.keys = _moved(self.keys[self.scratch :], wider, room)
            self.values = _moved(self.values[self.scratch :], wider, room)
            self.scratch = wider
        return self.keys, self.values


def _moved(items: Tensor, scratch: int, room: int) -> Tensor:
    grown = items.new_empty((scratch + room, *items.shape[1:]))
    grown[scratch : scratch + items.shape[0]] = items
    return grown


@dataclass(frozen=True)
class CacheOffset:
    """A position in a cache: the number of tokens before it, and the rotary position of the next block."""

    tokens: int
    position: int


START = CacheOffset(0, 0)


@dataclass(frozen=True)
class CachedItem:
    """An item in a cache, and the offset after it."""

    item: Item
    end: CacheOffset


class Cache:
    """Keys and values of all layers for a list of items. An item is added after it has been read completely."""

    def __init__(self, num_layers: int, *, latents: bool = True) -> None:
        self.latents = latents
        """Whether images are also read as latents, which drawing requires, or only as ViT patches."""
        self.layers = [LayerKV() for _ in range(num_layers)]
        self.entries: list[CachedItem] = []

    @property
    def end(self) -> CacheOffset:
        return self.offset_after(len(self.entries))

    @property
    def num_bytes(self) -> int:
        """The memory of its keys and values, including spare capacity."""
        return sum(layer.num_bytes for layer in self.layers)

    @property
    def addresses(self) -> tuple[tuple[int, ...], ...]:
        """The place of each buffer in memory: equal as long as no buffer has been moved or has grown."""
        buffers = [buffer for layer in self.layers for buffer in (layer.keys, layer.values) if buffer is not None]
        return tuple((buffer.data_ptr(), *buffer.shape) for buffer in buffers)

    @property
    def first_row(self) -> int:
        """The row of the first item in the buffers of each layer."""
        return self.layers[0].scratch

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` in the buffers that exist, so that they stay in place until there are more."""
        for layer in self.layers:
            if layer.keys is not None:
                layer.reserve(layer.keys, 0, tokens)

    def offset_after(self, count: int) -> CacheOffset:
        """The offset after the first `count` items."""
        return self.entries[count - 1].end if count else START

    def keep_common(self, items: Sequence[Item]) -> Sequence[Item]:
        """Evict everything after the common prefix with `items`; returns the items that are not cached."""
        common = 0
        for entry, item in zip(self.entries, items, strict=False):
            if entry.item != item:
                break
            common += 1
        del self.entries[common:]
        return items[common:]

    def stacked(self, length: int) -> tuple[Tensor, Tensor]:
        """A copy of the keys and values of the first `length` tokens, (layers, length, M, H), on the CPU."""
        pairs = [layer.items(length) for layer in self.layers]
        return torch.stack([keys.cpu() for keys, _ in pairs]), torch.stack([values.cpu() for _, values in pairs])


@dataclass(frozen=True)
class CacheView:
    """The part of a cache that one block of a pack attends to, and where its own keys and values are written."""

    cache: Cache
    at: CacheOffset
    kept: bool
    """Whether the block becomes part of the context; a noised block does not."""

    def put(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values that the block attends to in `layer`, including its own (see LayerKV)."""
        return self.cache.layers[layer].put(keys, values, self.at.tokens, kept=self.kept)


@dataclass(frozen=True)
class TokenView:
    """The place of a single token that the device alone knows: of the next token of a text that is being written."""

    cache: Cache
    capacity: int
    """The most tokens that the cache will hold."""
    row: Tensor
    """Its row in the buffers, int64 (1,)."""
    length: Tensor
    """The tokens that it attends to, itself included, int64 (1,); on the host if attention needs it there."""

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The row and the length, for a layer on `device`."""
        return self.row.to(device), self.length if self.length.is_cpu else self.length.to(device)

    def buffers(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor, int]:
        """The whole buffers of `layer`, for keys like `like` (L, M, H), and the row of the first item."""
        kv = self.cache.layers[layer]
        return *kv.reserve(like, 0, self.capacity), kv.scratch

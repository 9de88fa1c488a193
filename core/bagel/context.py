"""The persistent KV cache: keys and values of the items read so far, and the offset after each item.

Axes: L tokens of a block, N query heads, M key-value heads, H head dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from core.bagel.attention import attend
from core.bagel.fused import decode_attention
from core.protocol import Item

ROWS = 64
"""Buffers have a multiple of this number of rows for items, and longer ones a multiple of an eighth of their size."""


class Block(NamedTuple):
    """The rows of a block in the buffers of a layer, and those that it attends to."""

    keys: Tensor
    """(L, M, H), to be written."""
    values: Tensor
    seen_keys: Tensor
    seen_values: Tensor
    causal: bool
    row: Tensor | None = None

    def attend(self, queries: Tensor) -> Tensor:
        """The output of attention (L, N * H) for `queries` (L, N, H), once keys and values are written."""
        return attend(queries, self.seen_keys, self.seen_values, causal=self.causal)


class Token(NamedTuple):
    """Like Block, for a single token whose row the device knows."""

    keys: Tensor
    """The whole buffer, (rows, M, H)."""
    values: Tensor
    row: Tensor
    first: int
    length: Tensor

    def attend(self, queries: Tensor) -> Tensor:
        if queries.is_cuda and self.length.is_cpu:
            seen = slice(self.first, self.first + int(self.length))
            return attend(queries, self.keys[seen], self.values[seen], causal=True)
        return decode_attention(queries[0], self.keys, self.values, self.first, self.length).view(1, -1)


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

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.scratch = 0
        self.keys, self.values = (torch.empty((0, *shape), dtype=dtype, device=device) for _ in range(2))

    @property
    def num_bytes(self) -> int:
        """The memory used, including the scratch area and spare capacity."""
        return self.keys.nbytes + self.values.nbytes

    def reserve(self, scratch: int, tokens: int) -> None:
        """Have a scratch area of `scratch` rows, and rows for `tokens` tokens; the buffers never shrink."""
        room = self.keys.shape[0] - self.scratch
        if scratch > self.scratch or tokens > room:
            scratch, room = max(scratch, self.scratch), max(_rounded(tokens), room)
            self.keys, self.values = (_moved(old[self.scratch :], scratch, room) for old in (self.keys, self.values))
            self.scratch = scratch

    def block(self, length: int, size: int, *, kept: bool, causal: bool) -> Block:
        """The place of a block of `size` tokens after the first `length` tokens (`kept`) or in the scratch area.

        It attends to the first `length` tokens and to itself.
        """
        self.reserve(0 if kept else size, length + size if kept else length)
        first = self.scratch + length if kept else self.scratch - size
        own = slice(first, first + size)
        seen = slice(self.scratch if kept else first, self.scratch + length + (size if kept else 0))
        return Block(self.keys[own], self.values[own], self.keys[seen], self.values[seen], causal)

    def items(self, length: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first `length` tokens."""
        rows = slice(self.scratch, self.scratch + length)
        return self.keys[rows], self.values[rows]


def _rounded(tokens: int) -> int:
    """Few sizes, so that buffers are seldom moved and their memory can be used again."""
    step = max(ROWS, 1 << max(tokens.bit_length() - 4, 0))
    return -(-tokens // step) * step


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

    def __init__(self, layers: Sequence[LayerKV], *, latents: bool = True) -> None:
        self.latents = latents
        """Whether images are also read as latents, which drawing requires, or only as ViT patches."""
        self.layers = layers
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
        buffers = [buffer for layer in self.layers for buffer in (layer.keys, layer.values)]
        return tuple((buffer.data_ptr(), *buffer.shape) for buffer in buffers)

    def reserve(self, *, scratch: int = 0, tokens: int = 0) -> None:
        """Reserve the memory of a phase: `scratch` rows for its noised blocks, and `tokens` after the cached items.

        The buffers stay at their addresses until more is needed.
        """
        for layer in self.layers:
            layer.reserve(scratch, self.end.tokens + tokens)

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
        if not self.num_bytes:
            raise LookupError("the cache is empty")
        pairs = [layer.items(length) for layer in self.layers]
        return torch.stack([keys.cpu() for keys, _ in pairs]), torch.stack([values.cpu() for _, values in pairs])


class View(Protocol):
    """The part of a cache that one block of a pack attends to, and where its own keys and values are written."""

    def place(self, layer: int, size: int, /) -> Block | Token:
        """The place of the block, of `size` tokens, in the buffers of `layer`."""


@dataclass(frozen=True)
class CacheView:
    """A view at an offset."""

    cache: Cache
    at: CacheOffset
    kept: bool
    """Whether the block becomes part of the context; a noised block does not."""
    causal: bool = False
    """Whether each token of the block sees only those before it and itself, as in a text."""

    def place(self, layer: int, size: int) -> Block:
        return self.cache.layers[layer].block(self.at.tokens, size, kept=self.kept, causal=self.causal)


class TokenView:
    """A view for one more token, in buffers that have been reserved.

    Args:
        cache: the cache.
        tokens: the number of tokens before it, an int64 (1,) on the device.
        length: one more; on the host if the device has no kernel that reads it.
    """

    def __init__(self, cache: Cache, tokens: Tensor, length: Tensor) -> None:
        self.cache = cache
        self.first = cache.layers[0].scratch
        self.row, self.length = tokens + self.first, length

    def place(self, layer: int, _size: int) -> Token:
        buffers = self.cache.layers[layer]
        device = buffers.keys.device
        length = self.length if self.length.is_cpu else self.length.to(device)
        return Token(buffers.keys, buffers.values, self.row.to(device), self.first, length)

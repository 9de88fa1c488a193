"""The persistent context: keys and values of the items read so far, and where each item ends."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.protocol import Item

GROWTH = 1.5


class LayerKV:
    """Keys and values of one layer, each (rows, M, H): the front, then the items.

    The front is where a noised block lies while an image is being drawn: right before the first item, so that the
    block and any prefix of the items are one run of rows and nothing is ever copied together. The layout never
    depends on the capacity, so neither do the numbers that come out.

    With a front of 4 rows, 5 tokens of items and a noised block of 3 tokens:

        row        0  1  2  3 | 4  5  6  7  8 | 9 10 11
        holds      .  n  n  n | a  a  b  b  b | .  .  .
        full context, keys:     rows 1..8
        prefix `a`, keys:       rows 1..5
        a next item of 3 tokens goes to rows 9..11 and sees rows 4..11
    """

    def __init__(self) -> None:
        self.front = 0
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def put(self, keys: Tensor, values: Tensor, length: int, *, kept: bool) -> tuple[Tensor, Tensor]:
        """Write a block (L, M, H) behind the first `length` tokens (kept), or into the front.

        Returns:
            The keys and values the block attends to: the first `length` tokens and itself.
        """
        size = keys.shape[0]
        all_keys, all_values = self._reserve(keys, 0 if kept else size, length + size if kept else length)
        first = self.front + length if kept else self.front - size
        all_keys[first : first + size] = keys
        all_values[first : first + size] = values
        start = self.front if kept else first
        stop = self.front + length + (size if kept else 0)
        return all_keys[start:stop], all_values[start:stop]

    @property
    def num_bytes(self) -> int:
        """The memory it takes, front and room to grow included."""
        return 0 if self.keys is None or self.values is None else self.keys.nbytes + self.values.nbytes

    def items(self, length: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first `length` tokens."""
        if self.keys is None or self.values is None:
            raise LookupError("nothing has been read into this cache")
        return self.keys[self.front : self.front + length], self.values[self.front : self.front + length]

    def _reserve(self, like: Tensor, front: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Buffers with room for a `front` and `tokens`; they grow geometrically, on the device of `like`."""
        if self.keys is None or self.values is None:
            self.front = front
            shape = (front + tokens, *like.shape[1:])
            self.keys, self.values = like.new_empty(shape), like.new_empty(shape)
        elif front > self.front or self.front + tokens > self.keys.shape[0]:
            held = self.keys.shape[0] - self.front
            room = held if tokens <= held else max(tokens, int(held * GROWTH))
            wider = max(front, self.front)
            self.keys = _moved(self.keys[self.front :], wider, room)
            self.values = _moved(self.values[self.front :], wider, room)
            self.front = wider
        return self.keys, self.values


def _moved(items: Tensor, front: int, room: int) -> Tensor:
    grown = items.new_empty((front + room, *items.shape[1:]))
    grown[front : front + items.shape[0]] = items
    return grown


@dataclass(frozen=True)
class CacheOffset:
    """Where a context stands: tokens held, and the rotary position that the next block takes."""

    tokens: int
    position: int


START = CacheOffset(0, 0)


@dataclass(frozen=True)
class CachedItem:
    """An item in a cache, and where the context stands after it."""

    item: Item
    end: CacheOffset


class Cache:
    """Keys and values of all layers for a list of items. An item counts once it has been read whole."""

    def __init__(self, num_layers: int, *, latents: bool = True) -> None:
        self.latents = latents
        """Whether images are read as latents too, which drawing needs, or as ViT patches alone, to understand them."""
        self.layers = [LayerKV() for _ in range(num_layers)]
        self.held: list[CachedItem] = []

    @property
    def end(self) -> CacheOffset:
        return self.mark(len(self.held))

    @property
    def num_bytes(self) -> int:
        """The memory its keys and values take, with the room they have to grow."""
        return sum(layer.num_bytes for layer in self.layers)

    def mark(self, count: int) -> CacheOffset:
        """Where the context stands after its first `count` items."""
        return self.held[count - 1].end if count else START

    def keep_common(self, items: Sequence[Item]) -> Sequence[Item]:
        """Evict what does not begin `items`; returns the items still to be read."""
        common = 0
        for held, item in zip(self.held, items, strict=False):
            if held.item != item:
                break
            common += 1
        del self.held[common:]
        return items[common:]

    def stacked(self, length: int) -> tuple[Tensor, Tensor]:
        """A copy of keys and values of the first `length` tokens, (layers, length, M, H) on the CPU."""
        pairs = [layer.items(length) for layer in self.layers]
        return torch.stack([keys.cpu() for keys, _ in pairs]), torch.stack([values.cpu() for _, values in pairs])


@dataclass(frozen=True)
class CacheView:
    """What one block of a pack sees, and where its own keys and values go."""

    cache: Cache
    at: CacheOffset
    kept: bool
    """Whether the block becomes part of the context, or is a noised block that leaves no trace."""

    def put(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values the block attends to in `layer`, its own included (see LayerKV)."""
        return self.cache.layers[layer].put(keys, values, self.at.tokens, kept=self.kept)

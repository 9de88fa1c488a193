"""Guided velocity: which contexts an image is computed in, and how their velocities make one."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from core.bagel.context import Cache, CacheOffset, CacheView
from core.bagel.flow import guide, holds
from core.bagel.network import Network
from core.protocol import Item, Text
from recipes.recipe import ImageSettings


def without_thought(items: Sequence[Item]) -> Sequence[Item]:
    """`items` without the thoughts at their end, which are about the image drawn next."""
    count = len(items)
    while count and _is_thought(items[count - 1]):
        count -= 1
    return items[:count]


def _is_thought(item: Item) -> bool:
    return isinstance(item, Text) and item.thought


def text_free(cache: Cache) -> CacheOffset:
    """The prefix of `cache` without the last text item; after an image, up to and with that image."""
    items = without_thought([held.item for held in cache.held])
    count = len(items)
    if count and isinstance(items[-1], Text):
        count -= 1
    return cache.mark(count)


def image_free(items: Sequence[Item]) -> tuple[Item, ...]:
    """The texts of a context alone, without the thought about the image being drawn."""
    return tuple(item for item in without_thought(items) if isinstance(item, Text))


@dataclass(frozen=True, kw_only=True)
class Branches:
    """The contexts of one image. A branch that equals the full context is that very window."""

    full: CacheView
    text_free: CacheView | None = None
    """None when nothing guides."""
    image_free: CacheView | None = None
    """None when images do not guide."""


class GuidedVelocity:
    """The velocity of noised images that share their contexts, as the solver asks for it.

    The branches of all images are computed as one pack; a branch that occurs twice, once.
    """

    def __init__(
        self,
        network: Network,
        branches: Branches,
        settings: ImageSettings,
        grid: Tensor,
        markers: Sequence[int],
        images: int,
    ) -> None:
        self.network = network
        self.settings = settings
        self.grid = grid
        self.markers = markers
        wanted = (branches.full, branches.text_free, branches.image_free)
        windows = list(dict.fromkeys(window for window in wanted if window is not None))
        self.places = [None if window is None else windows.index(window) for window in wanted]
        self.plain = network.pack([branches.full], images)
        self.guided = network.pack(windows, images)

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        """Latents of all images (I, L, C), or (L, C) of one, and a time -> velocities of the same shape."""
        _, text, image = self.places
        guided = text is not None and holds(self.settings.cfg_interval, time)
        pack = self.guided if guided else self.plain
        found = self.network.velocities(x.view(-1, *x.shape[-2:]), time.item(), self.grid, self.markers, pack)
        found = found.view(-1, *x.shape)
        if text is None or not guided:
            return found[0]
        return guide(found[0], found[text], None if image is None else found[image], self.settings)

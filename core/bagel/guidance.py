"""Guided velocity: the contexts in which an image is computed, and the combination of their velocities."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from core.bagel.context import Cache, CacheOffset, CacheView
from core.bagel.flow import guide, holds
from core.bagel.network import LatentConstants, Network
from core.bagel.step_cache import StepCache
from core.protocol import Item, Text
from recipes.recipe import ImageSettings


def without_thought(items: Sequence[Item]) -> Sequence[Item]:
    """`items` without the thinking texts at their end, which belong to the next image."""
    count = len(items)
    while count and _is_thought(items[count - 1]):
        count -= 1
    return items[:count]


def _is_thought(item: Item) -> bool:
    return isinstance(item, Text) and item.thought


def text_free(cache: Cache) -> CacheOffset:
    """The prefix of `cache` without the last text item; if it ends with an image, up to and including that image."""
    items = without_thought([entry.item for entry in cache.entries])
    count = len(items)
    if count and isinstance(items[-1], Text):
        count -= 1
    return cache.offset_after(count)


def image_free(items: Sequence[Item]) -> tuple[Item, ...]:
    """Only the texts of a context, without the thinking text of the image being drawn."""
    return tuple(item for item in without_thought(items) if isinstance(item, Text))


@dataclass(frozen=True, kw_only=True)
class Branches:
    """The contexts of one image. A branch with the full context is the same view."""

    full: CacheView
    text_free: CacheView | None = None
    """None without guidance."""
    image_free: CacheView | None = None
    """None without image guidance."""


class GuidedVelocity:
    """The velocity of noised images that share their contexts, as a function for the solver.

    The branches of all images are computed as one pack; equal branches are computed once.
    """

    def __init__(
        self,
        network: Network,
        branches: Branches,
        settings: ImageSettings,
        times: Tensor,
        constants: LatentConstants,
        images: int,
    ) -> None:
        self.network = network
        self.settings = settings
        self.constants = constants
        self.times = times.tolist()
        wanted = (branches.full, branches.text_free, branches.image_free)
        views = list(dict.fromkeys(view for view in wanted if view is not None))
        self.places = [None if view is None else views.index(view) for view in wanted]
        self.plain = network.pack([branches.full], images)
        self.guided = network.pack(views, images)
        self.is_guided = [branches.text_free is not None and holds(settings.cfg_interval, time) for time in times]
        block = len(constants.markers) + len(constants.places)
        for view in views:
            view.cache.reserve(scratch=block)
        self.cache = StepCache(settings)

    def __call__(self, x: Tensor, step: int) -> Tensor:
        """Latents of all images (I, L, C), or of one (L, C), and the number of a time -> velocities of that shape."""
        pack = self.guided if self.is_guided[step] else self.plain
        compute = partial(self.network.velocities, x.view(-1, *x.shape[-2:]), step, self.constants, pack)
        found = self.cache.velocities(self.times[step], pack.contexts, compute).view(-1, *x.shape)
        _, text, image = self.places
        if text is None or not self.is_guided[step]:
            return found[0]
        return guide(found[0], found[text], None if image is None else found[image], self.settings)

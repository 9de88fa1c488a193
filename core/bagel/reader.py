"""Reads items into a cache, each once and in order, as separate blocks."""

from collections.abc import Iterator, Sequence

import torch
from PIL.Image import Image
from torch import Tensor

from core.bagel.autoencoder import patchify
from core.bagel.context import Cache, CachedItem, CacheOffset, CacheView
from core.bagel.decoder import Wanted
from core.bagel.images import opaque, resized, to_pixels
from core.bagel.network import Network
from core.bagel.tokenizer import BagelTokenizer
from core.bagel.vision import grid_positions, to_patches
from core.protocol import Context, Item, Text
from recipes.model_spec import ModelSpec


def items_of(context: Context) -> tuple[Item, ...]:
    """The items that the model reads for `context`: the system prompt is the first text."""
    if context.system_prompt is None:
        return context.items
    return (Text(context.system_prompt), *context.items)


class Reader:
    """Updates caches to given contexts, reading only the missing items."""

    def __init__(self, network: Network, tokenizer: BagelTokenizer, spec: ModelSpec) -> None:
        self.network = network
        self.spec = spec
        self.tokenizer = tokenizer
        self.tokens_read = 0

    @property
    def markers(self) -> tuple[int, int]:
        """The tokens around an image."""
        return self.tokenizer.image_start, self.tokenizer.image_end

    def sync(self, cache: Cache, items: Sequence[Item]) -> None:
        """Make `cache` contain `items`: the common prefix is kept, the rest is read."""
        for _ in self.read(cache, items):
            pass

    @torch.inference_mode()
    def read(self, cache: Cache, items: Sequence[Item]) -> Iterator[None]:
        """The same, item by item: yields after each that is read."""
        for item in cache.keep_common(items):
            if isinstance(item, Text):
                end = self._read_text(item.text, CacheView(cache, cache.end, kept=True))
            else:
                end = self._read_image(item.image, cache)
            cache.entries.append(CachedItem(item, end))
            yield

    def _read_text(self, text: str, view: CacheView) -> CacheOffset:
        ids = self.tokenizer.frame(text)
        self.network.read_text(ids, view, Wanted.CONTEXT)
        return self._after(view.at, tokens=len(ids), positions=len(ids))

    def _read_image(self, image: Image, cache: Cache) -> CacheOffset:
        """Read an image: one rotary position for its latents, if the cache has latents, and one for its ViT patches."""
        config = self.network.config
        fitted = resized(opaque(image), self.spec.vae)  # resized again below, as in the official code
        end = cache.end
        if cache.latents:
            latents, grid = self.latent_tokens(resized(fitted, self.spec.vae))
            self.network.read_latents(latents, grid, self.markers, CacheView(cache, end, kept=True))
            end = self._after(end, tokens=len(latents) + 2, positions=1)
        pixels = to_pixels(resized(fitted, self.spec.vit)).to(self.network.device)
        patch = config.vision.patch_px
        patches = to_patches(pixels, patch)
        grid = self.grid(pixels.shape[1] // patch, pixels.shape[2] // patch, config.vision_side)
        self.network.read_patches(patches, grid, self.markers, CacheView(cache, end, kept=True))
        return self._after(end, tokens=len(patches) + 2, positions=1)

    def latent_tokens(self, image: Image) -> tuple[Tensor, Tensor]:
        """The latent tokens (L, C) of a resized image, and their table positions (L,)."""
        config = self.network.config
        pixels = to_pixels(image).to(self.network.device, self.network.dtype)
        latents: Tensor = self.network.latent_encoder(pixels)
        rows, columns = latents.shape[1] // config.latent_patch, latents.shape[2] // config.latent_patch
        return patchify(latents, config.latent_patch), self.grid(rows, columns, config.latent_side)

    def grid(self, rows: int, columns: int, side: int) -> Tensor:
        """The table positions of a grid, on the network's device."""
        return grid_positions(rows, columns, side).to(self.network.device)

    def _after(self, mark: CacheOffset, *, tokens: int, positions: int) -> CacheOffset:
        self.tokens_read += tokens
        return CacheOffset(mark.tokens + tokens, mark.position + positions)

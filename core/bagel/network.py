"""All weights of BAGEL in one module, and its operations: read blocks, compute velocities and next-token logits.

Axes: B packed branches, L tokens, D hidden size, C numbers in a latent token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from core.bagel.autoencoder import LatentDecoder, LatentEmbedder, LatentEncoder, LatentPlaces
from core.bagel.context import Cache, CacheView, LayerKV, View
from core.bagel.decoder import Decoder, Wanted
from core.bagel.layers import Frequencies, Rotary
from core.bagel.linear import Linear
from core.bagel.vision import VisionEmbedder
from core.geometry import BagelConfig


@dataclass(frozen=True)
class Pack:
    """The contexts in which noised blocks are computed at once, and the rotation for each block's position.

    For 2 images in the contexts a and b, the blocks are 1a 2a 1b 2b. Images with the same context share its view, so
    that its keys and values are stored once: one block after the other is written to the scratch area and attends.
    """

    views: tuple[View, ...]
    by: tuple[Rotary, ...]
    contexts: int


@dataclass(frozen=True)
class LatentConstants:
    """What the blocks of latents with the same size embed beside their numbers, at each of T times."""

    markers: Tensor
    """(2, D)"""
    places: Tensor
    """(L, D)"""
    times: Tensor
    """(T, D)"""


class Network(nn.Module):
    """The modules, on `device` except for some decoder layers (see placement.py).

    Hooks on modules move tensors and weights to where a module computes. They run only when the module itself is
    called, so no code here calls another method of a module or uses its weights.
    """

    def __init__(self, config: BagelConfig) -> None:
        super().__init__()
        self.config = config
        self.device = torch.device("cpu")
        self.dtype = torch.float32
        self.elsewhere: dict[int, torch.device] = {}
        """The devices of decoder layers that do not compute on `device`."""
        self.offloaded = False
        """Whether some weights are copied to their device for each call."""
        width = config.decoder.hidden_size
        self.decoder = Decoder(config.decoder)
        self.lm_head = Linear(width, config.decoder.vocab_size, bias=False)
        self.llm2vae = Linear(width, config.latent_width)
        self.latents = LatentEmbedder(config)
        self.latent_places = LatentPlaces(config)
        self.vision = VisionEmbedder(config)
        self.latent_encoder = LatentEncoder(config.autoencoder)
        self.latent_decoder = LatentDecoder(config.autoencoder)

    @property
    def layer_devices(self) -> list[torch.device]:
        """The device on which each decoder layer computes, and which has its part of a cache."""
        return [self.elsewhere.get(index, self.device) for index in range(self.config.decoder.num_layers)]

    @property
    def fixed(self) -> bool:
        """Whether all weights stay at one address on one device, as a CUDA graph requires."""
        return not (self.elsewhere or self.offloaded)

    def empty_cache(self, *, latents: bool = True) -> Cache:
        """A cache for this network (see Cache)."""
        shape = self.config.decoder.num_kv_heads, self.config.decoder.head_dim
        return Cache([LayerKV(shape, self.dtype, device) for device in self.layer_devices], latents=latents)

    def read_text(self, ids: Sequence[int], view: CacheView, wanted: Wanted = Wanted.TEXT) -> Tensor:
        """Read a text block; the hidden states of its tokens (L, D), if they are wanted."""
        positions = torch.arange(view.at.position, view.at.position + len(ids), device=self.device)
        return self.read_tokens(self.ids(ids), positions, replace(view, causal=True), wanted)

    def read_tokens(self, ids: Tensor, positions: Tensor, view: View, wanted: Wanted = Wanted.TEXT) -> Tensor:
        """Read text tokens `ids` at `positions`, both (L,) on the device: nothing here depends on their numbers."""
        embedded, by = self.decoder.embed_tokens(ids), self._frequencies.at(positions)
        hidden, _ = self.decoder(embedded[None], None, (by,), (view,), wanted)
        states: Tensor = hidden[0]
        return states

    def read_latents(self, tokens: Tensor, grid: Tensor, markers: Sequence[int], view: CacheView) -> None:
        """Read the latent tokens (L, C) of an image, at the table positions `grid` (L,)."""
        constants = self.latent_constants(grid, torch.zeros(1), markers)
        embedded = self.latents(tokens.to(self.dtype), constants.places, constants.times[0])
        pack = self.pack([view], images=1)
        self.decoder(constants.markers[None], embedded[None], pack.by, pack.views, Wanted.CONTEXT)

    def read_patches(self, patches: Tensor, grid: Tensor, markers: Sequence[int], view: CacheView) -> None:
        """Read the ViT patches (L, 3 * patch²) of an image, at the table positions `grid` (L,)."""
        embedded = self.vision(patches.to(self.dtype), grid)
        start, end = self.decoder.embed_tokens(self.ids(markers))[:, None]
        pack = self.pack([view], images=1)
        self.decoder(torch.cat((start, embedded, end))[None], None, pack.by, pack.views, Wanted.CONTEXT)

    def latent_constants(self, grid: Tensor, times: Tensor, markers: Sequence[int]) -> LatentConstants:
        """The constants of latents at the table positions `grid` (L,) and at `times` (T,), on the CPU."""
        embedded = self.decoder.embed_tokens(self.ids(markers))
        return LatentConstants(embedded, *self.latent_places(grid, times.to(self.device), self.dtype))

    def pack(self, contexts: Sequence[CacheView], images: int) -> Pack:
        """Prepare to compute the blocks of `images` images in each of the contexts."""
        by = [self._frequencies.at(torch.full((1,), view.at.position, device=self.device)) for view in contexts]
        views = tuple(view for view in contexts for _ in range(images))
        return Pack(views, tuple(rotation for rotation in by for _ in range(images)), len(contexts))

    def velocities(self, x: Tensor, step: int, constants: LatentConstants, pack: Pack) -> Tensor:
        """The velocities of noised latents at a time in each of the pack's W contexts.

        Args:
            x: the latents of I images, (I, L, C).
            step: number of the time, 1 (noise) to 0 (image), among those of `constants`.
            constants: for latents of this size.
            pack: a pack for the same number of images.

        Returns:
            (W, I, L, C) float32
        """
        und = constants.markers.expand(len(pack.views), -1, -1)
        gen = self.latents(x.to(self.dtype), constants.places, constants.times[step])
        _, hidden = self.decoder(und, gen.repeat(pack.contexts, 1, 1), pack.by, pack.views, Wanted.LATENTS)
        velocities: Tensor = self.llm2vae(self.decoder.norm_moe_gen(hidden))
        return velocities.float().view(pack.contexts, *x.shape)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of the next token (..., V) after the token with this `hidden` state (..., D)."""
        out: Tensor = self.lm_head(self.decoder.norm(hidden))
        return out

    def ids(self, ids: Sequence[int]) -> Tensor:
        """Token ids (L,) on the device."""
        return torch.tensor(ids, device=self.device)

    @cached_property
    def _frequencies(self) -> Frequencies:
        return Frequencies.of(self.config.decoder.head_dim, self.config.decoder.rope_theta, self.device)

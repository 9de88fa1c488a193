"""All weights of BAGEL in one module, and its operations: read blocks, compute velocities and next-token logits.

Axes: B packed branches, L tokens, D hidden size, C numbers in a latent token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.bagel.autoencoder import LatentDecoder, LatentEmbedder, LatentEncoder
from core.bagel.context import CacheView, TokenView
from core.bagel.decoder import Decoder
from core.bagel.layers import Rotary, causal_mask, rotary
from core.bagel.linear import Linear
from core.bagel.vision import VisionEmbedder
from core.geometry import BagelConfig


@dataclass(frozen=True)
class Pack:
    """The contexts in which noised blocks are computed at once, and the rotation for each block's position.

    For 2 images in the contexts a and b, the blocks are 1a 2a 1b 2b. Images with the same context share its view, so
    that its keys and values are stored once: one block after the other is written to the scratch area and attends.
    """

    views: tuple[CacheView, ...]
    by: Rotary
    contexts: int


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

    def read_text(self, ids: Sequence[int], view: CacheView) -> Tensor:
        """Read a text block and return the hidden states of its tokens (L, D)."""
        embedded = self.embed(ids)
        first = view.at.position
        by = self.rotation([list(range(first, first + len(ids)))])
        mask = causal_mask(len(ids), view.at.tokens, self.device) if len(ids) > 1 else None
        hidden, _ = self.decoder(embedded[None], None, by, (view,), mask)
        states: Tensor = hidden[0]
        return states

    def read_token(self, token: Tensor, position: Tensor, view: TokenView) -> Tensor:
        """Read the token id `token` (1,) at `position` (1,) and return its hidden state (D,)."""
        config = self.config.decoder
        embedded = self.decoder.embed_tokens(token)
        by = rotary(position[None], config.head_dim, config.rope_theta)
        hidden, _ = self.decoder(embedded[None], None, by, view)
        state: Tensor = hidden[0, 0]
        return state

    def read_latents(self, tokens: Tensor, grid: Tensor, markers: Sequence[int], view: CacheView) -> None:
        """Read the latent tokens (L, C) of an image, at the table positions `grid` (L,)."""
        embedded = self.latents(tokens.to(self.dtype), self._time(0.0), grid)
        by = self.rotation([[view.at.position]])
        self.decoder(self.embed(markers)[None], embedded[None], by, (view,))

    def read_patches(self, patches: Tensor, grid: Tensor, markers: Sequence[int], view: CacheView) -> None:
        """Read the ViT patches (L, 3 * patch²) of an image, at the table positions `grid` (L,)."""
        embedded = self.vision(patches.to(self.dtype), grid).to(self.device)
        start, end = self.embed(markers)[:, None]
        by = self.rotation([[view.at.position]])
        self.decoder(torch.cat((start, embedded, end))[None], None, by, (view,))

    def pack(self, contexts: Sequence[CacheView], images: int) -> Pack:
        """Prepare to compute the noised blocks of `images` images in each of the contexts."""
        views = tuple(view for view in contexts for _ in range(images))
        return Pack(views, self.rotation([[view.at.position] for view in views]), len(contexts))

    def velocities(self, x: Tensor, time: float, grid: Tensor, markers: Sequence[int], pack: Pack) -> Tensor:
        """The velocities of noised latents at `time` in each of the pack's W contexts.

        Args:
            x: the latents of I images, (I, L, C).
            time: 1 (noise) to 0 (image).
            grid: table positions of the latents, (L,).
            markers: the tokens around an image.
            pack: a pack for the same number of images.

        Returns:
            (W, I, L, C) float32
        """
        und = self.embed(markers).repeat(len(pack.views), 1, 1)
        gen = self.latents(x.to(self.dtype), self._time(time), grid).repeat(pack.contexts, 1, 1)
        _, hidden = self.decoder(und, gen, pack.by, pack.views)
        velocities: Tensor = self.llm2vae(self.decoder.norm_moe_gen(hidden))
        return velocities.to(x.device, torch.float32).view(pack.contexts, *x.shape)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of the next token (..., V) after the token with this `hidden` state (..., D)."""
        out: Tensor = self.lm_head(self.decoder.norm(hidden))
        return out

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Token ids -> (L, D)."""
        embedded: Tensor = self.decoder.embed_tokens(torch.tensor(ids, device=self.device))
        return embedded

    def rotation(self, positions: Sequence[Sequence[int]]) -> Rotary:
        """The rotation for the positions of a pack (B, L or 1)."""
        config = self.config.decoder
        return rotary(torch.tensor(positions, device=self.device), config.head_dim, config.rope_theta)

    def _time(self, time: float) -> Tensor:
        return torch.tensor([time], dtype=torch.float32, device=self.device)

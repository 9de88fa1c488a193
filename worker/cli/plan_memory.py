"""The memory that a recipe needs on GPUs of common sizes, computed without a GPU and without the weights."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from core.geometry import BagelConfig
from core.memory import BRANCHES, MemoryNeeds, layer_places, usable
from core.model_folder import ModelFolderError
from core.plan import Draw, Read, Write
from recipes.recipe import TextItem
from worker.cli.plan_costs import PlanCosts, is_published
from worker.serve.engine import SCRIPTED
from worker.settings import Settings

CARDS_GIB = (80, 48, 24, 16, 12)
PRECISIONS = (None, "int8", "nf4")
DTYPE = "bfloat16"
GIB = 2**30
SMALL_PX = 512


@dataclass(frozen=True, kw_only=True)
class Card:
    """How a recipe runs on a GPU."""

    gib: int
    fits: Literal["fits", "offload", "no"]
    batch: int
    """How many images are computed at once."""
    resident_layers: int
    """Decoder layers that stay on the GPU."""
    host_bytes: int
    """Host memory for the other layers."""
    would_fit: str | None = None
    """What to change if it does not fit; None if no setting helps."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """What a recipe needs with a quantization of the decoder layers, and on which GPUs it runs."""

    quantization: str | None
    needs: MemoryNeeds
    cards: tuple[Card, ...]

    def to_data(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "dtype": self.needs.dtype,
            "quantization": self.quantization,
            "weights_bytes": self.needs.size.whole,
            "context_bytes": self.needs.context,
            "activations_bytes": self.needs.activations,
            "cards": [vars(card) for card in self.cards],
        }


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """The memory that a recipe needs."""

    recipe: str
    model: str
    exact: bool
    """Whether the model's tokenizer counted the given texts."""
    tokens: int
    """The longest context, with the texts that guidance by images keeps besides it."""
    batch: int
    """The most images that are drawn from one context."""
    precisions: tuple[Precision, ...]

    def to_data(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "recipe": self.recipe,
            "model": self.model,
            "exact_tokens": self.exact,
            "context_tokens": self.tokens,
            "images_at_once": self.batch,
            "precisions": [precision.to_data() for precision in self.precisions],
        }


def plan_memory(found: PlanCosts, config: Settings) -> MemoryPlan:
    """The memory for the recipe of `found` on the model of `config`. Raises ModelFolderError."""
    recipe = found.job.recipe
    tokens = max(cost.context_tokens for cost in found.costs)
    branches = 1 if recipe.image.cfg_text_scale <= 1 else 2 if recipe.image.cfg_img_scale <= 1 else BRANCHES
    if branches == BRANCHES:
        tokens += sum(cost.new_tokens for cost in found.costs if _is_text(cost.step))
    batch = max((step.variations for cost in found.costs if isinstance(step := cost.step, Draw)), default=1)
    needs = MemoryNeeds(
        config=_geometry(found, config),
        dtype=DTYPE,
        tokens=tokens,
        side_px=_side_px(found),
        branches=branches,
        batch=batch,
    )
    return MemoryPlan(
        recipe=recipe.name,
        model=found.model,
        exact=found.exact,
        tokens=tokens,
        batch=batch,
        precisions=tuple(_precision(replace(needs, quantization=name), found, config) for name in PRECISIONS),
    )


def _is_text(step: object) -> bool:
    return isinstance(step, Write) or (isinstance(step, Read) and isinstance(step.item, TextItem))


def _geometry(found: PlanCosts, config: Settings) -> BagelConfig:
    if is_published(config):
        return BagelConfig.published()
    if config.model == SCRIPTED:
        raise ModelFolderError(f"the model {SCRIPTED} has no weights; --memory needs --model with a model folder")
    read = BagelConfig.read(Path(config.model))
    return replace(read, latent_side=found.spec.max_side_px // read.stride_px)


def _side_px(found: PlanCosts) -> float:
    """The side of a square with the area of the largest image that is read or drawn."""
    image, sizes = found.job.recipe.image, [found.spec.vae.size(*image.size) for image in found.job.inputs]
    if image.width is not None and image.height is not None:
        sizes.append((image.width, image.height))
    return math.sqrt(max(width * height for width, height in sizes))


def _precision(needs: MemoryNeeds, found: PlanCosts, config: Settings) -> Precision:
    loading = replace(needs, tokens=config.context_tokens, side_px=found.spec.max_side_px, branches=BRANCHES)
    cards = tuple(_card(gib, needs, loading, config.max_batch) for gib in CARDS_GIB)
    return Precision(quantization=needs.quantization, needs=needs, cards=cards)


def _card(gib: int, needs: MemoryNeeds, loading: MemoryNeeds, max_batch: int | None) -> Card:
    """How the recipe runs on a GPU, whose layers were placed for what a worker reserves when it is `loading`."""
    total = gib * GIB
    loading = replace(loading, batch=max_batch) if max_batch else loading.with_default_batch(total)
    needs = replace(needs, batch=min(needs.batch, loading.batch))
    resident = _resident_layers(needs, loading, total)
    change = None if resident >= 0 else next(_changes(needs, loading, total), None)
    offloaded = needs.size.num_layers - max(0, resident)
    return Card(
        gib=gib,
        fits="no" if resident < 0 else "offload" if offloaded else "fits",
        batch=needs.batch,
        resident_layers=max(0, resident),
        host_bytes=offloaded * needs.size.layer,
        would_fit=change,
    )


def _resident_layers(needs: MemoryNeeds, loading: MemoryNeeds, total: int) -> int:
    """The decoder layers that stay on a GPU of `total` bytes; -1 if the model or the recipe does not fit."""
    size, room = loading.size, usable(total) - loading.beside
    if room < size.least:
        return -1
    places = layer_places(size, [room], size.whole)
    resident = sum(kept == "device" for _, kept in places)
    used = size.whole if resident == size.num_layers else size.least + resident * size.layer
    return resident if used + needs.beside <= usable(total) else -1


def _changes(needs: MemoryNeeds, loading: MemoryNeeds, total: int) -> Iterator[str]:
    """Changes of settings or of the recipe with which it fits."""
    longer = replace(loading, tokens=needs.tokens)
    for name, changed in (
        ("AUTOSEQ_MAX_BATCH=1", replace(loading, batch=1)),
        (f"AUTOSEQ_CONTEXT_TOKENS={needs.tokens}", longer),
        (f"AUTOSEQ_CONTEXT_TOKENS={needs.tokens} AUTOSEQ_MAX_BATCH=1", replace(longer, batch=1)),
    ):
        if _resident_layers(replace(needs, batch=min(needs.batch, changed.batch)), changed, total) >= 0:
            yield name
    for name, less in (
        ("a smaller max_context_items", replace(needs, tokens=loading.tokens)),
        (f"images of {SMALL_PX} x {SMALL_PX} pixels", replace(needs, side_px=min(SMALL_PX, needs.side_px))),
    ):
        if _resident_layers(less, loading, total) >= 0:
            yield name

"""A long sequence that forgets stays as small as it is after a few images, and as right as one that never was long."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch

from core.bagel import Bagel
from core.bench.rows import readings, stretch_rows, whole
from core.bench.usage import Meter
from core.protocol import Context, Denoising, Drawn
from core.sequence import run_sequence
from recipes.recipe import ImageSettings, Recipe, TextItem, TextSettings
from tests.core.bagel.golden import load

LIMIT = 8
IMAGE = ImageSettings(width=64, height=64, num_timesteps=2, cfg_text_scale=2.0)
LONG = Recipe(
    name="long",
    context=(TextItem(text="A magical forest"),),
    num_images=24,
    think=True,
    max_context_items=LIMIT,
    text=TextSettings(max_new_tokens=8),
    image=IMAGE,
)


@pytest.fixture(scope="module")
def model() -> Bagel:
    return load("tiny")


def test_the_memory_and_the_tokens_of_an_image_stay_as_they_are(model: Bagel) -> None:
    first, *later = stretch_rows(Meter(model), LONG, images=6)
    assert [row.name for row in later] == ["7 to 12", "13 to 18", "19 to 24"]
    assert {row.median("kv_bytes") for row in later} == {later[0].median("kv_bytes")}
    # An image brings three items: itself, a refinement and a thought. Each is read once, and once more at most, since
    # what is forgotten at once is half of the items.
    items = sum(model.spec.image_tokens(64, 64)) + 2 * (2 + LONG.text.max_new_tokens)
    assert all(row.median("tokens_read") <= 2 * items for row in (first, *later))  # per image


def test_one_that_keeps_all_grows_without_end(model: Bagel) -> None:
    first, *_, last = stretch_rows(Meter(model), replace(LONG, max_context_items=None), images=6)
    assert last.median("kv_bytes") > 2 * first.median("kv_bytes")


def test_a_tree_takes_the_memory_of_one_path(model: Bagel) -> None:
    path = replace(LONG, num_images=3, max_context_items=None)
    tree = replace(path, variations_per_image=2, select="tree")
    meter = Meter(model)
    *_, (images, _) = readings(meter, tree)
    assert images == 2 + 4 + 8
    assert whole(meter, tree).kv_bytes <= whole(meter, path).kv_bytes


class Checked:
    """Draws as `model` does, and holds every third context against one that `fresh` reads from nothing."""

    def __init__(self, model: Bagel, fresh: Bagel) -> None:
        self.model = model
        self.fresh = fresh
        self.draws = 0
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.model, name)

    def draw(self, context: Context, settings: ImageSettings, *, seeds: Sequence[int]) -> Iterator[Denoising | Drawn]:
        for progress in self.model.draw(context, settings, seeds=seeds):
            yield progress
        self.draws += 1
        if self.draws % 3:
            return
        self.fresh.forget()
        kept, anew = (bagel.branches(context, settings).full for bagel in (self.model, self.fresh))
        assert kept.at == anew.at
        assert all(map(torch.equal, kept.cache.stacked(kept.at.tokens), anew.cache.stacked(anew.at.tokens)))
        *_, drawn = self.fresh.draw(context, settings, seeds=seeds)
        assert isinstance(progress, Drawn)
        assert isinstance(drawn, Drawn)
        assert [image.tobytes() for image in progress.images] == [image.tobytes() for image in drawn.images]
        self.sizes.append(len(context.items))


def test_what_is_kept_holds_the_bits_of_a_fresh_context_and_draws_the_same(model: Bagel) -> None:
    checked = Checked(model, load("tiny"))
    model.forget()
    for _ in run_sequence(replace(LONG, num_images=18), checked):  # type: ignore[arg-type]  # a proxy
        pass
    assert len(checked.sizes) == 6
    assert max(checked.sizes) <= LIMIT
    assert len(set(checked.sizes)) > 1, "met at several places of the period of forgetting"

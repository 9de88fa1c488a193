"""The persistent context holds the same bits as a fresh one."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.bagel import Bagel
from core.bagel.context import Cache, CacheView, LayerKV, TokenView
from core.bagel.flow import gaussian_noise
from core.protocol import Context, Picture, Text
from recipes.recipe import ImageSettings, TextSettings
from tests.core.bagel.golden import golden_set, load

SETTINGS = ImageSettings(width=48, height=48, num_timesteps=4, cfg_interval=(0.0, 1.0))


def block(*numbers: int) -> Tensor:
    """Keys whose every number is the token's own."""
    return torch.tensor(numbers, dtype=torch.float32)[:, None, None].expand(-1, 2, 4)


def numbers(keys: Tensor) -> list[int]:
    return [int(number) for number in keys[:, 0, 0]]


def layer() -> LayerKV:
    return LayerKV((2, 4), torch.float32, torch.device("cpu"))


def put(into: LayerKV, block: Tensor, length: int, *, kept: bool) -> Tensor:
    """Write `block` after `length` tokens; the keys that it attends to."""
    place = into.block(length, len(block), kept=kept, causal=False)
    place.keys.copy_(block)
    place.values.copy_(-block)
    assert torch.equal(place.seen_values, -place.seen_keys)
    return place.seen_keys


def test_a_block_lies_in_the_rows_that_the_worked_example_names() -> None:
    kv = layer()
    put(kv, block(0, 0, 0, 0), 0, kept=False)  # reserves a scratch area of 4 rows
    put(kv, block(10, 11), 0, kept=True)
    put(kv, block(20, 21, 22), 2, kept=True)

    full = put(kv, block(91, 92, 93), 5, kept=False)
    assert kv.scratch == 4
    assert numbers(full) == [91, 92, 93, 10, 11, 20, 21, 22]
    assert full.storage_offset() == 1 * full.stride(0)

    prefix = put(kv, block(91, 92, 93), 2, kept=False)
    assert numbers(prefix) == [91, 92, 93, 10, 11]
    assert prefix.storage_offset() == 1 * prefix.stride(0)

    following = put(kv, block(30, 31, 32), 5, kept=True)
    assert numbers(following) == [10, 11, 20, 21, 22, 30, 31, 32]
    assert following.storage_offset() == 4 * following.stride(0)


def test_a_cache_that_grows_keeps_what_it_holds() -> None:
    kv = layer()
    for token in range(100):
        seen = put(kv, block(token), token, kept=True)
        put(kv, block(*[-1] * token), token, kept=False)
    assert numbers(seen) == list(range(100))
    assert kv.keys.shape[0] <= kv.scratch + 150


def test_buffers_that_were_reserved_stay_where_they_are() -> None:
    cache = Cache([layer(), layer()])
    cache.reserve(scratch=7, tokens=500)
    places, size = cache.addresses, cache.num_bytes
    for kv in cache.layers:
        put(kv, block(*range(200)), 0, kept=True)
        put(kv, block(*range(7)), 200, kept=False)
        put(kv, block(*range(300)), 200, kept=True)
    cache.reserve(scratch=3, tokens=499)
    assert (cache.addresses, cache.num_bytes) == (places, size)
    cache.reserve(tokens=1000)
    assert cache.addresses != places


def test_a_token_whose_row_only_the_device_knows_is_put_and_sees_like_one_at_a_known_offset() -> None:
    generator = torch.Generator().manual_seed(0)
    kv, item = layer(), torch.randn(9, 2, 4, generator=generator)
    kv.reserve(3, 20)
    put(kv, item[:8], 0, kept=True)
    queries = torch.randn(1, 6, 4, generator=generator)
    known = kv.block(8, 1, kept=True, causal=True)
    put(kv, item[8:], 8, kept=True)
    token = TokenView(Cache([kv]), torch.tensor([8]), torch.tensor([9])).place(0, 1)
    assert torch.equal(token.keys[token.row], known.keys)
    torch.testing.assert_close(token.attend(queries), known.attend(queries), rtol=1e-6, atol=1e-6)


def test_a_cache_that_has_read_nothing_has_nothing_to_show() -> None:
    with pytest.raises(LookupError, match="the cache is empty"):
        Cache([layer()]).stacked(0)


def a_long_context() -> Context:
    golden = golden_set("random")
    photo, rgba = golden.item({"image": "photo.png"}), golden.item({"image": "rgba.png"})
    items = (Text("A magical forest"), photo, Text("Make it warmer"), rgba, Text("I will.", thought=True))
    return Context(system_prompt="Think first", items=items)


def bits(model: Bagel, context: Context) -> tuple[Tensor, Tensor]:
    """Keys and values of `context`, after bringing a persistent cache to it."""
    model.branches(context, SETTINGS)
    full = model.branches(context, SETTINGS).full
    return full.cache.stacked(full.at.tokens)


def test_a_cache_cut_back_and_read_on_holds_the_bits_of_a_fresh_one() -> None:
    model, wanted = load("random"), a_long_context()
    elsewhere = replace(wanted, items=(*wanted.items[:2], Text("Another way"), *wanted.items[2:3]))
    for context in (wanted, elsewhere, replace(wanted, items=wanted.items[:1]), wanted):
        found = bits(model, context)
    list(model.write(wanted, TextSettings(max_new_tokens=5), seed=1))
    list(model.draw(wanted, SETTINGS, seeds=(1,)))
    fresh = bits(load("random"), wanted)
    again = bits(model, wanted)
    for one, other, third in zip(found, fresh, again, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, third)


def test_every_item_is_read_once() -> None:
    model, context = load("random"), a_long_context()
    plain = replace(SETTINGS, cfg_text_scale=1.0)
    list(model.write(context, TextSettings(max_new_tokens=3), seed=0))
    once = model.tokens_read
    list(model.write(context, TextSettings(max_new_tokens=3), seed=0))
    list(model.draw(context, plain, seeds=(0,)))
    assert model.tokens_read == once == model.branches(context, plain).full.at.tokens
    follow = Text("More")
    list(model.write(context.plus(follow), TextSettings(max_new_tokens=1), seed=0))
    assert model.tokens_read == once + len(model.reader.tokenizer.frame(follow.text))


def test_only_guidance_by_images_reads_the_texts_again() -> None:
    model, context = load("random"), a_long_context()
    model.branches(context, replace(SETTINGS, cfg_img_scale=1.0))
    without = model.tokens_read
    image_free = model.branches(context, SETTINGS).image_free
    assert image_free is not None
    assert model.tokens_read == without + image_free.at.tokens
    texts = [entry.item for entry in image_free.cache.entries]
    assert texts == [Text("Think first"), Text("A magical forest"), Text("Make it warmer")]


@pytest.mark.parametrize("settings", [SETTINGS, replace(SETTINGS, cfg_img_scale=1.0), TextSettings()])
def test_a_context_is_read_item_by_item_and_then_known(settings: ImageSettings | TextSettings) -> None:
    model, context = load("random"), a_long_context()
    counts = [model.tokens_read for _ in model.prefill(context, settings)]
    guided = settings == SETTINGS
    assert len(counts) == len(context.items) + 1 + 3 * guided, "the system prompt, and again the texts"
    assert counts == sorted(set(counts))
    if isinstance(settings, ImageSettings):
        model.branches(context, settings)
    else:
        list(model.write(context, replace(settings, max_new_tokens=1), seed=0))
    assert model.tokens_read == counts[-1], "nothing is left to read"
    assert not list(model.prefill(context, settings))


def test_a_reading_that_is_left_keeps_the_items_that_were_read() -> None:
    model, context = load("random"), a_long_context()
    reading = model.prefill(context, SETTINGS)
    for _ in range(3):
        next(reading)
    assert not torch.is_inference_mode_enabled()
    reading.close()  # type: ignore[attr-defined]  # a generator
    assert [entry.item for entry in model._context.entries] == [Text("Think first"), *context.items[:2]]
    assert all(map(torch.equal, bits(model, context), bits(load("random"), context)))


def test_a_reading_that_fails_leaves_the_cache_usable() -> None:
    model, context = load("random"), a_long_context()
    broken = replace(context, items=(*context.items[:2], Text("Some more"), Picture(None)))  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        model.branches(broken, SETTINGS)
    fresh = bits(load("random"), context)
    assert all(map(torch.equal, bits(model, context), fresh))


def test_packed_branches_equal_one_by_one() -> None:
    model = load("random")
    branches = model.branches(a_long_context(), SETTINGS)
    views = [view for view in (branches.full, branches.text_free, branches.image_free) if view is not None]
    assert len({(view.cache, view.at) for view in views}) == 3
    network, reader = model.network, model.reader
    noise, grid = gaussian_noise(9, network.config.latent_width, 5), reader.grid(3, 3, network.config.latent_side)

    def velocities(*packed: CacheView) -> Tensor:
        with torch.inference_mode():
            constants = network.latent_constants(grid, torch.tensor([0.7]), reader.markers)
            return network.velocities(noise[None], 0, constants, network.pack(packed, images=1))[:, 0]

    packed = velocities(*views)
    for view, found in zip(views, packed, strict=True):
        torch.testing.assert_close(velocities(view)[0], found, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(packed[0], packed[1], rtol=1e-3)


def test_a_branch_that_equals_the_full_context_is_that_context() -> None:
    model = load("random")
    texts = Context(items=(Text("A cat"), Text("on a mat")))
    branches = model.branches(texts, SETTINGS)
    assert branches.image_free == branches.full
    assert branches.text_free != branches.full
    thinking = model.branches(texts.plus(Text("I will.", thought=True)), SETTINGS)
    assert thinking.image_free != thinking.full
    assert thinking.text_free == branches.text_free
    nothing = model.branches(Context(), SETTINGS)
    assert nothing.full == nothing.text_free == nothing.image_free


def test_after_an_image_the_text_free_context_holds_that_image() -> None:
    model, context = load("random"), a_long_context()
    text_free = model.branches(context, SETTINGS).text_free
    whole = model.branches(replace(context, items=context.items[:-1]), SETTINGS).full
    assert text_free == whole

"""A text is the same, token for token, however its steps are launched."""

import logging
from collections.abc import Callable

import pytest
import torch

from core.bagel import Bagel
from core.bagel import context as cache_module
from core.bagel.context import CacheOffset, CacheView
from core.bagel.decode import Graph, Writer
from core.bagel.reader import items_of
from core.bagel.sample import next_token, uniforms
from core.protocol import Context, Picture, Text
from recipes.recipe import TextSettings
from tests.core.bagel.fake_graph import FakeGraph
from tests.core.bagel.golden import golden_set, load

GREEDY = TextSettings(max_new_tokens=30, temperature=0.0)
SAMPLED = TextSettings(max_new_tokens=30, temperature=1.5, top_k=200, top_p=0.95)


@pytest.fixture(scope="module")
def model() -> Bagel:
    return load("tiny")


def contexts() -> list[Context]:
    photo = golden_set("tiny").item({"image": "photo.png"})
    assert isinstance(photo, Picture)
    return [
        Context(items=(Text("A large red circle"),)),
        Context(items=(Text("A large red circle"), Text("Make it blue"))),
        Context(items=(Text("A large red circle"), photo)),
    ]


def written(model: Bagel, writer: Writer, settings: TextSettings, seed: int) -> list[int]:
    tokenizer = model.reader.tokenizer
    ids = writer.ids(model._context, settings, seed, start=tokenizer.text_start, end=tokenizer.text_end)
    return list(ids)


@torch.inference_mode()
def one_by_one(model: Bagel, settings: TextSettings, seed: int) -> list[int]:
    """The tokens, each read as a text block of its own."""
    network, cache, found = model.network, model._context, list[int]()
    token, at = model.reader.tokenizer.text_start, cache.end
    for uniform in uniforms(seed, settings.max_new_tokens):
        hidden = network.read_text([token], CacheView(cache, at, kept=True))
        at = CacheOffset(at.tokens + 1, at.position + 1)
        token = int(next_token(network.logits(hidden[-1]), settings, uniform[None]))
        if token == model.reader.tokenizer.text_end:
            break
        found.append(token)
    return found


@pytest.fixture
def one_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention as one operation of a recording, as on CUDA: its form for the CPU reads the length on the host."""
    monkeypatch.setattr(cache_module, "decode_attention", torch.ops.autosequence.decode_attention.default)


class Graphs:
    """Makes graphs, and keeps them."""

    def __init__(self) -> None:
        self.made: list[FakeGraph] = []

    def __call__(self) -> FakeGraph:
        self.made.append(FakeGraph())
        return self.made[-1]


@pytest.mark.parametrize("ahead", [0, 3])
@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_tokens_read_late_are_those_of_a_text_read_token_by_token(
    model: Bagel, settings: TextSettings, ahead: int
) -> None:
    writer = Writer(model.network, make_graph=None, ahead=ahead)
    lengths = set()
    for seed, context in enumerate(contexts()):
        model.reader.sync(model._context, items_of(context))
        expected = one_by_one(model, settings, seed)
        assert written(model, writer, settings, seed) == expected
        lengths.add(len(expected))
    assert min(lengths) < settings.max_new_tokens, "a text that ends before its limit"


def test_a_limit_is_not_exceeded_by_what_is_launched_ahead(model: Bagel) -> None:
    model.reader.sync(model._context, ())
    for limit in (1, 2, 5):
        settings = TextSettings(max_new_tokens=limit, temperature=5.0)
        for ahead in (0, 1, 3):
            writer = Writer(model.network, make_graph=None, ahead=ahead)
            assert len(written(model, writer, settings, 1)) == limit
            assert writer.tokens_decoded == limit


@pytest.mark.usefixtures("one_operation")
@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_recorded_step_writes_the_same_tokens(model: Bagel, settings: TextSettings, ahead: int) -> None:
    graphs = Graphs()
    writer = Writer(model.network, make_graph=graphs, ahead=ahead)
    for seed, context in enumerate(contexts()):
        model.reader.sync(model._context, items_of(context))
        assert written(model, writer, settings, seed) == one_by_one(model, settings, seed)
    assert sum(graph.replays for graph in graphs.made) > 20


@pytest.mark.usefixtures("one_operation")
def test_a_graph_is_used_while_the_buffers_and_the_settings_stay(model: Bagel) -> None:
    graphs = Graphs()
    writer = Writer(model.network, make_graph=graphs, ahead=1)
    short, longer, _ = contexts()

    def after(context: Context, settings: TextSettings) -> int:
        model.reader.sync(model._context, items_of(context))
        written(model, writer, settings, 0)
        return len(graphs.made)

    model.forget()
    assert after(longer, SAMPLED) == 1
    assert after(short, SAMPLED) == 1
    assert after(longer, SAMPLED) == 1
    assert after(longer, GREEDY) == 2
    model.forget()
    writer.forget()
    assert after(longer, GREEDY) == 3


class Uncapturable:
    def capture(self, work: Callable[[], None]) -> None:
        del work
        raise RuntimeError("operation not permitted when stream is capturing")

    def replay(self) -> None:
        pytest.fail("nothing was captured")


def test_a_step_that_can_not_be_recorded_runs_eagerly(model: Bagel, caplog: pytest.LogCaptureFixture) -> None:
    made: list[Graph] = []

    def make() -> Graph:
        made.append(Uncapturable())
        return made[-1]

    writer = Writer(model.network, make_graph=make, ahead=1)
    model.reader.sync(model._context, items_of(contexts()[0]))
    with caplog.at_level(logging.WARNING):
        assert written(model, writer, SAMPLED, 4) == one_by_one(model, SAMPLED, 4)
        assert written(model, writer, GREEDY, 4) == one_by_one(model, GREEDY, 4)
    assert len(made) == 1, "it is not tried again"
    assert "not permitted when stream is capturing" in caplog.text


def test_what_is_launched_after_the_end_changes_nothing(model: Bagel) -> None:
    context = contexts()[2]
    model.reader.sync(model._context, items_of(context))
    before = model._context.stacked(model._context.end.tokens)
    written(model, Writer(model.network, make_graph=None, ahead=3), GREEDY, 0)
    after = model._context.stacked(model._context.end.tokens)
    assert all(map(torch.equal, before, after))


def test_a_text_that_is_left_early_does_not_change_the_next(model: Bagel) -> None:
    writer = Writer(model.network, make_graph=None, ahead=1)
    model.reader.sync(model._context, items_of(contexts()[0]))
    tokenizer = model.reader.tokenizer
    left = writer.ids(model._context, SAMPLED, 1, start=tokenizer.text_start, end=tokenizer.text_end)
    next(left)
    left.close()  # type: ignore[attr-defined]  # a generator
    assert written(model, writer, SAMPLED, 2) == one_by_one(model, SAMPLED, 2)

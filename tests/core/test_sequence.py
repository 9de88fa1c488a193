"""The interpreter carries out a plan, and a resumed run equals an undisturbed one."""

from collections.abc import Iterator, Sequence

import pytest
from PIL import Image

from core.events import Event, ImageReady, StepStarted, TextDelta, TextReady
from core.plan import plan
from core.protocol import Context, Denoising, Drawn, Item, Picture, Text
from core.scripted import ScriptedModel
from core.sequence import PLANNING_PROMPT, derive_seed, run_sequence
from recipes.recipe import ImageItem, ImageSettings, Recipe, TextItem, TextSettings

IMAGE = ImageSettings(width=64, height=64, num_timesteps=3)


def recipe(**fields: object) -> Recipe:
    given = {"context": (TextItem(text="A cat"),), "num_images": 3, "image": IMAGE, **fields}
    return Recipe(name="test", **given)  # type: ignore[arg-type]  # a builder


class Recording(ScriptedModel):
    """Remembers the contexts it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.contexts: list[Context] = []

    def write(self, context: Context, settings: TextSettings, *, seed: int) -> Iterator[str]:
        self.contexts.append(context)
        return super().write(context, settings, seed=seed)

    def draw(self, context: Context, settings: ImageSettings, *, seeds: Sequence[int]) -> Iterator[Denoising | Drawn]:
        self.contexts.append(context)
        return super().draw(context, settings, seeds=seeds)


def outputs(events: list[Event]) -> list[str | bytes]:
    return [
        event.text if isinstance(event, TextReady) else event.image.tobytes()
        for event in events
        if isinstance(event, TextReady | ImageReady)
    ]


def items(events: list[Event], upto: int) -> list[Item | None]:
    """What the first `upto` steps made, as a run's stored objects give it back."""
    made: list[Item | None] = [None] * upto
    for event in events:
        if event.step.number <= upto:
            if isinstance(event, TextReady):
                made[event.step.number - 1] = Text(event.text, thought=event.role == "thinking")
            elif isinstance(event, ImageReady):
                made[event.step.number - 1] = Picture(event.image.copy())
    return made


def test_every_step_of_the_plan_starts_once_and_in_order() -> None:
    given = recipe(think=True, max_context_items=3)
    started = [event.step for event in run_sequence(given, ScriptedModel()) if isinstance(event, StepStarted)]
    assert tuple(started) == plan(given)


def test_the_parts_of_a_text_are_the_text() -> None:
    events = list(run_sequence(recipe(), ScriptedModel()))
    for ready in [event for event in events if isinstance(event, TextReady)]:
        parts = [event.text for event in events if isinstance(event, TextDelta) and event.step == ready.step]
        assert len(parts) > 1
        assert "".join(parts) == ready.text


def test_what_was_made_is_read_back_in_order() -> None:
    model = Recording()
    events = run_sequence(recipe(num_images=2, think=True), model)
    made = [event for event in events if isinstance(event, TextReady | ImageReady)]
    last = model.contexts[-1]
    assert last.system_prompt == PLANNING_PROMPT
    assert last.items[0] == Text("A cat")
    for item, event in zip(last.items[1:], made, strict=False):
        assert item == (Text(event.text) if isinstance(event, TextReady) else Picture(event.image))


def test_the_instruction_is_seen_once_and_never_stays() -> None:
    model = Recording()
    list(run_sequence(recipe(num_images=2, refine_instruction="Be bold"), model))
    seen = [Text("Be bold") in context.items for context in model.contexts]
    assert seen == [False, True, False]


def test_forgotten_items_are_gone_from_the_context() -> None:
    model = Recording()
    list(run_sequence(recipe(num_images=6, think=True, max_context_items=4), model))
    assert max(len(context.items) for context in model.contexts) == 4
    assert all(context.items[0] == Text("A cat") for context in model.contexts)


def test_given_images_are_read_in_the_order_of_the_recipe() -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    model = Recording()
    context = (ImageItem(image="a.png"), TextItem(text="and"), ImageItem(image="b.png"), TextItem(text="Mix them"))
    list(run_sequence(recipe(context=context, num_images=1), model, inputs=[first, second]))
    assert model.contexts[0].items == (Picture(first), Text("and"), Picture(second), Text("Mix them"))


@pytest.mark.parametrize("max_context_items", [None, 4])
def test_a_run_resumed_after_any_step_equals_an_undisturbed_one(max_context_items: int | None) -> None:
    given = recipe(think=True, max_context_items=max_context_items)
    whole = list(run_sequence(given, ScriptedModel()))
    for done in range(len(plan(given)) + 1):
        rest = list(run_sequence(given, ScriptedModel(), done=items(whole, done)))
        expected = [event for event in whole if event.step.number > done]
        assert [type(event) for event in rest] == [type(event) for event in expected]
        assert outputs(rest) == outputs(expected)


def test_a_step_that_made_an_item_cannot_be_restored_without_it() -> None:
    with pytest.raises(ValueError, match="step 2 made an item"):
        list(run_sequence(recipe(), ScriptedModel(), done=[None, None]))


def test_seeds_differ_by_run_step_variation_and_purpose() -> None:
    seeds = {
        derive_seed(run, step, variation, purpose)
        for run in range(4)
        for step in range(4)
        for variation in range(4)
        for purpose in ("text", "noise")
    }
    assert len(seeds) == 4 * 4 * 4 * 2
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_seed_is_the_same_on_every_machine() -> None:
    assert derive_seed(7, 3, 0, "noise") == 998161800022229401

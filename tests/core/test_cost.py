"""A plan's cost is known before it runs, to the token."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from core.bagel import Bagel
from core.bagel.flow import schedule
from core.bagel.tokenizer import BagelTokenizer
from core.cost import StepCost, costs, velocity_evaluations
from core.events import TextReady
from core.plan import Draw, Evict, Read, Write, plan
from core.sequence import PLANNING_PROMPT, run_sequence
from recipes.model_spec import ModelSpec, ResizeRule
from recipes.recipe import ImageItem, ImageSettings, Recipe, Retry, StepCacheSettings, TextItem, TextSettings

TINY = Path(__file__).resolve().parents[2] / "models" / "tiny-bagel"
SPEC = ModelSpec(
    name="test",
    vae=ResizeRule(max_px=64, min_px=64, stride_px=8),
    vit=ResizeRule(max_px=64, min_px=64, stride_px=16),
    max_side_px=64,
    text_defaults={},
    image_defaults={},
    kv_values_per_token=10,
)
IMAGE_TOKENS = (2 + 8 * 8) + (2 + 4 * 4)
IMAGE = ImageSettings(width=64, height=64, num_timesteps=5, cfg_text_scale=1.0)


def recipe(**fields: object) -> Recipe:
    given = {"context": (TextItem(text="A cat"),), "image": IMAGE, "text": TextSettings(max_new_tokens=20), **fields}
    return Recipe(name="test", **given)  # type: ignore[arg-type]  # a builder


def cost_of(given: Recipe, *sizes: tuple[int, int]) -> tuple[StepCost, ...]:
    """With a token for each character."""
    return costs(plan(given), given, SPEC, count_tokens=len, input_sizes=sizes)


def test_texts_and_images_cost_their_tokens_and_markers() -> None:
    found = cost_of(recipe(num_images=2))
    assert [step.new_tokens for step in found] == [2 + len("A cat"), IMAGE_TOKENS, 2 + 20, IMAGE_TOKENS]
    assert [step.context_tokens for step in found] == [7, 7 + 84, 7 + 84 + 22, 7 + 84 + 22 + 84]
    assert [step.kv_values for step in found] == [10 * step.context_tokens for step in found]


def test_a_thinking_run_carries_the_planning_prompt() -> None:
    first = cost_of(recipe(think=True))[0]
    assert first.context_tokens == 2 + len(PLANNING_PROMPT) + 2 + len("A cat")


def test_passes_are_those_of_reading_writing_and_drawing() -> None:
    given = recipe(context=(TextItem(text="Look"), ImageItem(image="a.png")), refinement_prompts=("Red",))
    found = cost_of(given, (64, 64))
    assert [(type(step.step), step.forward_passes) for step in found] == [
        (Read, 1),
        (Read, 2),
        (Read, 1),
        (Draw, 4 + 2),
    ]
    (written,) = (step for step in cost_of(recipe(num_images=2)) if isinstance(step.step, Write))
    assert written.forward_passes == 20 + 2


def test_what_stays_behind_forgotten_items_is_read_again() -> None:
    found = cost_of(recipe(num_images=4, max_context_items=3))
    assert [step.new_tokens for step in found if isinstance(step.step, Evict)] == [
        22,
        IMAGE_TOKENS,
        22,
        IMAGE_TOKENS,
    ]
    assert max(step.context_tokens for step in found) <= 7 + 3 * IMAGE_TOKENS


def test_an_edited_image_keeps_its_size() -> None:
    wide = ResizeRule(max_px=128, min_px=32, stride_px=8)
    spec = ModelSpec(**{**vars(SPEC), "vae": wide})
    given = recipe(
        context=(ImageItem(image="a.png"), TextItem(text="Red")), image=ImageSettings(width=None, height=None)
    )
    found = costs(plan(given), given, spec, count_tokens=len, input_sizes=[(128, 64)])
    assert found[0].new_tokens == found[-1].new_tokens == (2 + 16 * 8) + (2 + 4 * 2)


def test_a_size_that_nothing_gives_is_refused() -> None:
    with pytest.raises(ValueError, match=r"image\.width and image\.height are null"):
        cost_of(recipe(image=ImageSettings(width=None, height=None)))


@pytest.mark.parametrize(
    ("fields", "branches"),
    [
        ({"cfg_text_scale": 1.0, "cfg_img_scale": 2.0}, 1),
        ({"cfg_text_scale": 4.0, "cfg_img_scale": 1.0}, 2),
        ({"cfg_text_scale": 4.0, "cfg_img_scale": 2.0}, 3),
    ],
)
@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.4, 1.0), (0.2, 0.7), (0.5, 0.5)])
def test_every_guidance_is_counted_while_it_holds(
    fields: dict[str, float], branches: int, interval: tuple[float, float]
) -> None:
    settings = ImageSettings(num_timesteps=9, timestep_shift=3.0, cfg_interval=interval, **fields)  # type: ignore[arg-type]  # numbers all
    times = schedule(9, 3.0)[:-1]
    guided = sum(1 for time in times if interval[0] < float(time) <= interval[1])
    assert velocity_evaluations(settings) == 8 + guided * (branches - 1)


@pytest.mark.parametrize(
    ("cache", "computed"),
    [
        (StepCacheSettings(interval=2), [0, 1, 3, 5, 6, 7]),
        (StepCacheSettings(interval=3), [0, 1, 4, 6, 7]),
        (StepCacheSettings(interval=3, warmup=1, tail=0), [0, 3, 6]),
        (StepCacheSettings(interval=2, warmup=3, tail=1), [0, 1, 2, 4, 6, 7]),
        (StepCacheSettings(interval=100, warmup=1, tail=0), [0]),
        (StepCacheSettings(warmup=1000), list(range(8))),
    ],
    ids=str,
)
def test_with_a_step_cache_only_its_computed_steps_are_counted(cache: StepCacheSettings, computed: list[int]) -> None:
    assert [step for step in range(8) if cache.computes(step, 8)] == computed
    settings = ImageSettings(num_timesteps=9, cfg_text_scale=4.0, cfg_img_scale=1.0, cfg_interval=(0.0, 1.0))
    assert velocity_evaluations(replace(settings, step_cache=cache)) == 2 * len(computed)
    assert velocity_evaluations(replace(settings, cfg_text_scale=1.0, step_cache=cache)) == len(computed)


def test_the_step_at_which_guidance_begins_is_counted() -> None:
    cache = StepCacheSettings(interval=100, warmup=1, tail=0)
    settings = ImageSettings(num_timesteps=9, cfg_img_scale=1.0, cfg_interval=(0.0, 0.8), step_cache=cache)
    assert velocity_evaluations(settings) == 1 + 2


def test_every_variation_and_every_try_is_counted() -> None:
    single = cost_of(recipe())[-1]
    first, again = cost_of(recipe(variations_per_image=3, select="judge", retry=Retry(below=0.5, times=1)))[1:]
    question = 2 + len("Does the picture match: A cat?") + 2 + 4 * 4
    assert (first.new_tokens, again.new_tokens) == (IMAGE_TOKENS + 3 * question, 3 * question)
    assert first.forward_passes == again.forward_passes == 3 * (single.forward_passes + 2)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_images": 4, "max_context_items": 4},
        {"variations_per_image": 2, "select": "judge", "refinement_prompts": ("Make it red.",)},
        {"variations_per_image": 2, "select": "tree"},
    ],
    ids=str,
)
def test_tokens_of_a_greedy_run_are_those_that_were_foretold(fields: dict[str, object]) -> None:
    model = Bagel.load(TINY, device="cpu")
    tokenizer = BagelTokenizer.read(TINY, json.loads((TINY / "llm_config.json").read_text())["vocab_size"])

    def count(text: str) -> int:
        return len(tokenizer.frame(text)) - 2

    given = recipe(
        **{"num_images": 2, "think": True, **fields},
        text=TextSettings(temperature=0.0, max_new_tokens=100),
        image=ImageSettings(width=64, height=64, num_timesteps=2, cfg_text_scale=1.0),
    )
    texts = {event.step.number: event.text for event in run_sequence(given, model) if isinstance(event, TextReady)}
    found = costs(plan(given), given, model.spec, count_tokens=count)
    tokens = {step: 2 + count(text) for step, text in texts.items()}
    foretold = 2 + count(PLANNING_PROMPT)
    seen: tuple[int, ...] = ()
    for step in found:
        if isinstance(step.step, Evict):  # what is read again is what was written, rather than the longest
            behind = step.step.context[len(step.step.dropped) + 1 :]
            foretold += sum(tokens.get(number, found[number - 1].new_tokens) for number in behind if number in seen)
        else:
            seen = seen if isinstance(step.step, Read) else step.step.context
            foretold += tokens.get(step.step.number, step.new_tokens)
    ends = [step for step in found if isinstance(step.step, Draw) and step.step.index == given.num_images - 1]
    unread = len(ends) * given.variations_per_image if given.select == "tree" else 1
    last_images = unread * sum(model.spec.image_tokens(64, 64))  # there is nothing after them, so they aren't read back
    assert model.tokens_read == foretold - last_images

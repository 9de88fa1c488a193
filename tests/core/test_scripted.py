"""The model without weights keeps the real one's word: a function of context, settings and seed."""

import pytest
from PIL import Image

from core.protocol import Context, Denoising, Drawn, Picture, Text
from core.scripted import ScriptedModel
from recipes.recipe import ImageSettings, TextSettings

CAT = Context(items=(Text("A cat"),))
IMAGE = ImageSettings(width=64, height=32, num_timesteps=5)


def written(context: Context = CAT, *, seed: int = 0, model: ScriptedModel | None = None) -> str:
    return "".join((model or ScriptedModel()).write(context, TextSettings(), seed=seed))


def drawn(context: Context = CAT, *, seed: int = 0, model: ScriptedModel | None = None) -> Image.Image:
    *_, last = (model or ScriptedModel()).draw(context, IMAGE, seeds=(seed,))
    assert isinstance(last, Drawn)
    return last.images[0]


def test_the_same_again_is_the_same() -> None:
    model = ScriptedModel()
    assert written(model=model) == written(model=model) == written()
    assert drawn(model=model).tobytes() == drawn().tobytes()


@pytest.mark.parametrize(
    "other",
    [
        CAT.plus(Text("Red")),
        Context(items=(Text("A dog"),)),
        Context(system_prompt="Plan", items=CAT.items),
        CAT.plus(Picture(Image.new("RGB", (8, 8), "red"))),
    ],
)
def test_all_of_the_context_counts(other: Context) -> None:
    assert written(other) != written()
    assert drawn(other).tobytes() != drawn().tobytes()


def test_the_seed_counts() -> None:
    assert written(seed=1) != written()
    assert drawn(seed=1).tobytes() != drawn().tobytes()


def test_an_image_is_drawn_in_steps_to_the_size_that_was_asked_for() -> None:
    *steps, last = ScriptedModel().draw(CAT, IMAGE, seeds=(0,))
    assert [(step.done, step.total) for step in steps if isinstance(step, Denoising)] == [(n, 4) for n in range(1, 5)]
    assert isinstance(steps[0], Denoising)
    assert steps[0].preview().size == (64, 64)
    assert isinstance(last, Drawn)
    assert last.images[0].size == (64, 32)


def test_a_text_keeps_to_its_limit() -> None:
    assert len(list(ScriptedModel().write(CAT, TextSettings(max_new_tokens=2), seed=0))) == 2


def test_what_was_read_before_is_not_read_again() -> None:
    model = ScriptedModel()
    written(model=model)
    assert model.tokens_read == len("A cat")
    written(CAT.plus(Text("Red")), model=model)
    assert model.tokens_read == len("A cat") + len("Red")
    written(Context(items=(Text("Red"),)), model=model)
    assert model.tokens_read == len("A cat") + len("Red") + len("Red")


def test_each_token_and_each_denoising_step_takes_its_time() -> None:
    waits: list[float] = []
    model = ScriptedModel(delay_s=0.5, sleep=waits.append)
    words = written(model=model).split()
    assert waits == [0.5] * len(words)
    drawn(model=model)
    assert waits == [0.5] * (len(words) + 4)


def test_images_drawn_together_are_those_drawn_alone() -> None:
    model = ScriptedModel()
    *_, step, last = model.draw(CAT, IMAGE, seeds=(3, 1))
    assert isinstance(last, Drawn)
    assert [image.tobytes() for image in last.images] == [drawn(seed=seed).tobytes() for seed in (3, 1)]
    assert model.tokens_read == len("A cat"), "one context for both"
    assert isinstance(step, Denoising)
    assert step.preview().size == (128, 64), "side by side"


def test_a_judgement_is_a_function_of_the_image_and_the_question() -> None:
    model = ScriptedModel()
    image, other = drawn(seed=1), drawn(seed=2)
    scores = [model.judge(*asked) for asked in ((image, "Red?"), (image, "Blue?"), (other, "Red?"))]
    assert len(set(scores)) == 3
    assert all(0 <= score < 1 for score in scores)
    assert ScriptedModel().judge(image.copy(), "Red?") == scores[0]
    assert model.tokens_read == 3 * len(image.tobytes()) + len("Red?Blue?Red?")

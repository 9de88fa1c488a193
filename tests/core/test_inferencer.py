"""AutoInterleavedInferencer is the recipe language from Python: same outputs, and a context that goes on."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image

from core.bagel import Bagel
from core.events import Event, ImageReady, StepStarted, TextReady
from core.inferencer import AutoInterleavedInferencer
from core.protocol import Context, Denoising, Drawn, Picture, Text, UnifiedModel
from core.scripted import SPEC, ScriptedModel
from core.sequence import PLANNING_PROMPT, run_sequence
from recipes.faults import RecipeError
from recipes.load import load
from recipes.recipe import ImageSettings, Retry

TINY = Path(__file__).resolve().parents[2] / "models" / "tiny-bagel"


class Recording(ScriptedModel):
    """Remembers how it was asked to draw."""

    def __init__(self) -> None:
        super().__init__()
        self.settings: list[ImageSettings] = []
        self.contexts: list[Context] = []

    def draw(self, context: Context, settings: ImageSettings, *, seeds: Sequence[int]) -> Iterator[Denoising | Drawn]:
        self.settings.append(settings)
        self.contexts.append(context)
        return super().draw(context, settings, seeds=seeds)


def photo() -> Image.Image:
    return Image.new("RGB", (64, 64), "red")


def contents(outputs: list[str | Image.Image]) -> list[str | bytes]:
    return [output if isinstance(output, str) else output.tobytes() for output in outputs]


def of_a_recipe(model: UnifiedModel, **fields: object) -> list[str | bytes]:
    """What the same sequence gives as a recipe."""
    recipe = load({"name": "python", "context": [{"text": "A cat"}], **fields}, spec=model.spec)
    return [
        event.text if isinstance(event, TextReady) else event.image.tobytes()
        for event in run_sequence(recipe, model)
        if isinstance(event, TextReady | ImageReady)
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"num_images": 3},
        {"num_images": 3, "think": True},
        {"num_images": 4, "think": True, "max_context_items": 4},
        {"num_images": 3, "refinement_prompts": ["Make it red"], "refine_instruction": "Be bold"},
        {"num_images": 2, "auto_refine": False, "refinement_prompts": ["Make it red"]},
    ],
)
def test_a_sequence_is_that_of_the_same_recipe(fields: dict[str, object]) -> None:
    outputs = AutoInterleavedInferencer(ScriptedModel(), seed=3).generate_auto_sequence(["A cat"], **fields)  # type: ignore[arg-type]  # the recipe's fields
    assert contents(outputs) == of_a_recipe(ScriptedModel(), seed=3, **fields)


def test_tiny_bagel_gives_the_same_from_python_as_from_a_recipe() -> None:
    model = Bagel.load(TINY, device="cpu")
    outputs = AutoInterleavedInferencer(model, seed=1).generate_auto_sequence(["A cat"], num_images=2, think=True)
    assert [type(output) for output in outputs] == [str, Image.Image, str, str, Image.Image]
    assert contents(outputs) == of_a_recipe(model, seed=1, num_images=2, think=True)


def test_tiny_bagel_goes_on_without_reading_anything_again() -> None:
    model = Bagel.load(TINY, device="cpu")
    inferencer = AutoInterleavedInferencer(model)
    inferencer.generate_auto_sequence(["A cat"], num_images=1, image={"num_timesteps": 2})
    inferencer.generate_auto_sequence(["Make it red"], num_images=1, image={"num_timesteps": 2})
    before = model.tokens_read
    inferencer.add_to_context("Now blue")
    inferencer.generate_image(num_timesteps=2)
    image, text = sum(model.spec.image_tokens(64, 64)), 2 * len("Now blue") + 2
    assert image < model.tokens_read - before < 2 * image + text, "one image, one text, and their text-free twin"


def test_the_context_goes_on_after_a_sequence() -> None:
    model = ScriptedModel()
    inferencer = AutoInterleavedInferencer(model)
    outputs = inferencer.generate_auto_sequence(["A cat"], num_images=2, think=True)
    made = [Text(item) if isinstance(item, str) else Picture(item) for item in outputs]
    assert inferencer.context == Context(system_prompt=PLANNING_PROMPT, items=(Text("A cat"), *made))
    before = model.tokens_read
    inferencer.add_to_context("Bluer")
    inferencer.generate_image()
    last = outputs[-1]
    assert isinstance(last, Image.Image)
    assert model.tokens_read - before == len("Bluer") + len(last.tobytes()), "what is new, and nothing else"


def test_forgotten_items_stay_forgotten() -> None:
    inferencer = AutoInterleavedInferencer(ScriptedModel())
    inferencer.generate_auto_sequence(["A cat"], num_images=4, max_context_items=3)
    assert len(inferencer.context.items) <= 4
    assert inferencer.context.items[0] == Text("A cat")


def test_images_guide_only_where_one_was_given() -> None:
    model = Recording()
    AutoInterleavedInferencer(model).generate_auto_sequence(["A cat"], num_images=2, image={"cfg_img_scale": 1.0})
    AutoInterleavedInferencer(model).generate_auto_sequence([photo(), "Bluer"], num_images=1, cfg_img_scale=1.7)
    assert [settings.cfg_img_scale for settings in model.settings] == [1.0, 1.0, 1.7]
    assert (model.settings[-1].width, model.settings[-1].height) == (None, None), "an edit keeps the photo's size"


def test_image_guidance_of_a_generation_is_off_as_in_a_recipe() -> None:
    model = Recording()
    outputs = AutoInterleavedInferencer(model).generate_auto_sequence(["A cat"], num_images=1, cfg_img_scale=1.7)
    assert contents(outputs) == of_a_recipe(ScriptedModel(), image={"cfg_img_scale": 1.7})


def test_one_output_at_a_time() -> None:
    inferencer = AutoInterleavedInferencer(ScriptedModel(), seed=4)
    inferencer.add_to_context("A cat")
    parts: list[str] = []
    steps: list[tuple[int, int]] = []
    text = inferencer.generate_text(on_text=parts.append, max_new_tokens=6)
    image = inferencer.generate_image(on_step=lambda done, total: steps.append((done, total)), num_timesteps=4)
    assert "".join(parts) == text
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert inferencer.context.items == (Text("A cat"), Text(text), Picture(image))


def test_a_seed_gives_the_same_again_after_a_reset() -> None:
    inferencer = AutoInterleavedInferencer(ScriptedModel(), seed=4)
    inferencer.add_to_context("A cat")
    first = inferencer.generate_text(), inferencer.generate_text()
    inferencer.reset()
    assert inferencer.context == Context()
    inferencer.add_to_context("A cat")
    assert (inferencer.generate_text(), inferencer.generate_text()) == first
    assert first[0] != first[1]


def test_events_are_told_as_they_happen() -> None:
    events: list[Event] = []
    AutoInterleavedInferencer(ScriptedModel()).generate_auto_sequence(["A cat"], num_images=2, on_event=events.append)
    assert [event.step.number for event in events if isinstance(event, StepStarted)] == [1, 2, 3, 4]


def test_a_sequence_needs_something_to_begin_with() -> None:
    with pytest.raises(ValueError, match="the context is empty"):
        AutoInterleavedInferencer(ScriptedModel()).generate_auto_sequence([])


def test_what_a_recipe_may_not_say_python_may_not_either() -> None:
    inferencer = AutoInterleavedInferencer(ScriptedModel())
    with pytest.raises(RecipeError, match="2 refinement texts and 0 are given"):
        inferencer.generate_auto_sequence(["A cat"], num_images=3, auto_refine=False)
    with pytest.raises(RecipeError, match="multiples of 8 up to 1024"):
        inferencer.generate_auto_sequence(["A cat"], image={"width": 100, "height": 64})


def test_a_refused_sequence_leaves_the_context_alone() -> None:
    inferencer = AutoInterleavedInferencer(ScriptedModel())
    with pytest.raises(RecipeError):
        inferencer.generate_auto_sequence(["A cat"], num_images=3, auto_refine=False)
    assert inferencer.context == Context()


def test_a_model_that_draws_nothing_is_an_error() -> None:
    class Blind(ScriptedModel):
        def draw(
            self, context: Context, settings: ImageSettings, *, seeds: Sequence[int]
        ) -> Iterator[Denoising | Drawn]:
            del context, settings, seeds
            return iter(())

    inferencer = AutoInterleavedInferencer(Blind())
    inferencer.add_to_context("A cat")
    with pytest.raises(RuntimeError, match="returned no image"):
        inferencer.generate_image()


def test_the_scripted_card_has_the_defaults_that_are_used() -> None:
    model = Recording()
    AutoInterleavedInferencer(model).generate_auto_sequence(["A cat"], num_images=1)
    assert model.settings[0].num_timesteps == SPEC.image_defaults["num_timesteps"]


@pytest.mark.parametrize(
    "fields",
    [
        {"num_images": 2, "variations_per_image": 2, "select": "judge"},
        {"num_images": 2, "retry": Retry(below=0.7, times=2)},
        {"num_images": 3, "refinement_prompts": [None, "Make it red"]},
    ],
    ids=str,
)
def test_of_the_variations_what_goes_on_is_returned(fields: dict[str, object]) -> None:
    inferencer, told = AutoInterleavedInferencer(ScriptedModel()), list[Event]()
    outputs = inferencer.generate_auto_sequence(["A cat"], on_event=told.append, **fields)  # type: ignore[arg-type]  # the recipe's fields
    images = [output for output in outputs if not isinstance(output, str)]
    drawn = [one.image for event in told if isinstance(event, ImageReady) for one in event.variations]
    assert len(images) == fields["num_images"]
    assert all(any(image is one for one in drawn) for image in images)
    made = [Text(item) if isinstance(item, str) else Picture(item) for item in outputs]
    assert inferencer.context.items == (Text("A cat"), *made)


def test_of_a_tree_all_is_returned_and_the_last_branch_goes_on() -> None:
    inferencer = AutoInterleavedInferencer(ScriptedModel())
    outputs = inferencer.generate_auto_sequence(["A cat"], num_images=2, variations_per_image=2, select="tree")
    assert [type(output) for output in outputs] == [Image.Image] * 2 + [str, Image.Image, Image.Image] * 2
    second, refinement, last = outputs[1], outputs[5], outputs[7]
    assert isinstance(second, Image.Image)
    assert isinstance(refinement, str)
    assert isinstance(last, Image.Image)
    assert inferencer.context.items == (Text("A cat"), Picture(second), Text(refinement), Picture(last))


def test_a_fork_goes_on_from_the_same_context_and_neither_sees_the_other() -> None:
    inferencer = AutoInterleavedInferencer(ScriptedModel(), seed=4)
    inferencer.add_to_context("A cat")
    inferencer.generate_image()
    same, other = inferencer.fork(), inferencer.fork(seed=5)
    images = [one.generate_image().tobytes() for one in (inferencer, same, other)]
    assert images[0] == images[1] != images[2]
    assert [len(one.context.items) for one in (inferencer, same, other)] == [3, 3, 3]
    assert inferencer.context.items[:2] == other.context.items[:2]


def test_a_rollback_takes_items_out_and_what_follows_is_new() -> None:
    model = ScriptedModel()
    inferencer = AutoInterleavedInferencer(model)
    inferencer.add_to_context("A cat")
    first = inferencer.generate_image()
    inferencer.rollback()
    assert inferencer.context.items == (Text("A cat"),)
    before = model.tokens_read
    assert inferencer.generate_image().tobytes() != first.tobytes()
    assert model.tokens_read == before, "what stays has been read"
    inferencer.rollback(2)
    assert len(inferencer.context.items) == 0
    for n in (1, -1):
        with pytest.raises(ValueError, match=f"can't roll back {n} items: the context has 0"):
            inferencer.rollback(n)


def test_a_sequence_has_three_images_unless_told_otherwise() -> None:
    outputs = AutoInterleavedInferencer(ScriptedModel()).generate_auto_sequence(["A cat"])
    assert [type(output) for output in outputs] == [Image.Image, str, Image.Image, str, Image.Image]

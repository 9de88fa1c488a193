"""Rules between fields: each breach is told once, with the remedy."""

from pathlib import Path
from typing import Any

import pytest

from core.model_folder import read_spec
from recipes.faults import RecipeError
from recipes.load import load
from recipes.model_spec import ModelSpec
from recipes.recipe import ImageItem, ImageSettings, Recipe, TextItem
from recipes.rules import check

TINY = read_spec(Path(__file__).parents[2] / "models" / "tiny-bagel")
PHOTO = {"image": "s3://bucket/photo.png"}
TEXT = {"text": "A cat"}


def faults(*context: dict[str, str], spec: ModelSpec | None = None, **fields: Any) -> list[str]:
    """The faults of a recipe with this context, A cat by default; none when it loads."""
    try:
        load({"name": "test", "context": context or [TEXT], **fields}, spec=spec)
    except RecipeError as error:
        return str(error).split("\n")
    return []


@pytest.mark.parametrize("name", ["a", "0", "magical-forest", "a" * 64, "a-"])
def test_names_of_lower_case_letters_digits_and_dashes_are_allowed(name: str) -> None:
    assert faults(name=name) == []


@pytest.mark.parametrize("name", ["", "A", "-a", "a b", "a_b", "a.b", "a" * 65, "é", "a\n", "../a"])
def test_other_names_are_refused(name: str) -> None:
    (line,) = faults(name=name)
    assert line.endswith(
        "is not a name; allowed: 1 to 64 lower-case letters, digits and dashes, not starting with a dash"
    )


@pytest.mark.parametrize("model", [None, "tiny-bagel", "bagel_7b.mot", "7b"])
def test_model_names_may_hold_dots_and_underscores_too(model: str | None) -> None:
    assert faults(model=model) == []


@pytest.mark.parametrize("model", ["", "../models", "/models/a", "Bagel", ".a", "a" * 65])
def test_model_names_are_no_paths(model: str) -> None:
    (line,) = faults(model=model)
    assert line.startswith("model: ")


def test_a_pin_is_64_lower_case_hexadecimal_digits() -> None:
    assert faults({**PHOTO, "sha256": "0123456789abcdef" * 4}) == []
    for pin in ("", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n"):
        (line,) = faults({**PHOTO, "sha256": pin})
        assert line.endswith("is not a SHA-256; allowed: 64 lower-case hexadecimal digits")
        (line,) = faults(model_sha256=pin)
        assert line == f"model_sha256: {pin!r} is not a SHA-256; allowed: 64 lower-case hexadecimal digits"


def test_without_auto_refine_every_refinement_must_be_given() -> None:
    assert faults(auto_refine=False) == []
    assert faults(auto_refine=False, num_images=3, refinement_prompts=["Warmer", "Larger"]) == []
    assert faults(auto_refine=False, num_images=3, refinement_prompts=["Warmer"]) == [
        "refinement_prompts: 3 images need 2 refinement texts and 1 are given; allowed: auto_refine: true, so that "
        "the model writes the others, or 2 refinement_prompts"
    ]


def test_a_context_that_ends_with_an_image_needs_one_refinement_more() -> None:
    assert faults(PHOTO, TEXT, auto_refine=False) == []
    (line,) = faults(TEXT, PHOTO, auto_refine=False)
    assert line.startswith("auto_refine: 1 images after an image need 1 refinement texts and 0 are given; allowed: ")


def test_width_and_height_go_together() -> None:
    both = "allowed: both width and height, or neither"
    assert faults(image={"width": 64}) == [f"image.width: is given without the other side; {both}"]
    assert faults(image={"height": 64}) == [f"image.height: is given without the other side; {both}"]
    assert faults(PHOTO, TEXT, image={"width": None, "height": 64}) == [
        "image.width: is null, but the other side is not; allowed: both width and height null, or neither"
    ]


def test_only_editing_may_take_the_size_of_the_last_image() -> None:
    null = {"width": None, "height": None}
    assert faults(PHOTO, TEXT, image=null) == []
    (line,) = faults(image=null)
    assert line.startswith("image.width: null uses the size of the last image, but the initial context has no image")


def test_sizes_are_on_the_models_grid() -> None:
    assert faults(image={"width": 8, "height": 64}, spec=TINY) == []
    assert faults(image={"width": 60, "height": 72}, spec=TINY) == [
        "image.width: 60 is not a multiple of 8; allowed: multiples of 8 up to 64",
        "image.height: 72 is more than 64; allowed: multiples of 8 up to 64",
    ]
    assert faults(image={"width": 60, "height": 72}) == []


def test_the_guidance_interval_does_not_run_backwards() -> None:
    assert faults(image={"cfg_interval": [0.5, 0.5]}) == []
    assert faults(image={"cfg_interval": [0.9, 0.1]}) == [
        "image.cfg_interval: starts at 0.9 and ends at 0.1; allowed: [low, high] with low not above high"
    ]


def test_the_context_has_room_for_more_than_what_is_pinned() -> None:
    assert faults(TEXT, TEXT, max_context_items=3) == []
    assert faults(TEXT, TEXT, max_context_items=1, pin="none") == []
    assert faults(TEXT, TEXT, max_context_items=2) == [
        "max_context_items: 2 leaves no room besides the pinned items of the context (2); "
        "allowed: 3 or more, or pin: none"
    ]


def test_so_many_items_can_be_pinned_as_there_are() -> None:
    assert faults(TEXT, TEXT, max_context_items=2, pin=1) == []
    assert faults(TEXT, TEXT, max_context_items=1, pin=0) == []
    assert faults(TEXT, TEXT, max_context_items=2, pin=2) == [
        "max_context_items: 2 leaves no room besides the pinned items of the context (2); "
        "allowed: 3 or more, or pin: none"
    ]
    assert faults(TEXT, TEXT, pin=3) == [
        "pin: 3 is more than the 2 items of the context; allowed: initial, none, or 0 to 2"
    ]


def test_a_tree_has_at_most_64_images() -> None:
    assert faults(variations_per_image=2, num_images=5, select="tree") == []
    assert faults(variations_per_image=8, num_images=7, select="judge") == []
    assert faults(variations_per_image=2, num_images=6, select="tree") == [
        "select: a tree of 6 images with 2 variations each has 126 images; allowed: at most 64 in all"
    ]


def test_a_question_to_the_judge_holds_the_instruction() -> None:
    assert faults(judge={"question": "Is it so: {instruction}?"}) == []
    assert faults(judge={"question": "What is it?", "answer": "{instruction}"}) == []
    (line,) = faults(judge={"question": "Is it nice?"})
    assert line.startswith("judge.question: does not depend on the instruction")


def test_a_null_among_the_refinements_needs_the_model_to_write() -> None:
    assert faults(num_images=3, refinement_prompts=[None, "Red"]) == []
    assert faults(num_images=3, refinement_prompts=[None, "Red"], auto_refine=False) == [
        "refinement_prompts: 3 images need 2 refinement texts and 1 are given; allowed: auto_refine: true, so that "
        "the model writes the others, or 2 refinement_prompts"
    ]


def test_a_parent_is_a_step_of_a_run() -> None:
    assert faults(parent="run-1@4") == []
    assert faults(parent="run-1") == [
        "parent: 'run-1' is not a step of a run; allowed: RUN@STEP, a run id and a step number"
    ]


def test_images_of_a_file_are_looked_up_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "edit.yaml"
    file.write_text("name: edit\ncontext:\n  - image: photos/a.png\n  - text: Warmer\n", encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load(file)
    assert str(caught.value) == (
        f"{file}:3:12: context[0].image: photos/a.png: no such file; paths are relative to {tmp_path.resolve()}"
    )
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    assert load(file).context[0] == ImageItem(image="photos/a.png")


def test_a_recipe_made_in_python_is_held_to_the_same_rules() -> None:
    recipe = Recipe(
        name="python",
        context=(TextItem(text="A cat"),),
        num_images=2,
        auto_refine=False,
    )
    with pytest.raises(RecipeError) as caught:
        check(recipe, TINY)
    found = {fault.path for fault in caught.value.faults}
    assert found == {("image", "width"), ("image", "height"), ("auto_refine",)}
    check(Recipe(name="python", context=recipe.context, image=ImageSettings(width=64, height=64)), TINY)


def test_without_a_context_only_that_is_missed() -> None:
    with pytest.raises(RecipeError) as caught:
        load({"name": "test", "image": {"width": None, "height": None}})
    (fault,) = caught.value.faults
    assert fault.path == ("context",)


def test_a_step_cache_has_known_settings_within_bounds() -> None:
    assert faults(image={"step_cache": {}}) == []
    assert faults(image={"step_cache": {"method": "taylor", "interval": 4, "order": 2, "warmup": 1, "tail": 0}}) == []
    assert faults(
        image={"step_cache": {"method": "tea", "interval": 1, "order": 3, "warmup": 0, "tail": -1, "every": 2}}
    ) == [
        'image.step_cache.method: "tea" is not an option; allowed: taylor',
        "image.step_cache.interval: 1 is too small; allowed: whole numbers from 2 to 100",
        "image.step_cache.order: 3 is too large; allowed: whole numbers from 1 to 2",
        "image.step_cache.warmup: 0 is too small; allowed: whole numbers from 1 to 1,000",
        "image.step_cache.tail: -1 is too small; allowed: whole numbers from 0 to 1,000",
        "image.step_cache: unknown field 'every'; allowed: method, interval, order, warmup, tail",
    ]
    (line,) = faults(image={"step_cache": True})
    assert line == (
        "image.step_cache: true is a boolean; allowed: a mapping with method, interval, order, warmup, tail, or null"
    )

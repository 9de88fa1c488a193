"""A valid recipe that exceeds what its model was trained on gets warnings."""

from dataclasses import replace
from typing import Any

from core.scripted import SPEC
from recipes.load import load
from recipes.model_spec import TrainingLimits
from recipes.warnings import warnings

SPEC_512 = replace(SPEC, limits=TrainingLimits(min_side_px=512, max_side_px=1024, max_prompt_chars=10))
SPEC_64 = replace(SPEC, limits=TrainingLimits(min_side_px=64, max_side_px=64))


def warned(spec: Any = SPEC_512, **fields: Any) -> list[str]:
    size = {"width": 512, "height": 1024}
    recipe = load({"name": "test", "context": [{"text": "A cat"}], "image": size, **fields}, spec=spec)
    return [str(warning) for warning in warnings(recipe, spec)]


def test_a_recipe_within_the_limits_has_no_warnings() -> None:
    assert warned() == []
    assert warned(context=[{"text": "0123456789"}, {"image": "s3://bucket/a.png"}], image={}) == []


def test_a_model_without_limits_has_no_warnings() -> None:
    assert warned(spec=SPEC, image={"width": 8, "height": 1024}, context=[{"text": "x" * 8192}]) == []


def test_a_side_outside_the_trained_range_is_named() -> None:
    assert warned(image={"width": 504, "height": 512}) == [
        "image.width: 504 px; scripted was trained on images with sides from 512 to 1024 px, so the result may be poor"
    ]
    assert warned(spec=SPEC_64, image={"width": 64, "height": 72}) == [
        "image.height: 72 px; scripted was trained on images with sides of 64 px, so the result may be poor"
    ]


def test_the_models_largest_side_bounds_the_range_when_training_states_none() -> None:
    spec = replace(SPEC, limits=TrainingLimits(min_side_px=512))
    assert warned(spec=spec, image={"width": 512, "height": 1024}) == []
    assert len(warned(spec=spec, image={"width": 504, "height": 504})) == 2


def test_each_long_prompt_is_named() -> None:
    found = warned(
        context=[{"text": "short"}, {"text": "01234567890"}],
        num_images=3,
        refinement_prompts=[None, "x" * 1200],
        refine_instruction="x" * 11,
    )
    trained = "scripted was trained on prompts of up to 10 characters, so the result may be poor"
    assert found == [
        f"context[1].text: 11 characters; {trained}",
        f"refinement_prompts[1]: 1,200 characters; {trained}",
        f"refine_instruction: 11 characters; {trained}",
    ]


def test_a_warning_is_given_as_data() -> None:
    recipe = load({"name": "test", "context": [{"text": "x" * 11}]}, spec=SPEC_512)
    assert warnings(recipe, SPEC_512)[-1].to_data() == {
        "field": "context[0].text",
        "message": "11 characters; scripted was trained on prompts of up to 10 characters, so the result may be poor",
    }

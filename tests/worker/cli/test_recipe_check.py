"""Recipes are checked as they would be run, with the overrides of the command line."""

from dataclasses import replace

from core.scripted import SPEC
from recipes.model_spec import TrainingLimits
from worker.cli.recipe_check import check_recipe


def test_overrides_are_checked_with_the_recipe() -> None:
    assert check_recipe("magical-forest", SPEC, overrides={"num_images": 2}).ok
    check = check_recipe("magical-forest", SPEC, overrides={"num_images": 0, "seed": -1})
    assert not check.ok
    assert [str(fault).split(": ")[0] for fault in check.faults] == ["override seed", "override num_images"]


def test_a_recipe_beyond_what_the_model_was_trained_on_is_valid_with_warnings() -> None:
    spec = replace(SPEC, limits=TrainingLimits(min_side_px=64, max_side_px=64))
    check = check_recipe("night-sky", spec, overrides={"width": 32, "height": 64})
    assert check.ok
    assert [warning["field"] for warning in check.to_data()["warnings"]] == ["image.width"]
    assert not check_recipe("night-sky", spec, overrides={"width": 64, "height": 64}).warnings

"""Recipes are checked as they would be run, with the overrides of the command line."""

from core.scripted import SPEC
from worker.cli.recipe_check import check_recipe


def test_overrides_are_checked_with_the_recipe() -> None:
    assert check_recipe("magical-forest", SPEC, overrides={"num_images": 2}).ok
    check = check_recipe("magical-forest", SPEC, overrides={"num_images": 0, "seed": -1})
    assert not check.ok
    assert [str(fault).split(": ")[0] for fault in check.faults] == ["override seed", "override num_images"]

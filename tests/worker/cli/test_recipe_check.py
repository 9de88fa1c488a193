"""A recipe is judged as it would be run, with what a command line changes in it."""

from core.scripted import SPEC
from worker.cli.recipe_check import verdict_on


def test_overrides_are_judged_with_the_recipe() -> None:
    assert verdict_on("magical-forest", SPEC, overrides={"num_images": 2}).ok
    verdict = verdict_on("magical-forest", SPEC, overrides={"num_images": 0, "seed": -1})
    assert not verdict.ok
    assert [fault.split(": ")[0] for fault in verdict.faults] == ["override seed", "override num_images"]

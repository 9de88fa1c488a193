"""How far a run is follows from its plan; how long it will take, from the clock."""

import pytest

from core.plan import plan
from recipes.recipe import ImageSettings, Recipe, TextItem, TextSettings
from worker.serve.pace import PASSES_A_VELOCITY, TYPICAL_TEXT_TOKENS, Pace

RECIPE = Recipe(
    name="test",
    context=(TextItem(text="A cat"),),
    num_images=2,
    text=TextSettings(max_new_tokens=500),
    image=ImageSettings(num_timesteps=11, cfg_text_scale=1.0),  # ten passes: no guidance
)
STEPS = plan(RECIPE)  # read, draw, write, draw
WEIGHTS = [1, 10 * PASSES_A_VELOCITY, TYPICAL_TEXT_TOKENS, 10 * PASSES_A_VELOCITY]


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def test_a_run_begins_at_nothing_and_ends_at_one() -> None:
    pace = Pace(STEPS, RECIPE)
    assert pace.fraction(1) == 0
    assert pace.fraction(4, 1.0) == pytest.approx(1)


def test_each_step_weighs_what_it_costs() -> None:
    pace = Pace(STEPS, RECIPE)
    assert [pace.fraction(step) for step in range(1, 5)] == pytest.approx(
        [sum(WEIGHTS[:before]) / sum(WEIGHTS) for before in range(4)]
    )


def test_half_a_step_is_half_its_weight() -> None:
    pace = Pace(STEPS, RECIPE)
    assert pace.fraction(2, 0.5) == pytest.approx((WEIGHTS[0] + WEIGHTS[1] / 2) / sum(WEIGHTS))


def test_the_time_left_follows_from_the_time_taken() -> None:
    clock = Clock()
    pace = Pace(STEPS, RECIPE, clock=clock)
    assert pace.eta_s(0.0) is None
    clock.now += 10
    assert pace.eta_s(0.25) == pytest.approx(30)


def test_what_an_earlier_worker_did_took_none_of_our_time() -> None:
    clock = Clock()
    pace = Pace(STEPS, RECIPE, done=2, clock=clock)
    begun = pace.fraction(3)
    assert pace.eta_s(begun) is None
    clock.now += 10
    halfway = begun + (1 - begun) / 2
    assert pace.eta_s(halfway) == pytest.approx(10)

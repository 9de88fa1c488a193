"""A sweep is every combination of the values given, each value as an override has it."""

from typing import Any

import pytest

from recipes.faults import RecipeError
from recipes.sweep import combinations, parse_sweep, values_text


@pytest.mark.parametrize(
    ("text", "field", "values"),
    [
        ("cfg_text_scale=2,4,6", "cfg_text_scale", [2, 4, 6]),
        ("seed=1..4", "seed", [1, 2, 3, 4]),
        ("seed=1..10..4,20", "seed", [1, 5, 9, 20]),
        ("cfg_renorm_min=0..1..0.25", "cfg_renorm_min", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("image.cfg_text_scale=.5..2..0.7", "image.cfg_text_scale", [0.5, 1.2, 1.9]),
        ("seed=-1..1", "seed", [-1, 0, 1]),
        ("think = true, false", "think", [True, False]),
        ('context.0.text=A cat,"A dog, asleep"', "context.0.text", ["A cat", "A dog, asleep"]),
        ("cfg_interval=[0, 1],[0.4, 1.0]", "cfg_interval", [[0, 1], [0.4, 1.0]]),
        ("max_context_items=null,3", "max_context_items", [None, 3]),
    ],
)
def test_values_are_written_as_a_list_or_a_range(text: str, field: str, values: list[Any]) -> None:
    key, found = parse_sweep(text)
    assert (key, found) == (field, values)
    assert [type(value) for value in found] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("seed", "'seed' is not a sweep; expected field=value,value,..."),
        ("=1,2", "is not a sweep"),
        ("seed=", "is not a sweep"),
        ("seed=4..1", "the range 4..1 must increase"),
        ("seed=1..4..0", "with a step above 0"),
        ("seed=1..1000000000", "has more than 256 values"),
        ("seed=[1", "override seed"),
    ],
)
def test_what_is_no_sweep_is_refused(text: str, why: str) -> None:
    with pytest.raises(RecipeError) as raised:
        parse_sweep(text)
    assert why in str(raised.value)


def test_the_last_field_changes_fastest() -> None:
    runs = combinations({"seed": [1, 2], "think": [True, False]})
    assert [values_text(values) for values in runs] == [
        "seed=1, think=true",
        "seed=1, think=false",
        "seed=2, think=true",
        "seed=2, think=false",
    ]


def test_a_sweep_has_its_limit() -> None:
    assert len(combinations({"seed": range(16), "top_k": range(16)})) == 256
    with pytest.raises(RecipeError, match=r"sweep: 1,000,000 runs are too many; allowed: at most 256"):
        combinations({"seed": range(1000), "top_k": range(1000)})


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(RecipeError) as raised:
        combinations({"cfg_text_scale": [2, 2], "image.cfg_text_scale": [1, True], "seed": []})
    assert str(raised.value).splitlines() == [
        "sweep: cfg_text_scale and image.cfg_text_scale are the same field",
        "sweep: cfg_text_scale has 2 more than once",
        "sweep: seed has no values",
    ]
    with pytest.raises(RecipeError, match="no field is given"):
        combinations({})


def test_values_are_told_as_they_are_given() -> None:
    assert (
        values_text({"name": "a-cat", "seed": None, "cfg_interval": [0, 1.5]})
        == "name=a-cat, seed=null, cfg_interval=[0, 1.5]"
    )

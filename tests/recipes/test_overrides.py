"""Overrides win over the recipe, by field, dotted path or bare setting, and their faults say what they are."""

from typing import Any

import pytest

from recipes.faults import RecipeError
from recipes.load import load
from recipes.overrides import parse_override
from recipes.recipe import ImageSettings, Recipe, TextItem, TextSettings

RECIPE = "name: test\ncontext:\n  - text: A cat\nnum_images: 2\nimage: {cfg_text_scale: 3.0, num_timesteps: 10}\n"


def overridden(**fields: Any) -> Recipe:
    return load(RECIPE, overrides=fields)


def faults(overrides: Any, recipe: str = RECIPE) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(recipe, overrides=overrides)
    return str(caught.value).split("\n")


def test_a_field_is_replaced() -> None:
    assert overridden(num_images=5).num_images == 5


@pytest.mark.parametrize("key", ["num_timesteps", "image.num_timesteps"])
def test_a_setting_goes_by_its_path_or_its_bare_name(key: str) -> None:
    image = overridden(**{key: 7}).image
    assert image == ImageSettings(num_timesteps=7, cfg_text_scale=3.0, cfg_img_scale=1.0)


def test_mappings_are_merged() -> None:
    recipe = overridden(image={"num_timesteps": 7}, text={"top_k": 5}, page=False)
    assert (recipe.image.num_timesteps, recipe.image.cfg_text_scale) == (7, 3.0)
    assert recipe.text == TextSettings(top_k=5)
    assert not recipe.output.page


def test_lists_are_replaced_and_their_items_can_be_reached() -> None:
    assert overridden(context=[{"text": "A dog"}]).context == (TextItem(text="A dog"),)
    assert overridden(**{"context.0.text": "A dog"}).context == (TextItem(text="A dog"),)


def test_the_data_given_is_left_as_it_was() -> None:
    data: dict[str, Any] = {"name": "test", "context": [{"text": "A cat"}]}
    load(data, overrides={"context.0.text": "A dog"})
    assert data == {"name": "test", "context": [{"text": "A cat"}]}


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"num_imags": 3}, "override: unknown field 'num_imags'; did you mean 'num_images'?"),
        ({"num_timestep": 3}, "override: unknown field 'num_timestep'; did you mean 'num_timesteps'?"),
        ({"image.widht": 3}, "override image: unknown field 'widht'; did you mean 'width'?"),
        ({"num_images": "3"}, 'override num_images: "3" is a text; allowed: whole numbers from 1 to 64'),
        ({"num_timesteps": 1}, "override image.num_timesteps: 1 is too small; allowed: whole numbers from 2 to 1,000"),
        (
            {"context.3.text": "x"},
            "override context[3].text: there is no item 3; the list has 1 items, numbered from 0",
        ),
        ({"context.0": 5}, "override context[0]: 5 is a whole number; allowed: `text: ...` or `image: ...`"),
        ({"image.0": 5}, "override image[0]: 0 is not a field of a mapping"),
        ({"temperature": float("nan")}, "override text.temperature: nan is not a finite number"),
        (
            {"image." * 30: 1},
            f"override: the key {'image.' * 30!a:.80} is not a field; allowed: names and dotted paths",
        ),
        ({5: 1}, "override: the key 5 is not a field; allowed: names and dotted paths"),
        ([5], "override: the overrides are a list; expected a mapping of fields"),
    ],
)
def test_a_fault_of_an_override_says_so(overrides: Any, line: str) -> None:
    assert faults(overrides) == [line]


def test_all_overrides_together_have_a_limit() -> None:
    texts = {f"context.{number}.text": "x" * 300_000 for number in range(4)}
    many = "name: test\ncontext: [{text: a}, {text: a}, {text: a}, {text: a}]\n"
    assert faults(texts, many) == ["the recipe's texts are too long; expected at most 1,048,576 characters in all"]


def test_faults_of_the_recipe_come_before_those_of_the_overrides() -> None:
    assert faults({"seed": -1}, recipe=RECIPE.replace("A cat", "''")) == [
        "<recipe>:3:11: context[0].text: is empty; allowed: a text of 1 to 8,192 characters",
        "override seed: -1 is too small; allowed: whole numbers from 0 to 9,223,372,036,854,775,807",
    ]


def test_an_override_mends_a_fault() -> None:
    assert load(RECIPE.replace("num_images: 2", "num_images: 200"), overrides={"num_images": 2}) == load(RECIPE)


def test_what_an_override_leaves_out_is_the_overrides_fault() -> None:
    assert faults({"retry.below": 0.5})[0] == "override retry.times: is missing; allowed: whole numbers from 1 to 8"


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("num_images=5", ("num_images", 5)),
        ("think=true", ("think", True)),
        ("think=no", ("think", "no")),
        ("seed=0123", ("seed", 123)),
        (" image.cfg_text_scale = 3.5 ", ("image.cfg_text_scale", 3.5)),
        ("refine_instruction=Note: be brave # really", ("refine_instruction", "Note: be brave # really")),
        ("refine_instruction=a=b", ("refine_instruction", "a=b")),
        ("refine_instruction='12'", ("refine_instruction", "12")),
        ("max_context_items=", ("max_context_items", None)),
        ("cfg_interval=[0, 1.0]", ("cfg_interval", [0, 1.0])),
        ("context=[{text: A dog}]", ("context", [{"text": "A dog"}])),
    ],
)
def test_the_command_line_gives_typed_values(text: str, parsed: tuple[str, Any]) -> None:
    assert parse_override(text) == parsed


@pytest.mark.parametrize("text", ["num_images", "=5", "", "a=[1", "a=[*x]", "a=[1]\nb: 2", "a='x' y"])
def test_what_is_no_override_on_the_command_line_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="override"):
        parse_override(text)


def test_more_digits_than_any_list_needs_are_no_index() -> None:
    with pytest.raises(RecipeError, match=r"^override context"):
        overridden(**{f"context.{'9' * 5000}": 1})

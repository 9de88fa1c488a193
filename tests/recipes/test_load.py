"""A recipe loads with its defaults in order, or says everything that is wrong with it, where, and what is allowed."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.model_folder import read_spec
from recipes.faults import RecipeError
from recipes.load import find, load
from recipes.recipe import ImageSettings, Recipe, TextItem, TextSettings

TINY = read_spec(Path(__file__).parents[2] / "models" / "tiny-bagel")
MINIMAL: dict[str, Any] = {"name": "test", "context": [{"text": "A cat"}]}
ITEMS = "a list of 1 to 256 of these: a mapping with text, thought, or a mapping with image, sha256"
EDITING: dict[str, Any] = {"name": "test", "context": [{"image": "s3://bucket/a.png"}, {"text": "Make it warmer"}]}


def faults(source: Path | str | dict[str, Any], **options: Any) -> list[str]:
    """One line for each fault."""
    with pytest.raises(RecipeError) as caught:
        load(source, **options)
    lines = str(caught.value).split("\n")
    assert len(lines) == len(caught.value.faults)
    return lines


def test_a_recipe_needs_a_name_and_a_context_alone() -> None:
    assert load(MINIMAL) == Recipe(
        name="test", context=(TextItem(text="A cat"),), image=ImageSettings(cfg_img_scale=1.0)
    )


def test_text_and_data_load_alike() -> None:
    text = "name: test\ncontext:\n  - text: A cat\nseed: 0123\nimage: {cfg_text_scale: 3}\n"
    assert load(text) == load({**MINIMAL, "seed": 123, "image": {"cfg_text_scale": 3.0}})


def test_a_file_loads_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xef\xbb\xbfname: test\ncontext: [{text: A cat}]\n")
    assert load(file) == load(MINIMAL)


def test_the_models_defaults_win_over_bagels_and_lose_to_the_recipes() -> None:
    recipe = load({**MINIMAL, "image": {"num_timesteps": 7}, "text": {"temperature": 0}}, spec=TINY)
    assert (recipe.image.width, recipe.image.cfg_text_scale, recipe.image.num_timesteps) == (64, 2.0, 7)
    assert recipe.text == TextSettings(max_new_tokens=100, temperature=0.0)


def test_an_image_in_the_context_brings_the_defaults_of_editing() -> None:
    image = load(EDITING, spec=TINY).image
    assert (image.width, image.height, image.cfg_img_scale) == (None, None, 1.5)
    assert (image.cfg_interval, image.cfg_renorm_type) == ((0.0, 1.0), "text_channel")
    assert load(EDITING).image.cfg_img_scale == 2.0


def test_editing_takes_a_given_size_and_scale() -> None:
    given_image = {"width": 32, "height": 64, "cfg_img_scale": 3}
    image = load({**EDITING, "image": given_image}, spec=TINY).image
    assert (image.width, image.height, image.cfg_img_scale) == (32, 64, 3.0)


def test_without_an_image_to_begin_with_image_guidance_is_off_whatever_is_given() -> None:
    assert load({**MINIMAL, "image": {"cfg_img_scale": 3.0}}, spec=TINY).image.cfg_img_scale == 1.0


BAD = (
    "name: Magical forest\n"
    "num_image: 7\n"
    "seed: 1.5\n"
    "context:\n"
    "  - text: A forest\n"
    "  - A cat\n"
    "  - txt: x\n"
    "  - {image: http://a.b/c.png, sha256: zz}\n"
    "  - {text: a, image: b}\n"
    '  - {text: "", sha256: x}\n'
    "  - {}\n"
    "think: no\n"
    "refinement_prompts: [a, '', 4]\n"
    "variations_per_image: 65\n"
    "select: trees\n"
    "retry: {below: 2}\n"
    "text: {temperature: -1, top_p: 0, top_k: 3.0}\n"
    "image:\n"
    "  width: 1000\n"
    "  cfg_interval: [0.5]\n"
    "  cfg_renorm_type: z\n"
    "  widht: 3\n"
    "output:\n"
    "seed: 4\n"
)
"""A recipe with a fault of each kind."""
FAULTS = [
    "1:7: name: 'Magical forest' is not a name",
    "2:1: unknown field 'num_image'",
    "3:7: seed: 1.5 is a decimal number",
    '6:5: context[1]: "A cat" is a text',
    "7:5: context[2]: unknown field 'txt'",
    "8:13: context[3].image: http: URIs are not supported",
    "8:39: context[3].sha256: 'zz' is not a SHA-256",
    "9:5: context[4]: is both a text and an image",
    "10:12: context[5].text: is empty",
    "10:16: context[5]: unknown field 'sha256'",
    "11:5: context[6]: is neither text nor image",
    '12:8: think: "no" is a text',
    "13:25: refinement_prompts[1]: is empty",
    "13:29: refinement_prompts[2]: 4 is a whole number",
    "14:23: variations_per_image: 65 is too large",
    '15:9: select: "trees" is not an option',
    "16:8: retry.times: is missing",
    "16:16: retry.below: 2 is too large",
    "17:21: text.temperature: -1 is too small",
    "17:32: text.top_p: 0 is too small",
    "17:42: text.top_k: 3.0 is a decimal number",
    "19:10: image.width: is given without the other side",
    "20:17: image.cfg_interval: is a list of 1",
    '21:20: image.cfg_renorm_type: "z" is not an option',
    "22:3: image: unknown field 'widht'",
    "23:8: output: is null",
    "24:1: the field 'seed' is given twice",
]
"""How the errors of BAD begin."""


def test_every_fault_is_reported_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(BAD, encoding="utf-8")
    assert [line.removeprefix(f"{file}:").partition("; ")[0] for line in faults(file)] == FAULTS


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"num_image": 3}, "unknown field 'num_image'; did you mean 'num_images'?"),
        ({"output": {"p": 1}}, "output: unknown field 'p'; allowed: format, page"),
        ({"num_images": 0}, "num_images: 0 is too small; allowed: whole numbers from 1 to 64"),
        ({"num_images": "3"}, 'num_images: "3" is a text; allowed: whole numbers from 1 to 64'),
        ({"think": 1}, "think: 1 is a whole number; allowed: true or false"),
        ({"seed": True}, "seed: true is a boolean; allowed: whole numbers from 0 to 9,223,372,036,854,775,807"),
        ({"seed": 2**63}, f"seed: {2**63} is too large; allowed: whole numbers from 0 to 9,223,372,036,854,775,807"),
        ({"context": []}, f"context: is a list of 0; allowed: {ITEMS}"),
        ({"context": "A cat"}, f'context: "A cat" is a text; allowed: {ITEMS}'),
        (
            {"refine_instruction": "x" * 8193},
            "refine_instruction: has 8,193 characters; allowed: a text of 1 to 8,192 characters, or null",
        ),
        ({"text": {"top_p": 0.0}}, "text.top_p: 0.0 is too small; allowed: numbers above 0 and up to 1"),
        ({"pin": "all"}, 'pin: "all" is not an option; allowed: initial, none, or whole numbers from 0 to 256'),
        ({"pin": 257}, "pin: 257 is too large; allowed: initial, none, or whole numbers from 0 to 256"),
        ({"context": [{"text": 5}]}, "context[0].text: 5 is a whole number; allowed: a text of 1 to 8,192 characters"),
        ({"output": None}, "output: is null; allowed: a mapping with format, page"),
        (
            {"image": {"cfg_interval": [0, 1, 2]}},
            "image.cfg_interval: is a list of 3; allowed: a list of 2: numbers from 0 to 1",
        ),
        ({"image": {"timestep_shift": float("nan")}}, "image.timestep_shift: nan is not a finite number"),
        ({"image": {"timestep_shift": float("inf")}}, "image.timestep_shift: inf is not a finite number"),
        ({"seed": 10**100}, "seed: is too large"),
        (
            {"context": [{"text": "a\0b"}]},
            "context[0].text: contains the character '\\x00', which is not allowed",
        ),
        (
            {"context": [{"text": "\ud800"}]},
            "context[0].text: contains the character '\\ud800', which is not allowed",
        ),
        ({"model": b"x"}, "model: is of type bytes, which recipes do not support"),
        ({7: 8}, "the key 7 is not a field name; keys must be texts"),
        ({"na\nme": 8}, "unknown field 'na\\nme'; did you mean 'name'?"),
    ],
)
def test_a_fault_says_what_is_wrong_and_what_is_allowed(changes: dict[str, Any], line: str) -> None:
    assert faults({**MINIMAL, **changes}) == [line]


BOUNDED = [
    ("num_images", 1, 64),
    ("seed", 0, 2**63 - 1),
    ("max_context_items", 2, 256),
    ("text.max_new_tokens", 1, 8192),
    ("text.temperature", 0, 5),
    ("text.top_p", 1e-9, 1),
    ("text.top_k", 0, 1_000_000),
    ("image.num_timesteps", 2, 1000),
    ("image.timestep_shift", 1e-9, 100),
    ("image.cfg_text_scale", 0, 100),
    ("image.cfg_img_scale", 0, 100),
    ("image.cfg_renorm_min", 0, 1),
]


@pytest.mark.parametrize(("field", "low", "high"), BOUNDED)
def test_both_ends_of_a_bound_are_allowed_and_nothing_beyond(field: str, low: float, high: float) -> None:
    load(MINIMAL, overrides={field: low})
    load(MINIMAL, overrides={field: high})
    (under,) = faults(MINIMAL, overrides={field: low - 1})
    (over,) = faults(MINIMAL, overrides={field: high + 1})
    assert under.startswith(f"override {field}: {low - 1} ")
    assert over.startswith(f"override {field}: {high + 1} is too large; allowed: ")


def test_a_missing_field_is_told_at_the_mapping_it_is_missing_from() -> None:
    lines = faults("# a comment\nseed: 1\n")
    assert [line.partition(";")[0] for line in lines] == [
        "<recipe>:2:1: name: is missing",
        "<recipe>:2:1: context: is missing",
    ]


def test_a_fault_in_the_models_defaults_names_the_model_not_the_recipe() -> None:
    spec = replace(TINY, image_defaults={**TINY.image_defaults, "num_timesteps": 1, "colour": "red"})
    assert faults("name: a\ncontext: [{text: b}]", spec=spec) == [
        "the defaults of tiny-bagel: image.num_timesteps: 1 is too small; allowed: whole numbers from 2 to 1,000",
        "the defaults of tiny-bagel: image: unknown field 'colour'; allowed: " + ", ".join(vars(ImageSettings())),
    ]


def test_what_a_refused_value_would_have_broken_as_well_is_not_told() -> None:
    assert faults("name: a\ncontext: *gone\n") == [
        "<recipe>:2:10: context: the alias *gone is not allowed; write the value itself"
    ]


@pytest.mark.parametrize("text", ["", "# nothing", "just a text", "- a list", "5", "name: [", "name: \x01"])
def test_a_text_that_holds_no_mapping_is_refused_at_its_place(text: str) -> None:
    (line,) = faults(text)
    assert line.startswith(("<recipe>:1:", "<recipe>:2:1: "))


@pytest.mark.parametrize("data", [None, 5, ["name"], b"name: a"])
def test_data_that_is_no_mapping_is_refused(data: Any) -> None:
    (line,) = faults(data)
    assert line.endswith("; expected a mapping of fields")


def test_data_without_end_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["image"] = endless
    assert faults(endless) == ["image is nested too deep; expected at most 20 levels"]
    assert faults({**MINIMAL, "context": [{"text": "x" * 8000}] * 200}) == [
        "the recipe's texts are too long; expected at most 1,048,576 characters in all"
    ]
    assert faults({**MINIMAL, "refinement_prompts": ["x"] * 20_000}) == [
        "the recipe has too many values; expected at most 10,000"
    ]


def test_files_that_are_no_recipes_are_refused_by_name(tmp_path: Path) -> None:
    assert faults(tmp_path / "none.yaml") == [f"{tmp_path}/none.yaml: no such file; expected a recipe file (YAML)"]
    assert faults(tmp_path) == [f"{tmp_path}: is a folder; expected a recipe file (YAML)"]
    assert faults(Path("/dev/null")) == ["/dev/null: is not a regular file; expected a recipe file (YAML)"]
    assert "can't be read" in faults(Path("a\0b"))[0]
    assert "can't be read" in faults(tmp_path / ("x" * 300))[0]


def test_a_file_may_hold_256_kib_of_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    begin = b"name: test\ncontext: [{text: A cat}]\n#"
    file.write_bytes(begin + b"x" * (256 * 1024 - len(begin)))
    assert load(file) == load(MINIMAL)
    file.write_bytes(begin + b"x" * (256 * 1024 - len(begin) + 1))
    assert faults(file) == [f"{file}: is larger than 256 KiB; expected a smaller file"]
    file.write_bytes("name: é\nseed: ü".encode() + b"\xff")
    assert faults(file) == [f"{file}:2:8: is not UTF-8 text"]


def test_a_shipped_recipe_is_found_by_its_name_alone(tmp_path: Path) -> None:
    (tmp_path / "first-steps.yaml").write_text("", encoding="utf-8")
    (tmp_path / "other.yaml").write_text("", encoding="utf-8")
    assert find("first-steps", tmp_path) == tmp_path / "first-steps.yaml"
    for name in ("first-step", "../first-steps", "first-steps.yaml", "", "/"):
        with pytest.raises(RecipeError, match=r"there is no recipe named .*allowed: first-steps, other"):
            find(name, tmp_path)


def test_an_error_stays_readable_however_many_faults_there_are() -> None:
    with pytest.raises(RecipeError) as caught:
        load({**MINIMAL, "context": [{"text": 1}] * 256})
    lines = str(caught.value).split("\n")
    assert len(caught.value.faults) == 256
    assert (len(lines), lines[-1]) == (101, "... and 156 more")


def test_an_error_is_given_as_data(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("name: a\ncontext: [{text: b}]\nnum_images: 0\nname: b\n")
    with pytest.raises(RecipeError) as caught:
        load(file)
    at = {"file": str(file), "column": 13}
    assert caught.value.to_data() == [
        {
            **at,
            "line": 3,
            "field": "num_images",
            "message": "0 is too small",
            "allowed": "whole numbers from 1 to 64",
        },
        {**at, "line": 4, "column": 1, "field": None, "message": "the field 'name' is given twice", "allowed": None},
    ]
    with pytest.raises(RecipeError) as caught:
        load({"name": "a", "context": 5})
    (only,) = caught.value.to_data()
    assert (only["file"], only["line"], only["column"], only["field"]) == (None, None, None, "context")


def test_an_error_crosses_processes_whole() -> None:
    with pytest.raises(RecipeError) as caught:
        load("name: 5")
    copied = pickle.loads(pickle.dumps(caught.value))
    assert copied.faults == caught.value.faults
    assert str(copied) == str(caught.value)


def test_an_image_whose_name_no_file_can_have_is_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "long.yaml"
    file.write_text(f"name: test\ncontext:\n- image: {'a' * 5000}.png\n")
    with pytest.raises(RecipeError, match=r":3:10: context\[0\]\.image: a{80}: can't be accessed: File name too long"):
        load(file)

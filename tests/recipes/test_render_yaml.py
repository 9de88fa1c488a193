"""A recipe is told with all its defaults, and loads again as the same; each line tells where its value is from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from recipes.faults import RecipeError
from recipes.load import find, load, read
from recipes.model_spec import ModelSpec
from recipes.render_yaml import render_yaml
from tests.recipes.drawn import TINY, recipes, specs

SHIPPED = sorted(find("night-sky").parent.glob("*.yaml"))


def told(source: Path | str | dict[str, Any], spec: ModelSpec | None = TINY, **changes: Any) -> list[str]:
    return render_yaml(read(source, **changes), spec).splitlines()


@settings(max_examples=300, deadline=None)
@given(recipes, specs, specs)
def test_a_listing_loads_again_as_the_same_recipe_for_any_model(
    data: dict[str, Any], first: ModelSpec | None, second: ModelSpec | None
) -> None:
    assert load(render_yaml(read(data), first), spec=second) == load(data, spec=first)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_recipe_loads_again_from_its_listing(file: Path, tmp_path: Path) -> None:
    (tmp_path / "inputs").symlink_to(file.parent / "inputs")
    copy = tmp_path / "copy.yaml"
    copy.write_text(render_yaml(read(file), TINY), encoding="utf-8")
    assert load(copy, spec=TINY) == load(file, spec=TINY)


def test_a_long_text_stays_whole() -> None:
    data = {"name": "a", "context": [{"text": "x: " * 2000}, {"image": f"data:image/png;base64,{'AAAA' * 50_000}"}]}
    assert load(render_yaml(read(data), None)) == load(data)


def test_what_is_given_is_told_without_a_remark_and_a_default_with_its_source() -> None:
    lines = told("name: a\ncontext: [{text: b}]\nimage: {timestep_shift: 2.0}\nretry: {below: 0.5, times: 1}\n")
    for line in (
        "name: a",
        "  - text: b",
        "  timestep_shift: 2.0",
        "  times: 1",
        "seed: 0  # default",
        "refinement_prompts: []  # default",
        "  num_timesteps: 24  # the model's",
        "  cfg_img_scale: 1.0  # the mode's",
        "  cfg_renorm_min: 0.0  # the model's",
        "  format: png  # default",
    ):
        assert line in lines
    assert "  num_timesteps: 50  # default" in told("name: a\ncontext: [{text: b}]\n", spec=None)


def test_editing_has_defaults_of_its_own() -> None:
    lines = told("name: a\ncontext: [{image: 's3://bucket/a.png'}]\nimage: {cfg_img_scale: 3.0}\n")
    assert {
        "  - image: s3://bucket/a.png",
        "    sha256: null  # default",
        "  width: null  # the mode's",
        "  cfg_interval: [0.0, 1.0]  # the mode's",
        "  cfg_img_scale: 3.0",
    } <= set(lines)


def test_image_guidance_that_is_off_whatever_is_given_is_the_modes() -> None:
    assert "  cfg_img_scale: 1.0  # the mode's" in told("name: a\ncontext: [{text: b}]\nimage: {cfg_img_scale: 3.0}\n")


def test_values_from_elsewhere_say_so(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    base = "name: base\nseed: 4\nmodel: ${model}\ncontext: [{text: 'A ${animal}'}]\ntext: {top_k: 5, top_p: 0.5}\n"
    (tmp_path / "sub" / "base.yaml").write_text(base)
    child = tmp_path / "child.yaml"
    child.write_text(
        "extends: sub/base.yaml\nname: ${name}\nvars: {model: tiny, name: a}\nimage: {cfg_interval: [0, '${x}']}\n"
    )
    lines = told(child, variables={"animal": "cat", "name": "b", "x": 1.0}, overrides={"seed": 5, "top_p": 0.25})
    assert lines[:5] == [
        "name: b  # --var",
        "model: tiny  # from sub/base.yaml",
        "seed: 5  # --set",
        "context:",
        "  - text: A cat  # from sub/base.yaml, --var",
    ]
    assert "  cfg_interval: [0.0, 1.0]  # --var" in lines
    assert "  top_p: 0.25  # --set" in lines
    assert "  top_k: 5  # from sub/base.yaml" in lines
    assert "num_images: 1  # default" in lines


def test_a_shipped_parent_is_told_by_its_file(tmp_path: Path) -> None:
    assert "seed: 7  # from night-sky.yaml" in told("extends: night-sky\n")
    (tmp_path / "child.yaml").write_text("extends: night-sky\n")
    assert "seed: 7  # from night-sky.yaml" in told(tmp_path / "child.yaml")


def test_one_override_of_a_list_is_told_where_it_is() -> None:
    lines = told("name: a\ncontext: [{text: b}, {text: c}]\n", overrides={"context.1.text": "d"})
    assert "  - text: b" in lines
    assert "  - text: d  # --set" in lines


def test_dollars_and_lines_are_written_so_that_they_are_read_back() -> None:
    lines = told({"name": "a", "context": [{"text": "$${a}\nb"}], "refinement_prompts": [None, "no"]})
    assert lines[lines.index("  - text: |-") + 1 :][:2] == ["      $${a}", "      b"]
    assert lines[lines.index("refinement_prompts:") + 1 :][:2] == ["  - null", '  - "no"']


def test_a_model_with_wrong_defaults_is_told_as_by_loading() -> None:
    with pytest.raises(RecipeError, match="the defaults of tiny-bagel"):
        told("name: a\ncontext: [{text: b}]\n", spec=replace(TINY, image_defaults={"num_timesteps": 1}))

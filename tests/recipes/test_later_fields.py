"""A recipe that was stored keeps its identity in every later release, and is read by each as far as it knows it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from recipes.canonical import LATER_FIELDS, recipe_sha256, to_document
from recipes.defaults import fill_in
from recipes.faults import RecipeError
from recipes.load import load, load_resolved
from recipes.recipe import ImageItem, JudgeSettings, Recipe, Retry, StepCacheSettings, TextItem

ROOT = Path(__file__).parents[2]
PIN = "0123456789abcdef" * 4
DATA: dict[str, Any] = {"name": "test", "context": [{"text": "A fox"}], "retry": {"below": 0.5, "times": 1}}
EDIT: dict[str, Any] = {**DATA, "context": [{"image": "s3://bucket/a.png"}, {"text": "Warmer"}]}
IN_0_1_0 = """
    name model seed context num_images think auto_refine refinement_prompts refine_instruction max_context_items pin
    variations_per_image select judge judge.question judge.answer retry retry.below retry.times
    text text.max_new_tokens text.temperature text.top_p text.top_k
    image image.width image.height image.num_timesteps image.timestep_shift image.cfg_text_scale image.cfg_img_scale
    image.cfg_interval image.cfg_renorm_type image.cfg_renorm_min output output.format output.page parent
"""
"""Every field of a document of release 0.1.0, but for those of the context's items. Never add one."""


def fields_of(document: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, value in document.items():
        yield f"{path}{name}"
        if isinstance(value, Mapping):
            yield from fields_of(value, f"{path}{name}.")


def test_a_document_has_the_fields_of_0_1_0_and_of_no_other_release() -> None:
    assert set(fields_of(to_document(load(DATA)))) == set(IN_0_1_0.split())
    assert to_document(load(EDIT))["context"] == [
        {"image": "s3://bucket/a.png", "sha256": None},
        {"text": "Warmer", "thought": False},
    ]


def test_every_field_is_of_0_1_0_or_has_a_meaning_of_its_absence() -> None:
    every = set(fields_of(asdict(load(DATA))))
    assert every == set(IN_0_1_0.split()) | set(LATER_FIELDS)
    assert not set(IN_0_1_0.split()).intersection(LATER_FIELDS)
    assert set(asdict(TextItem(text="a"))) | set(asdict(ImageItem(image="a"))) == {"text", "thought", "image", "sha256"}


@pytest.mark.parametrize("document", [DATA, EDIT], ids=["generation", "editing"])
@pytest.mark.parametrize("path", LATER_FIELDS)
def test_an_absent_later_field_means_its_default(path: str, document: dict[str, Any]) -> None:
    value: Any = fill_in(document, None)
    for name in path.split("."):
        value = value[name]
    assert value == LATER_FIELDS[path]


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_shipped_recipe_has_the_document_of_0_1_0(file: Path) -> None:
    fields = set(fields_of(to_document(load(file))))
    assert fields <= set(IN_0_1_0.split())
    assert fields >= set(IN_0_1_0.split()) - {"retry.below", "retry.times"}


@pytest.mark.parametrize("file", sorted((ROOT / "tests" / "releases").glob("*/bucket/runs/*/recipe.json")), ids=str)
def test_a_stored_recipe_has_the_same_document_and_hash_when_written_again(file: Path) -> None:
    stored = json.loads(file.read_text(encoding="utf-8"))
    images = [item["sha256"] for item in stored["context"] if "image" in item]
    again = to_document(load_resolved(stored))
    assert again == stored
    assert recipe_sha256(again, images) == recipe_sha256(stored, images)


def test_a_step_cache_is_written_with_every_field_and_counts() -> None:
    cached = load(DATA, overrides={"step_cache.interval": 3})
    assert cached.image.step_cache == StepCacheSettings(interval=3)
    assert to_document(cached)["image"]["step_cache"] == asdict(StepCacheSettings(interval=3))
    assert load_resolved(to_document(cached)) == cached
    hashes = {
        recipe_sha256(to_document(one), []) for one in (cached, load(DATA, overrides={"step_cache": {}}), load(DATA))
    }
    assert len(hashes) == 3


def test_a_later_field_is_written_and_counts_where_it_says_something() -> None:
    pinned = replace(load(DATA), model_sha256=PIN)
    assert to_document(pinned)["model_sha256"] == PIN
    assert load_resolved(to_document(pinned)) == pinned
    unpinned = recipe_sha256(to_document(load(DATA)), [])
    assert recipe_sha256(to_document(pinned), []) != unpinned
    assert recipe_sha256(to_document(load({**DATA, "model_sha256": None})), []) == unpinned


@pytest.mark.parametrize(
    "unknown",
    [
        {"sampler": "euler"},
        {"version": 1},
        {"judge": {**asdict(JudgeSettings()), "model": {"name": "x"}}},
        {"retry": {**asdict(Retry(below=0.5, times=1)), "pause": [1]}},
        {"context": [{"text": "A fox", "thought": False, "weight": 2}]},
    ],
    ids=str,
)
def test_fields_of_a_newer_release_are_ignored_and_counted(unknown: dict[str, Any]) -> None:
    recipe = load(DATA)
    document = {**to_document(recipe), **unknown}
    assert load_resolved(document) == recipe
    assert recipe_sha256(document, []) != recipe_sha256(to_document(recipe), [])
    with pytest.raises(RecipeError, match="unknown field"):
        load(document)


def test_what_is_wrong_in_a_field_that_is_known_is_still_found() -> None:
    with pytest.raises(RecipeError, match="num_images"):
        load_resolved({**to_document(load(DATA)), "num_images": 0, "sampler": "euler"})


def test_recipes_made_in_python_need_no_later_field() -> None:
    assert Recipe(name="a", context=(TextItem(text="b"),)).model_sha256 is None

"""A resolved recipe has one form and one hash, which follow what decides a run's outcome and nothing else."""

import json
from hashlib import sha256
from typing import Any

import pytest

from recipes.canonical import canonical_json, recipe_sha256, to_document, to_json
from recipes.load import load
from recipes.recipe import Recipe

DATA: dict[str, Any] = {"name": "test", "context": [{"text": "Ein Fuchs, groß"}]}


def editing(image: str) -> dict[str, Any]:
    return {"name": "test", "context": [{"image": image}, {"text": "Warmer"}]}


def sha256_of(recipe: Recipe, image_hashes: list[str]) -> str:
    return recipe_sha256(to_document(recipe), image_hashes)


def test_the_canonical_form_is_sorted_compact_utf_8() -> None:
    assert canonical_json({"b": [1, 2.0], "a": "é"}) == '{"a":"é","b":[1,2.0]}'.encode()
    assert json.loads(to_json(load(DATA))) == to_document(load(DATA))


def test_a_document_holds_every_field() -> None:
    document = to_document(load(DATA))
    assert document["context"] == [{"text": "Ein Fuchs, groß", "thought": False}]
    assert document["image"]["cfg_interval"] == [0.4, 1.0]
    assert document["retry"] is None


def test_however_a_recipe_is_spelt_its_hash_is_the_same() -> None:
    spelt_out = {"image": {"cfg_text_scale": 4, "height": 1024, "width": 1024}, "seed": 0, **DATA}
    document = to_document(load(DATA))
    del document["parent"]
    expected = sha256(canonical_json(document)).hexdigest()
    assert sha256_of(load(spelt_out), []) == sha256_of(load(DATA), []) == expected


def test_where_a_recipe_branched_off_changes_nothing() -> None:
    assert sha256_of(load({**DATA, "parent": "run-1@3"}), []) == sha256_of(load(DATA), [])


@pytest.mark.parametrize("changes", [{"seed": 1}, {"think": True}, {"temperature": 0.0}, {"context.0.text": "A cat"}])
def test_whatever_changes_the_outcome_changes_the_hash(changes: dict[str, Any]) -> None:
    assert sha256_of(load(DATA, overrides=changes), []) != sha256_of(load(DATA), [])


def test_images_count_by_their_content_not_by_where_they_are() -> None:
    here, there = load(editing("s3://bucket/a.png")), load(editing("b.png"), overrides={"context.0.sha256": "0" * 64})
    assert sha256_of(here, ["0" * 64]) == sha256_of(there, ["0" * 64])
    assert sha256_of(here, ["0" * 64]) != sha256_of(here, ["1" * 64])


@pytest.mark.parametrize("hashes", [[], ["0" * 64, "1" * 64]])
def test_every_image_needs_its_hash(hashes: list[str]) -> None:
    with pytest.raises(ValueError, match="zip"):
        sha256_of(load(editing("b.png")), hashes)

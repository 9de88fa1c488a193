"""The schema that editors use says what the loader says, and the stored copy is current."""

import re
from pathlib import Path
from typing import Any

import pytest

from recipes import schema
from recipes.fields import KEYS, names
from recipes.recipe import ImageSettings, Recipe, TextSettings
from recipes.yaml_core import YamlReader

ROOT = Path(__file__).parents[2]


def test_the_stored_schema_is_current() -> None:
    stored = (ROOT / "recipes" / "recipe.schema.json").read_text(encoding="utf-8")
    assert stored == schema.schema_text(), "run: python -m recipes.schema > recipes/recipe.schema.json"


@pytest.mark.parametrize(
    ("properties", "kind"),
    [
        (schema.json_schema()["properties"], Recipe),
        (schema.json_schema()["$defs"]["TextSettings"]["properties"], TextSettings),
        (schema.json_schema()["$defs"]["ImageSettings"]["properties"], ImageSettings),
    ],
)
def test_every_field_is_there_and_described(properties: dict[str, Any], kind: type) -> None:
    assert tuple(name for name in properties if name not in KEYS) == names(kind)
    for field in properties.values():
        assert "description" in field or "$ref" in field
        assert "title" not in field


def test_settings_claim_no_default_since_it_is_the_models() -> None:
    for kind in ("TextSettings", "ImageSettings"):
        for field in schema.json_schema()["$defs"][kind]["properties"].values():
            assert "default" not in field
            assert field["description"].endswith("Default: the model's.")


TYPES: dict[str, Any] = {
    "string": str,
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
    "integer": int,
    "number": (int, float),
}


def fits(value: Any, kind: dict[str, Any]) -> bool:
    """Whether an editor takes a value: the words of JSON Schema that ours uses."""
    if "$ref" in kind:
        return fits(value, schema.json_schema()["$defs"][kind["$ref"].rpartition("/")[2]])
    types = [kind["type"]] if isinstance(kind.get("type"), str) else kind.get("type", list(TYPES))
    right = any(isinstance(value, TYPES[name]) for name in types) and not (
        isinstance(value, bool) and "boolean" not in types
    )
    right &= "anyOf" not in kind or any(fits(value, option) for option in kind["anyOf"])
    right &= value in kind.get("enum", [value]) and value == kind.get("const", value)
    match value:
        case str():
            right &= re.search(kind.get("pattern", ""), value) is not None
        case int() | float():
            right &= kind.get("minimum", value) <= value <= kind.get("maximum", value)
        case list():
            right &= all(map(fits, value, kind.get("prefixItems", [kind.get("items", {})] * len(value))))
        case dict():
            right &= fields_fit(value, kind)
    return right


def fields_fit(value: dict[str, Any], kind: dict[str, Any]) -> bool:
    known, others = kind.get("properties", {}), kind.get("additionalProperties", {})
    names = kind.get("propertyNames", {}).get("pattern", "")
    return value.keys() >= set(kind.get("required", [])) and all(
        re.search(names, name) and (name in known or others is not False) and fits(item, known.get(name, others))
        for name, item in value.items()
    )


def marked(text: str) -> bool:
    """Whether an editor finds something wrong with a recipe."""
    return not fits(YamlReader(text).read(), schema.json_schema())


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda file: file.stem)
def test_editors_mark_nothing_in_a_shipped_recipe(file: Path) -> None:
    assert not marked(file.read_text(encoding="utf-8"))


EVERYWHERE = """
extends: base.yaml
vars: {animal: fox, size: 64, think: true, scale: 1.5, style: null}
name: ${animal}-story
model: ${animal}
seed: ${size}
context: [{text: "${animal}"}, {image: "${animal}.png", sha256: "${animal}"}]
think: ${think}
refinement_prompts: ["${animal}"]
max_context_items: ${size}
pin: ${style}
image: {width: "${size}", height: "${size}", cfg_interval: [0, "${scale}"], cfg_renorm_type: "${style}_channel"}
output: {page: "${think}"}
"""


def test_editors_take_variables_where_the_loader_does() -> None:
    assert not marked(EVERYWHERE)


@pytest.mark.parametrize(
    "line",
    [
        "seed: x",
        "seed: x ${size}",
        "think: $${think}",
        "vars: {Animal: 1}",
        "vars: {animal: [1]}",
        "extends: 5",
        "a: 1",
    ],
)
def test_editors_still_mark_what_is_wrong(line: str) -> None:
    name = line.partition(":")[0]
    rest = [other for other in EVERYWHERE.strip().split("\n") if not other.startswith(f"{name}:")]
    assert marked("\n".join([*rest, line]))


def test_editors_want_a_name_and_a_context_or_a_parent() -> None:
    assert marked("name: a")
    assert not marked("name: a\nextends: b.yaml")
    half = "name: a\ncontext: [{text: b}]\nretry: {below: 0.5}"
    assert marked(half)
    assert not marked(f"{half}\nextends: b.yaml")

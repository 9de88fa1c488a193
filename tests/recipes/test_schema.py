"""The schema that editors use says what the loader says, and the stored copy is current."""

from pathlib import Path
from typing import Any

import pytest

from recipes import schema
from recipes.fields import names
from recipes.recipe import ImageSettings, Recipe, TextSettings

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
    assert tuple(properties) == names(kind)
    for field in properties.values():
        assert "description" in field or "$ref" in field
        assert "title" not in field


def test_settings_claim_no_default_since_it_is_the_models() -> None:
    for kind in ("TextSettings", "ImageSettings"):
        for field in schema.json_schema()["$defs"][kind]["properties"].values():
            assert "default" not in field
            assert field["description"].endswith("Default: the model's.")

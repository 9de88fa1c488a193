"""The JSON Schema of recipes, for editors: `python -m recipes.schema > recipes/recipe.schema.json`."""

import json
import sys
from typing import Any

from pydantic import TypeAdapter

from recipes import rules
from recipes.fields import SETTINGS
from recipes.recipe import Recipe


def json_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of what a recipe file may hold."""
    schema = TypeAdapter(Recipe).json_schema()
    settings, fields = schema["$defs"], schema["properties"]
    for kind in (schema, *settings.values()):
        _drop_titles(kind)
    for kind in (settings["TextSettings"], settings["ImageSettings"]):
        for field in kind["properties"].values():
            field["description"] += " Default: the model's."
            del field["default"]
    for group in SETTINGS:
        del fields[group]["default"]
    fields["name"]["pattern"] = rules.NAME
    fields["parent"]["anyOf"][0]["pattern"] = rules.PARENT
    fields["model"]["anyOf"][0]["pattern"] = rules.MODEL
    settings["ImageItem"]["properties"]["sha256"]["anyOf"][0]["pattern"] = rules.SHA256
    description = "A recipe: one automatic interleaved text-image sequence."
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "description": description}


def schema_text() -> str:
    """The schema as recipe.schema.json holds it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _drop_titles(kind: dict[str, Any]) -> None:
    """Titles repeat the field names; editors show them above the descriptions."""
    del kind["title"]
    for field in kind["properties"].values():
        field.pop("title", None)


if __name__ == "__main__":
    sys.stdout.write(schema_text())

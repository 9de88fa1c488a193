"""The JSON Schema of recipes, for editors: `python -m recipes.schema > recipes/recipe.schema.json`."""

import json
import sys
from typing import Any

from pydantic import TypeAdapter

from recipes import rules, variables
from recipes.fields import SETTINGS
from recipes.recipe import Recipe

_NAME = r"[a-z][a-z0-9_]*"
_ABOUT = ("default", "description")
_FORMS = ("pattern", "enum")
_VARIABLE = "Variable"
_TEXT = "TextWithVariables"
_DEFINED = {
    _VARIABLE: {"description": "A variable.", "type": "string", "pattern": rf"^\$\{{{_NAME}\}}$"},
    _TEXT: {"description": "A text with variables.", "type": "string", "pattern": rf"\$\{{{_NAME}\}}"},
}
_LANGUAGE: dict[str, dict[str, Any]] = {
    "extends": {
        "description": "A recipe from which this one takes all fields that it does not set: a file in the same folder "
        "or below it, or the name of a shipped recipe.",
        "type": "string",
    },
    "vars": {
        "description": "Values of the variables in this recipe's texts: ${name} is replaced with the value of name.",
        "type": "object",
        "maxProperties": variables.MAX_VARIABLES,
        "propertyNames": {"pattern": variables.NAME},
        "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
    },
}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a recipe file."""
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
    fields["model_sha256"]["anyOf"][0]["pattern"] = rules.SHA256
    settings["ImageItem"]["properties"]["sha256"]["anyOf"][0]["pattern"] = rules.SHA256
    for kind in (schema, *settings.values()):
        kind["properties"] = {name: _with_variables(field) for name, field in kind["properties"].items()}
    fields = schema["properties"]
    fields.update(_LANGUAGE)
    settings.update(_DEFINED)
    # A parent may give the required fields, so they are required only without one.
    whole = {"retry": {"required": settings["Retry"].pop("required")}}
    schema["anyOf"] = [{"required": schema.pop("required"), "properties": whole}, {"required": ["extends"]}]
    description = "A recipe: one automatic interleaved text-image sequence."
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "description": description}


def schema_text() -> str:
    """The schema as text, as in recipe.schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _with_variables(field: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field that also accepts a variable. Unrestricted texts accept one anyway."""
    if "prefixItems" in field:
        return {**field, "prefixItems": [_with_variables(item) for item in field["prefixItems"]]}
    if "$ref" in field or "const" in field or field.get("type") == "array":
        return field
    about = {key: what for key, what in field.items() if key in _ABOUT}
    value = {key: what for key, what in field.items() if key not in _ABOUT}
    options = value.get("anyOf", [value])
    texts = [option for option in options if option.get("type") == "string"]
    if any("$ref" in option for option in options) or any(option.keys().isdisjoint(_FORMS) for option in texts):
        return field
    return {"anyOf": [*options, {"$ref": f"#/$defs/{_TEXT if texts else _VARIABLE}"}], **about}


def _drop_titles(kind: dict[str, Any]) -> None:
    """Remove the titles: they repeat the field names, and editors show them above the descriptions."""
    del kind["title"]
    for field in kind["properties"].values():
        field.pop("title", None)


if __name__ == "__main__":
    sys.stdout.write(schema_text())
